//! Model families: configuration and tensor names to a graph of basic operations.
//!
//! To add a family:
//! 1. `checkpoint/config/FAMILY.rs` reads its configuration into [`ModelConfig`](crate::checkpoint::ModelConfig); list it
//!    in `checkpoint/config.rs`. `checkpoint/config/gated.rs` reads the field names that many families use and `rope.rs` beside
//!    it the forms of rotary parameters. What a model of the family may have and this library has not is refused there by name.
//! 2. `models/FAMILY.rs` has one function `build(config, tensors) -> Graph`. A decoder with RMS norms, rotary positions and a
//!    gated feed-forward layer is a [`Design`](gated::Design): the file says where it differs from the plain one (which norms
//!    there are, what their gains are stored as, where projections lie, how embeddings are scaled); windows, caps, rope and scales come from
//!    the configuration. Any other decoder asks [`Tensors`] for every weight with the shape it must have and is made
//!    of the parts in `block.rs`, as `gpt2.rs` shows: basic operations alone, because fusing them is the passes' work, which
//!    recognise them by their shape in the graph.
//! 3. What a checkpoint stores in another form (joint, transposed, less 1) is a [`Recipe`](crate::network::Recipe) of the
//!    weight that the graph needs; no operation and no backend knows of it.
//! 4. List the function in `registry.rs`, its configuration in the lists of `registry/tests.rs`, and a small configuration in
//!    `tests/networks.rs` for its printed graph.
//! 5. List a checkpoint in `tests/golden/fixtures.py` with the parts that its logits must notice, run `make.py NAME`
//!    there, and list its folder in `tests/golden.rs`, `tests/cuda/golden.rs` and the README there.
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
