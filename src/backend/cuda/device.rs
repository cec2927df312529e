//! A CUDA device, and a plan loaded on it.

use std::sync::Arc;

use super::attention::tiles_only;
use super::blueprint::{Blueprint, DEPTH, graph_bytes};
use super::cache::CubinCache;
use super::call::{Input, Shared};
use super::cubins::{Compiler, CubinStore, RuntimeCompiler, StoredPolicy};
use super::cublas;
use super::driver::{Driver, Graph};
use super::flight::Flight;
use super::matmul::MatmulSpec;
use super::program::Resident;
use super::real::RealDriver;
use super::sample::{MOST_ADJUSTMENTS, SampleResult, is_filtered};
use super::step::Counts;
use super::stored::unpack;
use super::tactics::Tactics;
use super::target::CudaTarget;
use super::timeline::Timeline;
use crate::backend::{Batch, StepTime};
use crate::engine::{Engine, Limits, Plan};
use crate::error::{Error, Result};

/// One GPU.
pub struct CudaDevice {
    driver: Arc<dyn Driver>,
    compiler: Arc<dyn Compiler>,
    cache: Option<CubinCache>,
    policy: StoredPolicy,
}

impl CudaDevice {
    /// Opens device `index`; `policy` says whether the machine code in engines may run.
    ///
    /// # Errors
    /// `DeviceUnavailable` saying what is missing.
    pub fn open(index: usize, policy: StoredPolicy) -> Result<Self> {
        Ok(Self::on(RealDriver::open(index)?, Arc::new(RuntimeCompiler), CubinCache::of_user(), policy))
    }

    /// The device of any driver; kernels that an engine lacks come from `cache` and `compiler`.
    #[must_use]
    pub fn on(
        driver: Arc<dyn Driver>,
        compiler: Arc<dyn Compiler>,
        cache: Option<CubinCache>,
        policy: StoredPolicy,
    ) -> Self {
        Self { driver, compiler, cache, policy }
    }

    /// Device and page-locked bytes beside the KV blocks: what is allocated, the driver's copies of kernels and graphs.
    ///
    /// # Errors
    /// `RequestTooLarge` when a size does not fit the address space; `Corrupt` for what the engine holds.
    pub fn fixed_bytes(&self, engine: &Engine, limits: &Limits) -> Result<usize> {
        let blueprint = self.blueprint(engine, Limits { kv_blocks: 0, ..*limits })?;
        Ok(blueprint.device_bytes()?.saturating_add(blueprint.pinned_bytes()))
    }

    /// Loads an engine for steps within `limits`.
    ///
    /// # Errors
    /// `OutOfMemory` with needed and free bytes, before anything is allocated; as [`CudaDevice::fixed_bytes`]; a kernel
    /// that can neither be loaded nor compiled; `DeviceLost`.
    pub fn load(&self, engine: &Engine, limits: Limits) -> Result<CudaProgram> {
        let blueprint = self.blueprint(engine, limits)?;
        let (needed, free) = (blueprint.device_bytes()?, self.driver.free_bytes()?);
        if needed > free {
            let name = &self.driver.info().name;
            let why = format!("{needed} bytes of device memory are needed, {free} bytes are free on {name}");
            return Err(Error::OutOfMemory { what: "engine".into(), why });
        }
        let resident = Resident::new(&self.driver, engine, &blueprint)?;
        CudaProgram::new(Arc::clone(&self.driver), engine.plan(), &blueprint, resident)
    }

    fn blueprint(&self, engine: &Engine, limits: Limits) -> Result<Blueprint> {
        let (plan, info) = (engine.plan(), self.driver.info());
        let tactics = engine.tactics().map(Tactics::from_json).transpose()?.unwrap_or_default();
        let target = CudaTarget::of(info, plan.invariant);
        // Opening the vendor's library costs time and memory: only where it is wanted.
        if tactics.have_products(info.arch) && cublas::version().is_ok() {
            let target = CudaTarget { products: true, ..target };
            let blueprint = Blueprint::new(plan, limits, &target, &tactics, self.cubins(engine)?)?;
            // Tactics are advice: this version, or this device, may lack what the one that was measured had.
            if blueprint.products().all(|spec| self.has_product(spec)) {
                return Ok(blueprint);
            }
        }
        Blueprint::new(plan, limits, &target, &tactics, self.cubins(engine)?)
    }

    fn has_product(&self, spec: &MatmulSpec) -> bool {
        self.driver.matmul(spec).map(|product| self.driver.release_matmul(product)).is_ok()
    }

    fn cubins(&self, engine: &Engine) -> Result<CubinStore<Arc<dyn Compiler>>> {
        let stored = engine.kernels().map(unpack).transpose()?.unwrap_or_default();
        Ok(CubinStore::with_compiler(stored, self.policy, self.cache.clone(), Arc::clone(&self.compiler)))
    }
}

