//! What runs plan steps: a [`Device`] allocates memory and prepares a [`Kernel`] for each step; launching all kernels
//! in order is one forward pass. Backends see plan steps and addresses, never models.

mod batch;
pub mod cpu;
pub mod cuda;

pub use batch::{Adjustment, Batch, BatchRow, Change, Feed, SampleRow};

use std::time::Duration;

use crate::engine::{Limits, Plan};
use crate::error::Result;

/// A piece of device memory. The address has meaning to its device alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    pub address: usize,
    pub bytes: usize,
}

/// Owned device memory, zero-initialised; freed on drop.
pub trait Buffer: Send + Sync {
    fn region(&self) -> Region;
}

/// Where everything a plan needs lies on the device; fixed for the life of a session.
#[derive(Debug, Clone, Default)]
pub struct Bindings {
    /// By weight index.
    pub weights: Vec<Region>,
    /// By slot index.
    pub slots: Vec<Region>,
    /// By KV group: the pool of all its layers and blocks.
    pub kv: Vec<Region>,
    /// Blocks in each group's pool.
    pub kv_blocks: usize,
}

/// How long a device had to do with one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepTime {
    /// From its first work to the end of its last, with what lies in between: on a GPU also copies, and waits for launches
    /// where the host is slower than the kernels.
    pub device: Duration,
    /// From the end of the step before to its first work; zero for the first step.
    pub idle: Duration,
}

/// A step made ready for its shapes and addresses.
pub trait Kernel: Send {
    /// Runs the step for one batch. The caller has checked the batch against the session's limits.
    ///
    /// # Safety
    /// The regions given to [`Device::prepare`] are alive, and no other launch that touches them runs meanwhile.
    unsafe fn launch(&mut self, batch: &Batch) -> Result<()>;
}

/// One processor with its memory.
pub trait Device: Send {
    /// The device's name as shown to people, e.g. `cpu (avx512)`.
    fn name(&self) -> String;
    /// Zeroed memory; `what` names it in an error.
    fn allocate(&self, bytes: usize, what: &str) -> Result<Box<dyn Buffer>>;
    /// Makes host bytes addressable by the device: in place where it reads host memory, else by a copy.
    ///
    /// # Safety
    /// `bytes` outlive the returned buffer.
    unsafe fn bind(&self, bytes: &[u8], what: &str) -> Result<Box<dyn Buffer>>;
    /// The first `count` f32 of a region as host memory: in place where the host can read it, else copied to `staging`.
    ///
    /// # Safety
    /// The region is alive and holds `count` initialised f32; nothing writes it while the result is borrowed.
    unsafe fn read<'a>(&self, region: Region, count: usize, staging: &'a mut Vec<f32>) -> Result<&'a [f32]>;
    /// Bytes that the device and [`Device::prepare`] allocate for all steps of a plan beyond the bindings. Steps run one
    /// after another, so the kernels of a device share one scratch.
    fn scratch_bytes(&self, plan: &Plan, limits: &Limits) -> usize;
    /// Prepares step `step` of a validated plan.
    fn prepare(&self, plan: &Plan, step: usize, bindings: &Bindings, limits: &Limits) -> Result<Box<dyn Kernel>>;
}
