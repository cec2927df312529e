//! The CUDA backend, through the driver API alone; every library is opened at run time.

mod driver;
mod fault;
mod kernel;
mod launch;
mod library;
pub mod nvrtc;
mod probe;
mod real;
pub mod sources;

pub use driver::{
    Address, Arch, Argument, DeviceInfo, Driver, Event, Function, Graph, Launch, MapElement, MapSpec, Module, TensorMap,
};
pub use kernel::KernelSpec;
pub use real::RealDriver;
