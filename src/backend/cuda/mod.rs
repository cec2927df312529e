//! The CUDA backend, through the driver API alone; every library is opened at run time.

mod driver;
mod kernel;

pub use driver::{
    Address, Arch, Argument, DeviceInfo, Driver, Event, Function, Graph, Launch, MapElement, MapSpec, Module, TensorMap,
};
pub use kernel::KernelSpec;
