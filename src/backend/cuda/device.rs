//! A CUDA device, and a plan loaded on it.

use std::sync::Arc;

use super::attention::{tile_tokens, tiles_only};
use super::call::Shared;
use super::choose::classes;
use super::cubins::CubinStore;
use super::driver::{Driver, Event, Graph};
use super::memory::PinnedMemory;
use super::program::{Resident, Sizes};
use super::real::RealDriver;
use super::step::{Counts, Layout, SampleSizes};
use super::target::CudaTarget;
use crate::backend::Batch;
use crate::engine::{BLOCK_TOKENS, Engine, Limits, Plan};
use crate::error::Result;

/// One GPU.
pub struct CudaDevice {
    driver: Arc<dyn Driver>,
}

impl CudaDevice {
    /// Opens device `index`.
    ///
    /// # Errors
    /// `DeviceUnavailable` saying what is missing.
    pub fn open(index: usize) -> Result<Self> {
        Ok(Self { driver: RealDriver::open(index)? })
    }

    /// A device behind any driver.
    #[must_use]
    pub fn with_driver(driver: Arc<dyn Driver>) -> Self {
        Self { driver }
    }

    /// As shown to people.
    #[must_use]
    pub fn name(&self) -> String {
        let info = self.driver.info();
        format!("cuda ({}, {})", info.name, info.arch)
    }

    fn target(&self, plan: &Plan) -> CudaTarget {
        CudaTarget::of(self.driver.info(), plan.invariant)
    }

    /// Device bytes beside the KV blocks.
    ///
    /// # Errors
    /// `RequestTooLarge` when a size does not fit the address space.
    pub fn fixed_bytes(&self, plan: &Plan, limits: &Limits) -> Result<usize> {
        let limits = Limits { kv_blocks: 0, ..*limits };
        let sizes = Sizes::new(plan, &limits, &classes(plan, &limits, &self.target(plan)))?;
        let caches: usize = sizes.layer_bytes.iter().zip(&plan.kv_groups).map(|(b, g)| b * g.layers.len()).sum();
        Ok(sizes.weights + sizes.workspace + sizes.partial + sizes.counters + caches + layout(plan, &limits).bytes)
    }

    /// Device memory that is free.
    ///
    /// # Errors
    /// `DeviceLost`.
    pub fn free_bytes(&self) -> Result<usize> {
        self.driver.free_bytes()
    }

    /// Loads an engine for steps within `limits`.
    ///
    /// # Errors
    /// See [`Resident::new`].
    pub fn load(&self, engine: &Engine, limits: Limits) -> Result<CudaProgram> {
        let plan = engine.plan();
        let target = self.target(plan);
        let classes = classes(plan, &limits, &target);
        let cubins = CubinStore::new(engine.kernels().unwrap_or_default())?;
        let resident = Resident::new(&self.driver, engine, &limits, &classes, layout(plan, &limits), &[(Shared::Sampled, 4 * limits.rows)], &cubins)?;
        CudaProgram::new(Arc::clone(&self.driver), plan, limits, resident)
    }
}

fn layout(plan: &Plan, limits: &Limits) -> Layout {
    let blocks = plan.model.max_positions.div_ceil(BLOCK_TOKENS);
    // Rows share blocks only by prefix, so that their tables together can be longer than the pool.
    let entries = plan.kv_groups.len() * limits.rows * blocks.min(limits.kv_blocks.max(1));
    let samples = SampleSizes { row: 0, adjustment: 0, adjustments: 0 };
    Layout::new(*limits, plan.kv_groups.len(), tile_tokens(plan), entries, samples)
}

/// A plan on a device, ready for steps.
pub struct CudaProgram {
    driver: Arc<dyn Driver>,
    resident: Resident,
    /// Decode graphs by rows.
    graphs: Vec<(usize, Graph)>,
    input: PinnedMemory,
    logits: PinnedMemory,
    done: Event,
    limits: Limits,
    vocab: usize,
    tiles_only: bool,
}

