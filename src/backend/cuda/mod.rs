//! The CUDA backend, through the driver API alone; every library is opened at run time.
//!
//! A plan becomes works (`work`), works become calls (`choose` and one file per kind of kernel), calls become launches with
//! addresses (`bind`), and a program enqueues these for each step, as a graph where the step's shape allows one.
//!
//! Which kernel computes a linear layer for so many rows is a tactic: by rule (`linear`), or what the `tuner` measured when the
//! engine was built and left in it as advice (`tactics`).

mod attention;
mod bind;
mod blueprint;
mod cache;
mod call;
mod check;
mod choose;
mod cubins;
mod cublas;
mod device;
mod driver;
mod event;
#[cfg(test)]
pub mod fake;
mod flight;
mod kernel;
mod library;
mod linear;
mod matmul;
mod memory;
mod nvrtc;
mod program;
mod real;
mod rowwise;
mod sample;
mod sources;
mod step;
mod stored;
mod tactics;
mod target;
mod timeline;
mod tuner;
mod work;
mod workspace;

pub use blueprint::{GRAPH_NODE_BYTES, MODULE_BYTES};
pub use cache::{CubinCache, cache_folder};
pub use check::plan as check_plan;
pub use choose::Selector;
pub use cubins::{Compiler, CubinKey, CubinStore, RuntimeCompiler, StoredPolicy};
pub use device::{CudaDevice, CudaProgram};
pub use driver::{
    Address, Arch, Argument, DeviceInfo, Driver, Event, Function, Graph, Launch, MapElement, MapSpec, Matmul, Module,
    TensorMap,
};
pub use kernel::KernelSpec;
pub use matmul::{MatmulOperands, MatmulSpec};
pub use nvrtc::version as nvrtc_version;
pub use real::RealDriver;
pub use sample::SampleResult;
pub use stored::{StoredCubins, pack as pack_cubins, unpack as unpack_cubins};
pub use tactics::Tactics;
pub use target::CudaTarget;
pub use tuner::{Measurement, Timings, TuneSummary, Tuner};
