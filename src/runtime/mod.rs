//! One forward step: a packed batch through a plan on a device.

mod check;
mod device;
mod forward;
mod memory;
mod session;

pub use crate::backend::{Batch, BatchRow};
pub use device::{DeviceOptions, OpenDevice, open_device};
pub use forward::Forward;
pub use memory::MemoryPlan;
pub use session::Session;