/// A plan on a device, ready for steps.
pub struct CudaProgram {
    driver: Arc<dyn Driver>,
    /// Decode graphs by rows.
    graphs: Vec<(usize, Graph)>,
    /// Kernels of all graphs.
    graph_nodes: usize,
    flights: [Flight; DEPTH],
    /// The flight of the next launch, and how many are under way.
    next: usize,
    under_way: usize,
    timeline: Timeline,
    resident: Resident,
    limits: Limits,
    vocab: usize,
    tiles_only: bool,
}

impl CudaProgram {
    fn new(driver: Arc<dyn Driver>, plan: &Plan, blueprint: &Blueprint, resident: Resident) -> Result<Self> {
        let limits = blueprint.limits;
        let flight = || Flight::new(&driver, resident.layout.bytes, limits.logit_rows);
        let flights = [flight()?, flight()?];
        let timeline = Timeline::new(&driver, DEPTH)?;
        let mut program = Self {
            driver,
            graphs: Vec::new(),
            graph_nodes: 0,
            flights,
            next: 0,
            under_way: 0,
            timeline,
            resident,
            limits,
            vocab: plan.model.vocab_size,
            tiles_only: tiles_only(plan),
        };
        program.capture(&blueprint.buckets)?;
        Ok(program)
    }

    /// Device and page-locked bytes, modules and graphs included.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let pinned: usize = self.flights.iter().map(Flight::bytes).sum();
        (self.resident.device_bytes() + graph_bytes(self.graph_nodes) + pinned) as u64
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
    fn capture(&mut self, buckets: &[usize]) -> Result<()> {
        for &rows in buckets {
            let n = rows as u32;
            let counts = Counts { tokens: n, logit_rows: n, decode_rows: n, tiles: 0, ..Counts::default() };
            if self.resident.class(rows).has_products() {
                // The vendor's library must have run before it is captured.
                // SAFETY: the class was bound for these limits; an input of zeros is rows without tokens.
                unsafe { self.resident.class(rows).launch(&*self.driver, &counts)? };
            }
            self.driver.begin_capture()?;
            // SAFETY: the launches are only recorded; the class was bound for these limits.
            let launched = unsafe { self.resident.class(rows).launch(&*self.driver, &counts) };
            let graph = self.driver.end_capture();
            // What a failed capture gave is released with the rest.
            self.graphs.extend(graph.as_ref().ok().map(|graph| (rows, *graph)));
            self.graph_nodes += launched?;
            graph?;
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
        // What was enqueued of a failed step may still read the memory that the next one writes.
        self.enqueue(batch).inspect_err(|_| self.settle())?;
        self.next = (self.next + 1) % DEPTH;
        self.under_way += 1;
        Ok(())
    }

    /// Waits for what is under way, if the device still answers.
    fn settle(&self) {
        let _ = self.driver.synchronize();
    }

    fn enqueue(&mut self, batch: &Batch) -> Result<()> {
        let graph = self.graph(batch);
        let padded = graph.map_or(0, |(rows, _)| rows);
        let driver = Arc::clone(&self.driver);
        let flight = &mut self.flights[self.next];
        // SAFETY: the flight's last step was collected, so that nobody reads its input; the batch was checked.
        let counts = unsafe { self.resident.layout.fill(flight.input.pointer, batch, padded, self.tiles_only) };
        self.timeline.begin()?;
        // SAFETY: the pinned block stays as it is until the flight is collected.
        unsafe {
            let (to, from) = (self.resident.input.address, flight.input.pointer);
            driver.upload(to, from, counts.bytes)?;
            if counts.adjustment_bytes > 0 {
                let offset = self.resident.layout.offset(Input::Adjustments);
                driver.upload(to + offset as u64, from.add(offset), counts.adjustment_bytes)?;
            }
        }
        let results = self.resident.shared[&Shared::Results];
        let class = self.resident.class(counts.tokens as usize);
        // SAFETY: counts within the limits, input on its way, results and logits written by these launches.
        unsafe {
            match graph {
                Some((_, graph)) => driver.launch_graph(graph)?,
                None => {
                    class.launch(&*driver, &counts)?;
                }
            }
            if is_filtered(batch, self.vocab) {
                class.filter(&*driver, &counts)?;
            }
            flight.fetch(batch, results, class.logits, self.vocab)?;
        }
        self.timeline.end()
    }

    /// Waits for the oldest step: the results of its sample rows, the logits of its host rows, and its time.
    ///
    /// # Errors
    /// `Internal` when none is under way; `DeviceLost`.
    pub fn collect(&mut self) -> Result<(impl Iterator<Item = SampleResult> + '_, &[f32], StepTime)> {
        if self.under_way == 0 {
            return Err(Error::internal("collect", "no step is under way"));
        }
        let oldest = (self.next + DEPTH - self.under_way) % DEPTH;
        self.under_way -= 1;
        let time = self.timeline.wait().inspect_err(|_| self.settle())?;
        let flight = &self.flights[oldest];
        Ok((flight.results(), &flight.logits, time))
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
        self.settle();
        self.graphs.iter().for_each(|(_, graph)| self.driver.release_graph(*graph));
    }
}
