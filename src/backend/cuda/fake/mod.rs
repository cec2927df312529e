//! A driver without a device, for tests: memory is the host's, launches are recorded and do nothing, faults come when a
//! test asks for them.
//!
//! It is stricter than a device: copies and launches that touch memory nobody allocated, handles that were released, and
//! calls that a capture forbids are `Internal` errors.

mod compiler;
mod state;
mod tests;

use std::sync::Arc;

use parking_lot::Mutex;

use super::driver::{
    Address, Arch, DeviceInfo, Driver, Event, Function, Graph, Launch, MapSpec, Matmul, Module, TensorMap,
};
use super::matmul::{MatmulOperands, MatmulSpec};
use crate::error::{Error, Result};
pub use compiler::FakeCompiler;
pub use state::MatmulLaunch;
use state::{Block, Enqueued, Entry, State};

/// What fresh device memory holds.
const POISON: u8 = 0xA5;
const LABEL: &str = "cuda:0 (fake)";

/// Calls that can be told to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Fails with `OutOfMemory`.
    Allocate,
    /// Fails with `OutOfMemory`.
    AllocatePinned,
    /// Fails with `Corrupt`.
    Load,
    /// Preparing a matrix product. Fails with `DeviceUnavailable`, as without the library.
    Matmul,
    /// Launches of kernels, matrix products and graphs. Fail with `DeviceLost`, as do the others below.
    Launch,
    Wait,
    Synchronize,
    /// Uploads, downloads and fills.
    Copy,
    Function,
    TensorMap,
    /// Beginnings and ends.
    Capture,
    /// New events.
    Event,
    Record,
    Elapsed,
    FreeBytes,
}

/// What is alive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub allocations: usize,
    pub pinned: usize,
    pub modules: usize,
    pub matmuls: usize,
    pub graphs: usize,
    pub events: usize,
}

pub struct FakeDriver {
    info: DeviceInfo,
    state: Mutex<State>,
}

impl FakeDriver {
    /// A Hopper with 1 GiB of memory.
    pub fn new() -> Arc<Self> {
        Self::with(Arch { major: 9, minor: 0 }, 1 << 30)
    }

    pub fn with(arch: Arch, memory: usize) -> Arc<Self> {
        let info = DeviceInfo {
            name: "fake".into(),
            arch,
            multiprocessors: 132,
            shared_bytes: 227 << 10,
            total_bytes: memory,
            driver_version: 13000,
        };
        Arc::new(Self { info, state: Mutex::default() })
    }

    /// Lets the `nth` call of this kind from now fail; 1 is the next one. A lost device stays lost.
    pub fn fail(&self, call: Call, nth: usize) {
        let mut state = self.state.lock();
        let at = state.calls.get(&call).unwrap_or(&0) + nth;
        state.faults.insert((call, at));
    }

    /// Lets the `nth` call of any kind from now fail alone: with its own error where it has one, else with `Internal`.
    pub fn refuse_at(&self, nth: usize) {
        let mut state = self.state.lock();
        state.refuse_at = Some(state.all_calls + nth);
    }

    /// Lets the `nth` call of any kind from now find the device lost.
    pub fn lose_at(&self, nth: usize) {
        let mut state = self.state.lock();
        state.lose_at = Some(state.all_calls + nth);
    }

    /// How many calls there were that can fail.
    pub fn all_calls(&self) -> usize {
        self.state.lock().all_calls
    }

    /// How often this was called.
    pub fn calls(&self, call: Call) -> usize {
        self.state.lock().calls.get(&call).copied().unwrap_or(0)
    }

    /// What is alive now: all zeros when everything was given back.
    pub fn alive(&self) -> Counts {
        let state = self.state.lock();
        Counts {
            allocations: state.memory.len(),
            pinned: state.pinned.len(),
            modules: state.modules.len(),
            matmuls: state.matmuls.len(),
            graphs: state.graphs.len(),
            events: state.events.len(),
        }
    }

    /// Every launch of a kernel so far with its entry's name, those of replayed graphs included.
    pub fn launches(&self) -> Vec<(String, Launch)> {
        let state = self.state.lock();
        let name = |launch: &Launch| state.functions.get(&launch.function.0).map_or("unloaded", |entry| &entry.name);
        let kernels = state.stream.iter().filter_map(|work| match work {
            Enqueued::Kernel(launch) => Some((name(launch).to_string(), launch.clone())),
            Enqueued::Matmul(_) => None,
        });
        kernels.collect()
    }

    /// Every launch of a matrix product so far, those of replayed graphs included.
    pub fn matmuls(&self) -> Vec<MatmulLaunch> {
        let state = self.state.lock();
        let matmuls = state.stream.iter().filter_map(|work| match work {
            Enqueued::Kernel(_) => None,
            Enqueued::Matmul(launch) => Some(*launch),
        });
        matmuls.collect()
    }

    /// Bytes of device memory in use.
    pub fn used_bytes(&self) -> usize {
        self.state.lock().used_bytes()
    }

    /// Bytes of page-locked memory in use.
    pub fn pinned_bytes(&self) -> usize {
        self.state.lock().pinned.values().map(|block| block.layout.size()).sum()
    }
}

