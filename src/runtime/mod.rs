//! One forward step: a packed batch through a plan on a device.

mod forward;

pub use crate::backend::{Batch, BatchRow};
pub use forward::Forward;
