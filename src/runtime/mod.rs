//! One forward step: a packed batch through a plan on a device.

mod check;
mod device;
mod forward;
mod memory;
mod session;

pub use crate::backend::{Adjustment, Batch, BatchRow, Change, Feed, SampleRow, StepTime};
pub use device::{DeviceOptions, OpenDevice, open_device};
pub use forward::{Forward, SampleFault, StepOutput};
pub use memory::MemoryPlan;
pub use session::Session;
