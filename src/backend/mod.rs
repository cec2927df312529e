//! What runs plan steps: a [`Device`] allocates memory and prepares a [`Kernel`] for each step; launching all kernels
//! in order is one forward pass. Backends see plan steps and addresses, never models.

pub mod cpu;
pub mod cuda;

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

/// One request's part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRow {
    /// First token of the row in [`Batch::tokens`].
    pub start: usize,
    /// Tokens of the row in this step, at least 1.
    pub len: usize,
    /// Tokens of the request already in the cache; the row's first token has this position.
    pub context: usize,
}

/// A packed step: rows of any length >= 1 side by side.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub tokens: Vec<u32>,
    /// Position of each token in its request.
    pub positions: Vec<u32>,
    pub rows: Vec<BatchRow>,
    /// Block ids; the table of row `r` in group `g` is `tables[table_starts[r*groups+g]..table_starts[r*groups+g+1]]`
    /// and covers at least `context + len` tokens (entries that left a window may be any id).
    pub tables: Vec<u32>,
    /// `rows.len() * groups + 1` offsets into `tables`.
    pub table_starts: Vec<usize>,
    /// Indices into `tokens` whose logits are wanted, ascending.
    pub logit_rows: Vec<u32>,
}

impl Batch {
    /// The block table of `row` in `group` of `groups`.
    #[must_use]
    pub fn table(&self, row: usize, group: usize, groups: usize) -> &[u32] {
        let at = row * groups + group;
        &self.tables[self.table_starts[at]..self.table_starts[at + 1]]
    }
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
