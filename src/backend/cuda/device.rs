//! A CUDA device, and a plan loaded on it.

use std::sync::Arc;

use super::attention::{tile_tokens, tiles_only};
use super::cache::CubinCache;
use super::call::Shared;
use super::choose::Selector;
use super::cubins::{CubinStore, StoredPolicy};
use super::cublas;
use super::driver::{Driver, Graph};
use super::flight::Flight;
use super::program::{Resident, Sizes};
use super::real::RealDriver;
use super::sample::{self, MOST_ADJUSTMENTS, SampleResult, is_filtered};
use super::step::{Counts, Layout};
use super::stored::unpack;
use super::tactics::Tactics;
use super::target::CudaTarget;
use crate::backend::Batch;
use crate::engine::{BLOCK_TOKENS, Engine, Limits, Plan};
use crate::error::{Error, Result};

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

    fn target(&self, plan: &Plan, tactics: &Tactics) -> CudaTarget {
        // Opening the library costs time and memory: only where it is wanted.
        let products = tactics.have_products(self.driver.info().arch) && cublas::version().is_ok();
        CudaTarget { products, ..CudaTarget::of(self.driver.info(), plan.invariant) }
    }

    /// Device bytes beside the KV blocks.
    ///
    /// # Errors
    /// `RequestTooLarge` when a size does not fit the address space; `Corrupt` for what the engine holds.
    pub fn fixed_bytes(&self, engine: &Engine, limits: &Limits) -> Result<usize> {
        let (plan, limits) = (engine.plan(), Limits { kv_blocks: 0, ..*limits });
        let tactics = tactics_of(engine)?;
        let target = self.target(plan, &tactics);
        let classes = Selector { plan, target: &target, tactics: &tactics }.classes(&limits);
        let sizes = Sizes::new(plan, &limits, &classes)?;
        let sampling = sample::memory(plan.model.vocab_size, limits.logit_rows, limits.rows);
        let sampling: usize = sampling.iter().map(|(_, bytes)| bytes).sum();
        let scratch = sizes.workspace + sizes.partial + sizes.counters + sampling;
        Ok(sizes.weights + scratch + (1 + DEPTH) * layout(plan, &limits).bytes)
    }

    /// Loads an engine for steps within `limits`.
    ///
    /// # Errors
    /// See [`Resident::new`].
    pub fn load(&self, engine: &Engine, limits: Limits) -> Result<CudaProgram> {
        let plan = engine.plan();
        let tactics = tactics_of(engine)?;
        let target = self.target(plan, &tactics);
        let classes = Selector { plan, target: &target, tactics: &tactics }.classes(&limits);
        let stored = engine.kernels().map(unpack).transpose()?.unwrap_or_default();
        let cubins = CubinStore::new(stored, StoredPolicy::Use, CubinCache::of_user());
        let sampling = sample::memory(plan.model.vocab_size, limits.logit_rows, limits.rows);
        let layout = layout(plan, &limits);
        let resident = Resident::new(&self.driver, engine, &limits, &classes, layout, &sampling, &cubins)?;
        CudaProgram::new(Arc::clone(&self.driver), plan, limits, resident)
    }
}

fn tactics_of(engine: &Engine) -> Result<Tactics> {
    engine.tactics().map_or_else(|| Ok(Tactics::default()), Tactics::from_json)
}

fn layout(plan: &Plan, limits: &Limits) -> Layout {
    let blocks = plan.model.max_positions.div_ceil(BLOCK_TOKENS);
    // Rows that share a prefix have tables that are together longer than the pool.
    let entries = plan.kv_groups.len() * limits.rows * blocks;
    Layout::new(*limits, plan.kv_groups.len(), tile_tokens(plan), entries)
}

/// Steps that may be under way.
const DEPTH: usize = 2;

/// A plan on a device, ready for steps.
pub struct CudaProgram {
    driver: Arc<dyn Driver>,
    /// Decode graphs by rows.
    graphs: Vec<(usize, Graph)>,
    flights: [Flight; DEPTH],
    /// The flight of the next launch, and how many are under way.
    next: usize,
    under_way: usize,
    resident: Resident,
    limits: Limits,
    vocab: usize,
    tiles_only: bool,
}

impl CudaProgram {
    fn new(driver: Arc<dyn Driver>, plan: &Plan, limits: Limits, resident: Resident) -> Result<Self> {
        let flight = || Flight::new(&driver, resident.layout.bytes, limits.logit_rows);
        let flights = [flight()?, flight()?];
        let mut program = Self {
            driver,
            graphs: Vec::new(),
            flights,
            next: 0,
            under_way: 0,
            resident,
            limits,
            vocab: plan.model.vocab_size,
            tiles_only: tiles_only(plan),
        };
        program.capture()?;
        Ok(program)
    }

    /// Device and page-locked bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        (self.resident.bytes + self.flights.iter().map(Flight::bytes).sum::<usize>()) as u64
    }

    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Steps that may be launched and not collected.
    #[must_use]
    pub fn depth(&self) -> usize {
        DEPTH
    }

    /// Most adjustments of one step.
    #[must_use]
    pub fn adjustments(&self) -> usize {
        MOST_ADJUSTMENTS
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

    /// Enqueues one step that was checked against the limits.
    ///
    /// # Errors
    /// `Internal` when [`Self::depth`] steps are under way; `DeviceLost`.
    pub fn launch(&mut self, batch: &Batch) -> Result<()> {
        if self.under_way == DEPTH {
            return Err(Error::internal("launch", "too many steps are under way"));
        }
        let graph = self.graph(batch);
        let padded = graph.map_or(0, |(rows, _)| rows);
        let driver = Arc::clone(&self.driver);
        let flight = &mut self.flights[self.next];
        // SAFETY: the flight's last step was collected, so that nobody reads its input; the batch was checked.
        let counts = unsafe { self.resident.layout.fill(flight.input.pointer, batch, padded, self.tiles_only) };
        // SAFETY: the pinned block stays as it is until the flight is collected.
        unsafe { driver.upload(self.resident.input.address, flight.input.pointer, counts.bytes)? };
        let results = self.resident.shared[&Shared::Results];
        let class = self.resident.class(counts.tokens as usize);
        // SAFETY: counts within the limits, input on its way, results and logits written by these launches.
        unsafe {
            match graph {
                Some((_, graph)) => driver.launch_graph(graph)?,
                None => class.launch(&*driver, &counts)?,
            }
            if is_filtered(batch, self.vocab) {
                class.filter(&*driver, &counts)?;
            }
            flight.fetch(batch, results, class.logits, self.vocab)?;
        }
        self.next = (self.next + 1) % DEPTH;
        self.under_way += 1;
        Ok(())
    }

    /// Waits for the oldest step: the results of its sample rows, and the logits of its host rows.
    ///
    /// # Errors
    /// `Internal` when none is under way; `DeviceLost`.
    pub fn collect(&mut self) -> Result<(impl Iterator<Item = SampleResult> + '_, &[f32])> {
        if self.under_way == 0 {
            return Err(Error::internal("collect", "no step is under way"));
        }
        let oldest = (self.next + DEPTH - self.under_way) % DEPTH;
        self.under_way -= 1;
        let flight = &self.flights[oldest];
        flight.wait()?;
        Ok((flight.results(), &flight.logits))
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
