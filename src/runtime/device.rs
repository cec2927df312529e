//! Opens the device that a plan was built for, and loads models on it.

use std::sync::Arc;

use super::{Forward, MemoryPlan, SampleFault, Session, StepOutput};
use crate::backend::cpu::{CpuConfig, CpuDevice, Isa};
use crate::engine::Target;
use crate::error::{Error, Result};

/// Which device of its kind runs a model, and how.
#[derive(Debug, Clone, Default)]
pub struct DeviceOptions {
    /// CPU threads; 0 takes one per available core.
    pub threads: usize,
    /// Instruction set by name; `None`: the best there is.
    pub isa: Option<String>,
    /// Index of the GPU.
    pub index: usize,
}

/// An open device.
pub enum OpenDevice {
    Cpu(Box<dyn Device>),
    Cuda(CudaDevice),
}

impl OpenDevice {
    /// Opens a device of `target`.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown instruction set, `DeviceUnavailable` saying what this machine lacks.
    pub fn new(target: Target, options: &DeviceOptions) -> Result<Self> {
        Ok(match target {
            Target::Cpu => Self::Cpu(open_device(options.threads, options.isa.as_deref())?),
            Target::Cuda => Self::Cuda(CudaDevice::open(options.index)?),
        })
    }

    /// Bytes of everything but the KV blocks.
    ///
    /// # Errors
    /// `RequestTooLarge` when a size does not fit the address space.
    pub fn fixed_bytes(&self, plan: &Plan, limits: &Limits) -> Result<usize> {
        match self {
            Self::Cpu(device) => {
                let memory = MemoryPlan::new(plan, &Limits { kv_blocks: 0, ..*limits })?;
                Ok(memory.total().saturating_add(device.scratch_bytes(plan, limits)))
            }
            Self::Cuda(device) => device.fixed_bytes(plan, limits),
        }
    }

    /// Loads an engine for steps within `limits`.
    ///
    /// # Errors
    /// `OutOfMemory` naming what was to be allocated; whatever the device says of the plan.
    pub fn load(self, engine: Arc<Engine>, limits: Limits) -> Result<Box<dyn Forward>> {
        Ok(match self {
            Self::Cpu(device) => Box::new(Session::new(engine, device, limits)?),
            Self::Cuda(device) => {
                let program = device.load(&engine, limits)?;
                Box::new(CudaModel { program, sampled: Vec::with_capacity(limits.logit_rows), engine })
            }
        })
    }
}

/// Opens the CPU. `threads` 0 takes one per available core; `isa` by name, `None` the best there is.
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
