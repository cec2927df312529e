//! libtrtllm: from a Hugging Face checkpoint to served text, as one shared library.
//!
//! # How data flows
//!
//! ```text
//! checkpoint/ -> network/ -> passes/ -> builder/ -> engine file -> runtime/ + backend/ -> executor/ (+ kv/, sampling/, text/) -> response
//! HF folder      typed       fuse       pack,        plan and       plan steps on          who runs next, which blocks,          tokens, text,
//!                graph                  plan memory  weights        the device             which token                           statistics
//! ```
//!
//! `builder` and `executor` meet only at the engine file. Without the feature `compiler` the left half is not built.
//!
//! # Rooms
//!
//! | room | holds | imports, besides `error` and `types` |
//! |---|---|---|
//! | `checkpoint` | `config.json`, safetensors, dummy weights | nothing |
//! | `network` | the graph, shape inference, verifier, printers | nothing |
//! | `models` | one file per family: config and tensor names to a graph | `network`, `checkpoint` |
//! | `passes` | one file per rewrite, found by pattern on the graph alone | `network` |
//! | `engine` | plan, file format, reader, writer, inspection | nothing |
//! | `backend` | device traits; `cpu`; `cuda`: a plan as works, calls and launches, over a driver trait | `engine` |
//! | `runtime` | a plan on a device: steps launched and collected | `engine`, `backend` |
//! | `builder` | lowering, memory planning, weight packing; for CUDA tactics measured and kernels compiled | `checkpoint`, `network`, `models`, `passes`, `engine`, `backend`, `runtime`, `text` |
//! | `kv` | blocks, tables, prefix tree: pure bookkeeping | nothing |
//! | `text` | tokenizer, chat template, incremental detokenizer | nothing |
//! | `sampling` | parameters, logits processors, sampler, stops | `runtime`, `text` |
//! | `executor` | queue, scheduler (pure), step loop, delivery, statistics | `engine`, `runtime`, `kv`, `sampling`, `text` |
//! | `capi` | the `extern "C"` surface; converts, holds no logic | everything; imported by nobody |
//! | `faults` | tests of the whole path over a GPU that fails as they ask | `engine`, `backend`, `runtime`, `builder`, `sampling`, `executor` |
//!
//! `tests/layering.rs` holds this table.
//!
//! # Invariants
//!
//! - On one instruction set of a CPU, and in an invariant engine on a GPU, a request's tokens and logits do not depend on the
//!   batch, chunking, preemption, prefix hits or thread count: every output element is reduced in one fixed order, whatever
//!   surrounds it.
//! - Passes see the graph alone, never a model's name; backends see plan steps, never a graph.
//! - Whatever comes from a file or a caller is checked before memory is sized by it; a fault is an [`Error`] that names
//!   the culprit. The library never aborts, exits, prints or touches signals.
//! - Every accepted request ends in exactly one last response. A request that fails fails alone.
//! - A step may be launched before the tokens of the one before are known; steps take effect in the order of their launches,
//!   so that what a sequence gives up can go to a later step.
//! - The scheduler and the block manager are pure functions over plain state: no device, no clock, no thread.

pub mod backend;
#[cfg(feature = "compiler")]
pub mod builder;
pub mod capi;
#[cfg(feature = "compiler")]
pub mod checkpoint;
pub mod engine;
pub mod error;
pub mod executor;
#[cfg(all(test, feature = "compiler"))]
mod faults;
pub mod kv;
#[cfg(feature = "compiler")]
pub mod models;
#[cfg(feature = "compiler")]
pub mod network;
#[cfg(feature = "compiler")]
pub mod passes;
pub mod runtime;
pub mod sampling;
pub mod text;
pub mod types;

pub use error::{Error, Result, Status};
