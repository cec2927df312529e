//! Model families: configuration and tensor names to a graph of basic operations.
//!
//! To add a family:
//! 1. `checkpoint/config/FAMILY.rs` reads its configuration into [`ModelConfig`](crate::checkpoint::ModelConfig);
//!    list it in `checkpoint/config.rs`. Field names that many families use are read in `checkpoint/config/gated.rs`.
//! 2. `models/FAMILY.rs` has one function `build(config, tensors) -> Graph`. It asks [`Tensors`] for every weight with
//!    the shape it must have, and uses basic operations only: fusing them is the passes' work, which recognise them
//!    by their shape in the graph. `block.rs` has the parts of every decoder and makes a cache group of the layers with
//!    one window; `gated.rs` is the whole decoder of families that differ from Llama in biases and windows alone.
//!    Rotary frequencies come from `rope.rs`.
//! 3. List the function in `registry.rs`, and a small configuration in `tests/networks.rs` for its printed graph.
//! 4. List a checkpoint in `tests/golden/fixtures.py` with the parts that its logits must notice, run `make.py` there,
//!    and list its folder in `tests/golden.rs`.
//!
//! Values are named `layers.N.ROLE` (`layers.0.q`); a node has the name of its result.

mod block;
mod gated;
mod gemma2;
mod gemma3;
mod gpt2;
mod llama;
mod mistral;
mod phi3;
mod projections;
mod qwen2;
mod qwen3;
mod registry;
mod rope;
mod tensors;

pub use registry::{build, wanted_tensors};
pub use rope::{Frequencies, frequencies};
pub use tensors::TensorIndex;
use tensors::Tensors;