impl Driver for FakeDriver {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn free_bytes(&self) -> Result<usize> {
        let mut state = self.state.lock();
        state.reach(Call::FreeBytes, "cuMemGetInfo")?;
        Ok(self.info.total_bytes - state.used_bytes())
    }

    fn allocate(&self, bytes: usize, what: &str) -> Result<Address> {
        let mut state = self.state.lock();
        let fails = state.enter(Call::Allocate, "cuMemAlloc")?;
        state.not_capturing("cuMemAlloc")?;
        let free = self.info.total_bytes - state.used_bytes();
        if fails || bytes > free {
            let why = format!("{bytes} bytes of device memory are needed, {free} bytes are free on {LABEL}");
            return Err(Error::OutOfMemory { what: what.into(), why });
        }
        if bytes == 0 {
            return Ok(0);
        }
        let block = Block::new(bytes, POISON);
        let address = block.address();
        state.memory.insert(address, block);
        Ok(address as Address)
    }

    fn release(&self, address: Address) {
        self.state.lock().memory.remove(&(address as usize));
    }

    fn allocate_pinned(&self, bytes: usize, what: &str) -> Result<*mut u8> {
        let mut state = self.state.lock();
        let fails = state.enter(Call::AllocatePinned, "cuMemHostAlloc")?;
        state.not_capturing("cuMemHostAlloc")?;
        if fails {
            let why = format!("{bytes} bytes of page-locked host memory are needed, 0 bytes are free on {LABEL}");
            return Err(Error::OutOfMemory { what: what.into(), why });
        }
        let block = Block::new(bytes.max(1), 0);
        let address = block.address();
        state.pinned.insert(address, block);
        Ok(address as *mut u8)
    }

    fn release_pinned(&self, pointer: *mut u8) {
        self.state.lock().pinned.remove(&(pointer as usize));
    }

    unsafe fn upload(&self, to: Address, from: *const u8, bytes: usize) -> Result<()> {
        let mut state = self.state.lock();
        state.reach(Call::Copy, "cuMemcpyHtoDAsync")?;
        state.allocated(to, bytes)?;
        // SAFETY: the destination is allocated, the caller vouches for the source.
        unsafe { std::ptr::copy(from, to as *mut u8, bytes) };
        Ok(())
    }

    unsafe fn download(&self, to: *mut u8, from: Address, bytes: usize) -> Result<()> {
        let mut state = self.state.lock();
        state.reach(Call::Copy, "cuMemcpyDtoHAsync")?;
        state.allocated(from, bytes)?;
        // SAFETY: the source is allocated, the caller vouches for the destination.
        unsafe { std::ptr::copy(from as *const u8, to, bytes) };
        Ok(())
    }

    unsafe fn fill(&self, to: Address, bytes: usize, byte: u8) -> Result<()> {
        let mut state = self.state.lock();
        state.reach(Call::Copy, "cuMemsetD8Async")?;
        state.allocated(to, bytes)?;
        // SAFETY: the destination is allocated.
        unsafe { (to as *mut u8).write_bytes(byte, bytes) };
        Ok(())
    }

    fn load(&self, _cubin: &[u8], what: &str) -> Result<Module> {
        let mut state = self.state.lock();
        let fails = state.enter(Call::Load, "cuModuleLoadData")?;
        state.not_capturing("cuModuleLoadData")?;
        if fails {
            return Err(Error::Corrupt { what: what.into(), why: format!("CUDA_ERROR_INVALID_IMAGE on {LABEL}") });
        }
        let id = state.new_id();
        state.modules.insert(id);
        Ok(Module(id))
    }

    fn unload(&self, module: Module) {
        let mut state = self.state.lock();
        state.modules.remove(&module.0);
        state.functions.retain(|_, entry| entry.module != module.0);
    }

