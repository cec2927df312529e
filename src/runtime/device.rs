//! Opens the device that a plan was built for, and loads models on it.

use std::sync::Arc;

use super::{Forward, MemoryPlan, SampleFault, Session, StepOutput};
use crate::backend::cpu::{CpuConfig, CpuDevice, Isa};
use crate::backend::cuda::{CudaDevice, CudaProgram, StoredPolicy};
use crate::backend::{Batch, Device};
use crate::engine::{Engine, Limits, Target};
use crate::error::Result;
use crate::runtime::check::check_batch;
use crate::types::heap;

/// Which device of its kind runs a model, and how.
#[derive(Debug, Clone, Default)]
pub struct DeviceOptions {
    /// CPU threads; 0 takes one per available core.
    pub threads: usize,
    /// Instruction set by name; `None`: the best there is.
    pub isa: Option<String>,
    /// Index of the GPU.
    pub index: usize,
    /// On a GPU: machine code that came with an engine does not run; kernels are compiled here.
    pub refuse_stored_kernels: bool,
}

impl DeviceOptions {
    fn stored_policy(&self) -> StoredPolicy {
        if self.refuse_stored_kernels { StoredPolicy::Refuse } else { StoredPolicy::Use }
    }
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
            Target::Cuda => Self::Cuda(CudaDevice::open(options.index, options.stored_policy())?),
        })
    }

    /// Bytes of everything but the KV blocks.
    ///
    /// # Errors
    /// `RequestTooLarge` when a size does not fit the address space; `Corrupt` for what the engine holds for the device.
    pub fn fixed_bytes(&self, engine: &Engine, limits: &Limits) -> Result<usize> {
        match self {
            Self::Cpu(device) => {
                let plan = engine.plan();
                let memory = MemoryPlan::new(plan, &Limits { kv_blocks: 0, ..*limits })?;
                Ok(memory.total().saturating_add(device.scratch_bytes(plan, limits)))
            }
            Self::Cuda(device) => device.fixed_bytes(engine, limits),
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
                Box::new(CudaModel { program, sampled: heap::vector(limits.logit_rows, "sampled tokens")?, engine })
            }
        })
    }
}

/// Opens the CPU. `threads` 0 takes one per available core; `isa` by name, `None` the best there is.
///
/// # Errors
/// `InvalidArgument` for an unknown instruction set, `DeviceUnavailable` for one this processor lacks.
pub fn open_device(threads: usize, isa: Option<&str>) -> Result<Box<dyn Device>> {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        n => n,
    };
    let isa = isa.map(str::parse::<Isa>).transpose()?;
    Ok(Box::new(CpuDevice::new(CpuConfig { threads, isa })?))
}

/// A program on a GPU behind the checks that every batch passes.
struct CudaModel {
    program: CudaProgram,
    /// Of the step that was collected last.
    sampled: Vec<Result<u32, SampleFault>>,
    engine: Arc<Engine>,
}

impl Forward for CudaModel {
    fn limits(&self) -> Limits {
        self.program.limits()
    }

    fn vocab_size(&self) -> usize {
        self.engine.plan().model.vocab_size
    }

    fn memory_bytes(&self) -> u64 {
        self.program.memory_bytes()
    }

    fn depth(&self) -> usize {
        self.program.depth()
    }

    fn sampling(&self) -> Option<usize> {
        Some(self.program.adjustments())
    }

    fn launch(&mut self, batch: &Batch) -> Result<()> {
        check_batch(batch, self.engine.plan(), &self.program.limits(), self.sampling())?;
        self.program.launch(batch)
    }

    fn collect(&mut self) -> Result<StepOutput<'_>> {
        let (results, logits, time) = self.program.collect()?;
        self.sampled.clear();
        self.sampled.extend(results.map(|result| match result.status {
            0 => Ok(result.token),
            1 => Err(SampleFault::NotFinite),
            _ => Err(SampleFault::NothingLeft),
        }));
        Ok(StepOutput { sampled: &self.sampled, logits, time })
    }
}