impl CudaProgram {
    fn new(
        driver: Arc<dyn Driver>,
        plan: &Plan,
        limits: Limits,
        resident: Resident,
    ) -> Result<Self> {
        let input = PinnedMemory::new(&driver, resident.layout.bytes, "step input")?;
        let logits = PinnedMemory::new(&driver, limits.logit_rows * plan.model.vocab_size * 4, "logits")?;
        let done = driver.event(false)?;
        let vocab = plan.model.vocab_size;
        let tiles_only = tiles_only(plan);
        let mut program = Self { driver, resident, graphs: Vec::new(), input, logits, done, limits, vocab, tiles_only };
        program.capture()?;
        Ok(program)
    }

    /// Device and page-locked bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        (self.resident.bytes + self.input.bytes + self.logits.bytes) as u64
    }

    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// One graph for each bucket of decode rows, whose launches do not depend on how long the contexts are.
    fn capture(&mut self) -> Result<()> {
        if self.tiles_only {
            return Ok(());
        }
        for rows in buckets(self.limits.rows.min(self.limits.tokens).min(self.limits.logit_rows)) {
            let n = rows as u32;
            let counts = Counts { tokens: n, logit_rows: n, decode_rows: n, tiles: 0, bytes: 0 };
            self.driver.begin_capture()?;
            // SAFETY: the launches are only recorded; the class was bound for these limits.
            let launched = unsafe { self.resident.class(rows).launch(&*self.driver, &counts) };
            let graph = self.driver.end_capture();
            launched?;
            self.graphs.push((rows, graph?));
        }
        Ok(())
    }

    /// Runs one step and returns the logits of its logit rows.
    ///
    /// # Errors
    /// `DeviceLost`.
    pub fn forward(&mut self, batch: &Batch) -> Result<&[f32]> {
        if batch.tokens.is_empty() {
            return Ok(&[]);
        }
        let graph = self.graph(batch);
        let padded = graph.map_or(0, |(rows, _)| rows);
        // SAFETY: the block is as large as the layout says and the last step has passed it; the batch was checked.
        let counts = unsafe { self.resident.layout.fill(self.input.pointer, batch, padded, self.tiles_only) };
        // SAFETY: the pinned block stays as it is until the event below has passed.
        unsafe { self.driver.upload(self.resident.input.address, self.input.pointer, counts.bytes)? };
        let driver = Arc::clone(&self.driver);
        let class = self.resident.class(counts.tokens as usize);
        // SAFETY: counts within the limits, input on its way.
        unsafe {
            match graph {
                Some((_, graph)) => driver.launch_graph(graph)?,
                None => class.launch(&*driver, &counts)?,
            }
        }
        let count = batch.logit_rows.len() * self.vocab;
        if count > 0 {
            // SAFETY: the last launch writes so many logits; the pinned block holds the limits' rows.
            unsafe { driver.download(self.logits.pointer, class.logits, count * 4)? };
        }
        driver.record(self.done)?;
        driver.wait(self.done)?;
        // SAFETY: the event has passed, so that the copy is there.
        Ok(unsafe { std::slice::from_raw_parts(self.logits.pointer.cast(), count) })
    }

    /// The graph for a step of decode rows whose logits are all wanted, in order.
    fn graph(&self, batch: &Batch) -> Option<(usize, Graph)> {
        let rows = batch.rows.len();
        let decode = batch.rows.iter().all(|row| row.len == 1) && batch.logit_rows.len() == rows;
        if !decode {
            return None;
        }
        self.graphs.iter().copied().find(|(most, _)| rows <= *most)
    }
}

impl Drop for CudaProgram {
    fn drop(&mut self) {
        let _ = self.driver.synchronize();
        self.graphs.iter().for_each(|(_, graph)| self.driver.release_graph(*graph));
        self.driver.release_event(self.done);
    }
}

/// Row counts of decode graphs: dense where a step is short, and at most an eighth of padding further up.
fn buckets(most: usize) -> Vec<usize> {
    let mut buckets = Vec::new();
    let mut rows: usize = 1;
    while rows < most {
        buckets.push(rows);
        rows += (rows.next_power_of_two() / 8).max(1);
    }
    buckets.push(most);
    buckets
}
