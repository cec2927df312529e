//! Model families: configuration and tensor names to a graph of basic operations.
//!
//! To add a family:
//! 1. `checkpoint/config/FAMILY.rs` reads its configuration into [`ModelConfig`](crate::checkpoint::ModelConfig);
//!    list it in `checkpoint/config.rs`.
//! 2. `models/FAMILY.rs` has one function `build(config, tensors) -> Graph`. It asks [`Tensors`] for every weight with
//!    the shape it must have, and uses basic operations only: fusing them is the passes' work, which recognise them
//!    by their shape in the graph. Rotary frequencies come from `rope.rs`.
//! 3. List the function in `registry.rs`, and a small configuration in `tests/networks.rs` for its printed graph.
//!
//! Values are named `layers.N.ROLE` (`layers.0.q`); a node has the name of its result.

mod block;
mod gpt2;
mod llama;
mod registry;
mod rope;
mod tensors;

pub use registry::{build, wanted_tensors};
pub use rope::{Frequencies, frequencies};
pub use tensors::TensorIndex;
use tensors::Tensors;
