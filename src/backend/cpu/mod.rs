//! The CPU backend: every operation, for the instruction sets of [`Isa`], on a thread pool of its own.
//!
//! The invariant of this room: an output element has the same bits whatever else is in the batch, however a prompt is cut
//! into chunks, and however many threads there are. Products accumulate over k in order, rows are reduced in one order,
//! a query goes over its keys by absolute position.

mod attend;
mod attention;
mod cache;
mod compiled;
mod expand;
mod finish;
mod isa;
mod lookup;
mod math;
mod matmul;
mod memory;
mod operands;
mod pack;
mod panels;
mod pass;
mod pool;
mod quantize;
mod rows;
mod rowwise;
mod team;
mod tile;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use isa::Isa;

use crate::backend::{Batch, Bindings, Buffer, Device, Kernel, Region};
use crate::engine::{Limits, Plan, Step, Target};
use crate::error::{Error, Result};
use crate::types::Op;
use attention::{Attention, CacheAppend};
use lookup::{Angles, Embed, Gather, Index};
use matmul::MatMul;
use memory::{BorrowedMemory, OwnedMemory};
use operands::Operands;
use rowwise::{Elementwise, Function, Normalize, Rotate};
use team::{Need, Team};

/// How to open a CPU.
#[derive(Debug, Clone, Copy)]
pub struct CpuConfig {
    /// Threads that compute, the caller of a step included; at least 1.
    pub threads: usize,
    /// Instruction set; `None` takes the fastest of the machine.
    pub isa: Option<Isa>,
}

/// The processor this program runs on.
pub struct CpuDevice {
    isa: Isa,
    team: Arc<Team>,
}

impl CpuDevice {
    /// Opens the device and starts its threads; they end when the device and its kernels are dropped.
    ///
    /// # Errors
    /// `InvalidArgument` for 0 threads, `DeviceUnavailable` naming an instruction set that the machine lacks,
    /// `ThreadFailed`.
    pub fn new(config: CpuConfig) -> Result<Self> {
        if config.threads == 0 {
            return Err(Error::argument("threads", "it is 0"));
        }
        let isa = config.isa.unwrap_or_else(Isa::detect);
        let compiled = isa.compiled().ok_or_else(|| Error::DeviceUnavailable {
            what: format!("cpu ({isa})"),
            why: format!(
                "this processor has {}",
                Isa::available().iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ")
            ),
        })?;
        Ok(CpuDevice { isa, team: Arc::new(Team::new(config.threads, compiled)?) })
    }

    /// The instruction set in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    fn plan_need(&self, plan: &Plan, limits: &Limits) -> Need {
        plan.steps.iter().map(|step| self.step_need(plan, step, limits)).fold(Need::default(), Need::max)
    }

    fn step_need(&self, plan: &Plan, step: &Step, limits: &Limits) -> Need {
        let factors = match step.op {
            Op::Linear { .. } => 1,
            Op::GatedLinear { .. } => 2,
            Op::Attention(spec) | Op::FusedAttention { attention: spec, .. } => return attention::need(&spec),
            _ => return Need::default(),
        };
        let weight = step.weights.first().and_then(|index| plan.weights.get(*index));
        let (Some(weight), Some(input)) = (weight, step.inputs.first()) else { return Need::default() };
        let rows = limits.tokens.max(limits.logit_rows);
        pass::need(self.team.compiled.products(weight.dtype, plan.precision), rows, input.columns, factors)
    }
}

impl Device for CpuDevice {
    fn name(&self) -> String {
        format!("cpu ({})", self.isa)
    }

    fn allocate(&self, bytes: usize, what: &str) -> Result<Box<dyn Buffer>> {
        Ok(Box::new(OwnedMemory::zeroed(bytes, what)?))
    }

    unsafe fn bind(&self, bytes: &[u8], _what: &str) -> Result<Box<dyn Buffer>> {
        Ok(Box::new(BorrowedMemory(Region { address: bytes.as_ptr() as usize, bytes: bytes.len() })))
    }

