//! The vocabulary shared by all rooms: dtypes, the closed set of operations, KV groups, the device.

mod dtype;
pub mod e4m3;
mod op;

pub use dtype::DType;
pub use op::{Activation, AttentionSpec, Op, RopeSpec};
