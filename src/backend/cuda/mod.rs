//! The CUDA backend, through the driver API alone; every library is opened at run time.

mod cache;
mod cubins;
mod driver;
#[cfg(test)]
pub mod fake;
mod kernel;
mod library;
pub mod nvrtc;
mod real;
pub mod sources;
mod stored;

pub use cache::{CubinCache, cache_folder};
pub use cubins::{Compiler, CubinKey, CubinStore, RuntimeCompiler, StoredPolicy};
pub use driver::{
    Address, Arch, Argument, DeviceInfo, Driver, Event, Function, Graph, Launch, MapElement, MapSpec, Module, TensorMap,
};
pub use kernel::KernelSpec;
pub use real::RealDriver;
pub use stored::{StoredCubins, pack, unpack};