    unsafe fn read<'a>(&self, region: Region, count: usize, _staging: &'a mut Vec<f32>) -> Result<&'a [f32]> {
        let fits = count.checked_mul(size_of::<f32>()).is_some_and(|bytes| bytes <= region.bytes);
        if !fits || !region.address.is_multiple_of(align_of::<f32>()) || region.address == 0 {
            return Err(Error::internal("read", format!("{region:?} does not hold {count} f32")));
        }
        // SAFETY: checked above to lie in the region, which the caller keeps alive and unwritten.
        Ok(unsafe { std::slice::from_raw_parts(region.address as *const f32, count) })
    }

    fn scratch_bytes(&self, plan: &Plan, limits: &Limits) -> usize {
        self.plan_need(plan, limits).bytes(self.team.pool.lanes())
    }

    fn prepare(&self, plan: &Plan, step: usize, bindings: &Bindings, limits: &Limits) -> Result<Box<dyn Kernel>> {
        if plan.target != Target::Cpu {
            let why = format!("it was built for {} and this device is {}", plan.target, self.name());
            return Err(Error::Unsupported { what: "the engine".into(), why });
        }
        let operands = Operands::new(plan, step, bindings, limits)?;
        self.team.reserve(self.plan_need(plan, limits))?;
        let kernel = kernel(Arc::clone(&self.team), &operands)?;
        Ok(Box::new(Bounded { kernel, limits: *limits }))
    }
}

fn kernel(team: Arc<Team>, operands: &Operands<'_>) -> Result<Box<dyn Kernel>> {
    let elementwise = |team, function| Ok(Box::new(Elementwise::new(team, operands, function)?) as Box<dyn Kernel>);
    Ok(match operands.step.op {
        Op::Embedding { scale } => Box::new(Embed::new(team, operands, Index::Tokens, scale)?),
        Op::PositionEmbedding => Box::new(Embed::new(team, operands, Index::Positions, 1.0)?),
        Op::RopeAngles { scale } => Box::new(Angles::new(team, operands, scale)?),
        Op::Linear { bias, activation } => Box::new(MatMul::linear(team, operands, bias, activation)?),
        Op::GatedLinear { bias, activation } => Box::new(MatMul::gated(team, operands, bias, activation)?),
        Op::RmsNorm { eps } => Box::new(Normalize::new(team, operands, eps, false, false)?),
        Op::LayerNorm { eps } => Box::new(Normalize::new(team, operands, eps, true, false)?),
        Op::AddRmsNorm { eps } => Box::new(Normalize::new(team, operands, eps, false, true)?),
        Op::AddLayerNorm { eps } => Box::new(Normalize::new(team, operands, eps, true, true)?),
        Op::Add => return elementwise(team, Function::Add),
        Op::Mul => return elementwise(team, Function::Mul),
        Op::Activate { activation } => return elementwise(team, Function::Activate(activation)),
        Op::SoftCap { cap } => return elementwise(team, Function::SoftCap(cap)),
        Op::Rope(spec) => Box::new(Rotate::new(team, operands, spec)?),
        Op::Slice { .. } => return Err(operands.unsupported("the builder lowers it to a view")),
        Op::CacheAppend(spec) => Box::new(CacheAppend::new(team, operands, &spec)?),
        Op::Attention(spec) => Box::new(Attention::plain(team, operands, &spec)?),
        Op::FusedAttention { attention, rope } => Box::new(Attention::fused(team, operands, &attention, rope)?),
        Op::GatherRows => Box::new(Gather::new(team, operands)?),
    })
}

/// A kernel that no batch beyond its limits reaches: what it was prepared for bounds every address it computes.
struct Bounded {
    kernel: Box<dyn Kernel>,
    limits: Limits,
}

impl Kernel for Bounded {
    unsafe fn launch(&mut self, batch: &Batch) -> Result<()> {
        let Limits { tokens, logit_rows, rows, .. } = self.limits;
        if batch.tokens.len() > tokens || batch.logit_rows.len() > logit_rows || batch.rows.len() > rows {
            return Err(Error::internal("batch", format!("it is larger than {:?}", self.limits)));
        }
        // SAFETY: the caller's.
        unsafe { self.kernel.launch(batch) }
    }
}