    fn function(&self, module: Module, entry: &str, shared: u32) -> Result<Function> {
        let mut state = self.state.lock();
        state.reach(Call::Function, "cuModuleGetFunction")?;
        if !state.modules.contains(&module.0) {
            return Err(Error::internal(entry, "its module was unloaded or never loaded"));
        }
        if shared as usize > self.info.shared_bytes {
            let why = format!("it needs {shared} bytes of shared memory, {LABEL} has {}", self.info.shared_bytes);
            return Err(Error::Unsupported { what: entry.into(), why });
        }
        let id = state.new_id();
        state.functions.insert(id, Entry { module: module.0, name: entry.into(), shared });
        Ok(Function(id))
    }

    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        let mut state = self.state.lock();
        state.reach(Call::Launch, "cuLaunchKernelEx")?;
        state.enqueue(Enqueued::Kernel(launch.clone()), &self.info)
    }

    fn tensor_map(&self, spec: &MapSpec) -> Result<TensorMap> {
        let mut state = self.state.lock();
        state.reach(Call::TensorMap, "cuTensorMapEncodeTiled")?;
        state.allocated(spec.address, spec.rows.saturating_sub(1) * spec.row_bytes + 1)?;
        let aligned = spec.row_bytes.is_multiple_of(16) && spec.address.is_multiple_of(16);
        if !aligned || spec.box_rows > 256 || spec.box_columns > 256 {
            return Err(Error::internal(format!("{spec:?}"), "no tensor map can be like this"));
        }
        let mut map = TensorMap([0; 128]);
        map.0[..8].copy_from_slice(&spec.address.to_le_bytes());
        Ok(map)
    }

    /// Every product that the library may have, and e4m3 on Hopper alone.
    fn matmul(&self, spec: &MatmulSpec) -> Result<Matmul> {
        let mut state = self.state.lock();
        let fails = state.enter(Call::Matmul, "cublasLtMatmulAlgoGetHeuristic")?;
        state.not_capturing("cublasLtMatmulAlgoGetHeuristic")?;
        if fails {
            return Err(Error::DeviceUnavailable {
                what: "library libcublasLt".into(),
                why: "it was not found".into(),
            });
        }
        spec.check()?;
        if spec.is_scaled() && self.info.arch.major != 9 {
            let why = format!("cublasLtMatmulAlgoGetHeuristic reported CUBLAS_STATUS_NOT_SUPPORTED on {LABEL}");
            return Err(Error::Unsupported { what: spec.to_string(), why });
        }
        let id = state.new_id();
        state.matmuls.insert(id, *spec);
        Ok(Matmul(id))
    }

    unsafe fn launch_matmul(&self, matmul: Matmul, operands: &MatmulOperands, rows: u32) -> Result<()> {
        let mut state = self.state.lock();
        state.reach(Call::Launch, "cublasLtMatmul")?;
        let spec = state.matmuls.get(&matmul.0).copied();
        let spec = spec.ok_or_else(|| Error::internal("matrix product", "it was released or never prepared"))?;
        state.enqueue(Enqueued::Matmul(MatmulLaunch { spec, operands: *operands, rows }), &self.info)
    }

    fn release_matmul(&self, matmul: Matmul) {
        self.state.lock().matmuls.remove(&matmul.0);
    }

    fn begin_capture(&self) -> Result<()> {
        let mut state = self.state.lock();
        state.reach(Call::Capture, "cuStreamBeginCapture")?;
        state.not_capturing("cuStreamBeginCapture")?;
        state.capture = Some(Vec::new());
        Ok(())
    }

    fn end_capture(&self) -> Result<Graph> {
        let mut state = self.state.lock();
        let recorded = state.capture.take();
        state.reach(Call::Capture, "cuStreamEndCapture")?;
        let recorded = recorded.ok_or_else(|| Error::internal("cuStreamEndCapture", "nothing is captured"))?;
        let id = state.new_id();
        state.graphs.insert(id, recorded);
        Ok(Graph(id))
    }

    unsafe fn launch_graph(&self, graph: Graph) -> Result<()> {
        let mut state = self.state.lock();
        state.reach(Call::Launch, "cuGraphLaunch")?;
        state.not_capturing("cuGraphLaunch")?;
        let recorded = state.graphs.get(&graph.0).cloned();
        let recorded = recorded.ok_or_else(|| Error::internal("graph", "it was released or never made"))?;
        recorded.iter().try_for_each(|work| state.check_enqueued(work, &self.info))?;
        state.stream.extend(recorded);
        Ok(())
    }

    fn release_graph(&self, graph: Graph) {
        self.state.lock().graphs.remove(&graph.0);
    }

    fn event(&self, timed: bool) -> Result<Event> {
        let mut state = self.state.lock();
        state.reach(Call::Event, "cuEventCreate")?;
        let id = state.new_id();
        state.events.insert(id, (timed, None));
        Ok(Event(id))
    }

    fn record(&self, event: Event) -> Result<()> {
        let mut state = self.state.lock();
        state.reach(Call::Record, "cuEventRecord")?;
        state.records += 1;
        let number = state.records;
        let (_, recorded) = state.events.get_mut(&event.0).ok_or_else(no_event)?;
        *recorded = Some(number);
        Ok(())
    }

    fn wait(&self, event: Event) -> Result<()> {
        let mut state = self.state.lock();
        state.reach(Call::Wait, "cuEventQuery")?;
        state.not_capturing("cuEventQuery")?;
        state.events.get(&event.0).map(|_| ()).ok_or_else(no_event)
    }

    /// A millisecond from each record to the next.
    fn elapsed(&self, from: Event, to: Event) -> Result<f32> {
        let mut state = self.state.lock();
        state.reach(Call::Elapsed, "cuEventElapsedTime")?;
        let record = |event: Event| match state.events.get(&event.0).ok_or_else(no_event)? {
            (true, Some(number)) => Ok(*number as f32),
            _ => Err(Error::internal("event", "it is not timed or was not recorded")),
        };
        Ok(record(to)? - record(from)?)
    }

    fn release_event(&self, event: Event) {
        self.state.lock().events.remove(&event.0);
    }

    fn synchronize(&self) -> Result<()> {
        let mut state = self.state.lock();
        state.reach(Call::Synchronize, "cuStreamQuery")?;
        state.not_capturing("cuStreamQuery")
    }
}

fn no_event() -> Error {
    Error::internal("event", "it was released or never made")
}
