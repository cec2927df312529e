//! The vocabulary shared by all rooms: dtypes, the closed set of operations, KV groups, the device.

mod dtype;
mod e4m3;
mod op;

pub use dtype::DType;
pub use e4m3::{E4M3_MAX, e4m3_from_f32, e4m3_to_f32};
pub use op::{Activation, AttentionSpec, Op, RopeSpec};
