//! Opens the device that a plan was built for.

use crate::backend::Device;
use crate::backend::cpu::{CpuConfig, CpuDevice, Isa};
use crate::engine::Target;
use crate::error::{Error, Result};

/// Opens the device of `target`. `threads` 0 takes one per available core; `isa` by name, `None` the best there is.
///
/// # Errors
/// `InvalidArgument` for an unknown instruction set, `DeviceUnavailable` for one this processor lacks, or for CUDA.
pub fn open_device(target: Target, threads: usize, isa: Option<&str>) -> Result<Box<dyn Device>> {
    match target {
        Target::Cpu => {
            let threads = match threads {
                0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
                n => n,
            };
            let isa = isa.map(str::parse::<Isa>).transpose()?;
            Ok(Box::new(CpuDevice::new(CpuConfig { threads, isa })?))
        }
        Target::Cuda => Err(Error::DeviceUnavailable {
            what: "cuda".into(),
            why: "the engine was built for cuda, and this build of the library runs engines on the cpu".into(),
        }),
    }
}
