//! The vocabulary shared by all rooms: dtypes, the closed set of operations, KV groups, the device, memory that may be
//! refused.

pub mod bf16;
mod dtype;
pub mod e4m3;
pub mod f16;
pub mod heap;
mod op;

pub use dtype::DType;
pub use op::{Activation, AttentionSpec, Op, RopeSpec};
