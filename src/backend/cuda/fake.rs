//! A driver without a device, for tests: memory is the host's, launches are recorded and do nothing, faults come when a
//! test asks for them.
//!
//! It is stricter than a device: copies and launches that touch memory nobody allocated, handles that were released, and
//! calls that a capture forbids are `Internal` errors.

use std::alloc::Layout;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::driver::{
    Address, Arch, Argument, DeviceInfo, Driver, Event, Function, Graph, Launch, MapSpec, Module, TensorMap,
};
use super::real::launch::MOST_ARGUMENTS;
use crate::error::{Error, Result};

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
    /// Launches of kernels and of graphs. Fail with `DeviceLost`, as do the others below.
    Launch,
    Wait,
    Synchronize,
}

/// What is alive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub allocations: usize,
    pub pinned: usize,
    pub modules: usize,
    pub graphs: usize,
    pub events: usize,
}

pub struct FakeDriver {
    info: DeviceInfo,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    memory: BTreeMap<usize, Block>,
    pinned: BTreeMap<usize, Block>,
    modules: HashSet<u64>,
    functions: HashMap<u64, Entry>,
    graphs: HashMap<u64, Vec<Launch>>,
    /// Whether it is timed and whether it was recorded.
    events: HashMap<u64, (bool, bool)>,
    last_id: u64,
    capture: Option<Vec<Launch>>,
    launches: Vec<Launch>,
    calls: HashMap<Call, usize>,
    /// At which count of calls they fail.
    faults: HashSet<(Call, usize)>,
    lost: Option<Error>,
}

struct Entry {
    module: u64,
    name: String,
    shared: u32,
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
            graphs: state.graphs.len(),
            events: state.events.len(),
        }
    }

    /// Every launch so far with its entry's name, those of replayed graphs included.
    pub fn launches(&self) -> Vec<(String, Launch)> {
        let state = self.state.lock();
        let name = |launch: &Launch| state.functions.get(&launch.function.0).map_or("unloaded", |entry| &entry.name);
        state.launches.iter().map(|launch| (name(launch).to_string(), launch.clone())).collect()
    }

    /// Bytes of device memory in use.
    pub fn used_bytes(&self) -> usize {
        self.state.lock().used_bytes()
    }
}

impl State {
    fn used_bytes(&self) -> usize {
        self.memory.values().map(|block| block.layout.size()).sum()
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn alive(&self) -> Result<()> {
        self.lost.clone().map_or(Ok(()), Err)
    }

    /// Counts a call; whether it is one that was told to fail.
    fn fails(&mut self, call: Call) -> bool {
        let count = self.calls.entry(call).or_insert(0);
        *count += 1;
        self.faults.remove(&(call, *count))
    }

    /// Counts a call, after which the device may be lost.
    fn reach(&mut self, call: Call, name: &str) -> Result<()> {
        self.alive()?;
        if self.fails(call) {
            let why = format!("{name} reported CUDA_ERROR_ILLEGAL_ADDRESS");
            self.lost = Some(Error::DeviceLost { what: LABEL.into(), why });
        }
        self.alive()
    }

    fn not_capturing(&self, call: &str) -> Result<()> {
        match self.capture {
            None => Ok(()),
            Some(_) => Err(Error::internal(call, "it is not allowed while launches are captured")),
        }
    }

    fn allocated(&self, address: Address, bytes: usize) -> Result<()> {
        let lies_in = |blocks: &BTreeMap<usize, Block>| {
            let block = blocks.range(..=address as usize).next_back();
            block.is_some_and(|(start, block)| address as usize - start + bytes <= block.layout.size())
        };
        if lies_in(&self.memory) || lies_in(&self.pinned) {
            return Ok(());
        }
        Err(Error::internal("device address", format!("{bytes} bytes at {address:#x} are in no allocation")))
    }

    fn check_launch(&self, launch: &Launch, info: &DeviceInfo) -> Result<()> {
        let refuse = |why: String| Err(Error::internal("kernel launch", why));
        let Some(entry) = self.functions.get(&launch.function.0) else {
            return refuse("its function was never loaded or is unloaded".into());
        };
        let name = &entry.name;
        if launch.grid.contains(&0) || launch.grid[1..].iter().any(|n| *n > 65535) {
            return refuse(format!("{name} has grid {:?}", launch.grid));
        }
        if launch.block == 0 || launch.block > 1024 {
            return refuse(format!("{name} has blocks of {}", launch.block));
        }
        if launch.shared > entry.shared {
            return refuse(format!("{name} has {} bytes of shared memory of {}", launch.shared, entry.shared));
        }
        if launch.cluster > 1 && (!info.arch.is_hopper_or_later() || launch.grid[0] % launch.cluster != 0) {
            return refuse(format!("{name} has clusters of {} in a grid {:?}", launch.cluster, launch.grid));
        }
        if launch.arguments.len() > MOST_ARGUMENTS {
            return refuse(format!("{name} has {} arguments", launch.arguments.len()));
        }
        for argument in &launch.arguments {
            match argument {
                Argument::Address(address) if *address != 0 => self.allocated(*address, 1)?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl Driver for FakeDriver {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn free_bytes(&self) -> Result<usize> {
        let state = self.state.lock();
        state.alive()?;
        Ok(self.info.total_bytes - state.used_bytes())
    }

    fn allocate(&self, bytes: usize, what: &str) -> Result<Address> {
        let mut state = self.state.lock();
        state.alive()?;
        state.not_capturing("cuMemAlloc")?;
        let free = self.info.total_bytes - state.used_bytes();
        if state.fails(Call::Allocate) || bytes > free {
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
        state.alive()?;
        state.not_capturing("cuMemHostAlloc")?;
        if state.fails(Call::AllocatePinned) {
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
        let state = self.state.lock();
        state.alive()?;
        state.allocated(to, bytes)?;
        // SAFETY: the destination is allocated, the caller vouches for the source.
        unsafe { std::ptr::copy(from, to as *mut u8, bytes) };
        Ok(())
    }

    unsafe fn download(&self, to: *mut u8, from: Address, bytes: usize) -> Result<()> {
        let state = self.state.lock();
        state.alive()?;
        state.allocated(from, bytes)?;
        // SAFETY: the source is allocated, the caller vouches for the destination.
        unsafe { std::ptr::copy(from as *const u8, to, bytes) };
        Ok(())
    }

    unsafe fn fill(&self, to: Address, bytes: usize, byte: u8) -> Result<()> {
        let state = self.state.lock();
        state.alive()?;
        state.allocated(to, bytes)?;
        // SAFETY: the destination is allocated.
        unsafe { (to as *mut u8).write_bytes(byte, bytes) };
        Ok(())
    }

    fn load(&self, _cubin: &[u8], what: &str) -> Result<Module> {
        let mut state = self.state.lock();
        state.alive()?;
        state.not_capturing("cuModuleLoadData")?;
        if state.fails(Call::Load) {
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
        state.alive()?;
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
        state.check_launch(launch, &self.info)?;
        let state = &mut *state;
        state.capture.as_mut().unwrap_or(&mut state.launches).push(launch.clone());
        Ok(())
    }

    fn tensor_map(&self, spec: &MapSpec) -> Result<TensorMap> {
        let state = self.state.lock();
        state.alive()?;
        state.allocated(spec.address, spec.rows.saturating_sub(1) * spec.row_bytes + 1)?;
        if spec.row_bytes % 16 != 0 || spec.address % 16 != 0 || spec.box_rows > 256 || spec.box_columns > 256 {
            return Err(Error::internal(format!("{spec:?}"), "no tensor map can be like this"));
        }
        let mut map = TensorMap([0; 128]);
        map.0[..8].copy_from_slice(&spec.address.to_le_bytes());
        Ok(map)
    }

    fn begin_capture(&self) -> Result<()> {
        let mut state = self.state.lock();
        state.alive()?;
        state.not_capturing("cuStreamBeginCapture")?;
        state.capture = Some(Vec::new());
        Ok(())
    }

    fn end_capture(&self) -> Result<Graph> {
        let mut state = self.state.lock();
        let recorded = state.capture.take();
        state.alive()?;
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
        recorded.iter().try_for_each(|launch| state.check_launch(launch, &self.info))?;
        state.launches.extend(recorded);
        Ok(())
    }

    fn release_graph(&self, graph: Graph) {
        self.state.lock().graphs.remove(&graph.0);
    }

    fn event(&self, timed: bool) -> Result<Event> {
        let mut state = self.state.lock();
        state.alive()?;
        let id = state.new_id();
        state.events.insert(id, (timed, false));
        Ok(Event(id))
    }

    fn record(&self, event: Event) -> Result<()> {
        let mut state = self.state.lock();
        state.alive()?;
        let (_, recorded) = state.events.get_mut(&event.0).ok_or_else(no_event)?;
        *recorded = true;
        Ok(())
    }

    fn wait(&self, event: Event) -> Result<()> {
        let mut state = self.state.lock();
        state.reach(Call::Wait, "cuEventQuery")?;
        state.not_capturing("cuEventQuery")?;
        state.events.get(&event.0).map(|_| ()).ok_or_else(no_event)
    }

    /// Always one millisecond.
    fn elapsed(&self, from: Event, to: Event) -> Result<f32> {
        let state = self.state.lock();
        state.alive()?;
        for event in [from, to] {
            if *state.events.get(&event.0).ok_or_else(no_event)? != (true, true) {
                return Err(Error::internal("event", "it is not timed or was not recorded"));
            }
        }
        Ok(1.0)
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

/// Host memory as aligned as a device's.
struct Block {
    pointer: *mut u8,
    layout: Layout,
}

// SAFETY: a block is owned memory that only the driver's lock gives access to.
unsafe impl Send for Block {}

impl Block {
    fn new(bytes: usize, fresh: u8) -> Self {
        let layout = Layout::from_size_align(bytes, 256).expect("tests ask for sizes that exist");
        // SAFETY: the size is not zero; the block is written as far as it goes.
        let pointer = unsafe {
            let pointer = std::alloc::alloc(layout);
            assert!(!pointer.is_null(), "the host has memory for a test");
            pointer.write_bytes(fresh, bytes);
            pointer
        };
        Self { pointer, layout }
    }

    fn address(&self) -> usize {
        self.pointer as usize
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(self.pointer, self.layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;

    fn launch(function: Function, arguments: Vec<Argument>) -> Launch {
        Launch { function, grid: [4, 1, 1], block: 128, shared: 0, cluster: 1, dependent: true, arguments }
    }

    #[test]
    fn memory_holds_what_is_uploaded_and_nothing_leaks() {
        let driver = FakeDriver::new();
        let address = driver.allocate(8, "weights").unwrap();
        let pinned = driver.allocate_pinned(8, "staging").unwrap();
        let mut back = [0_u8; 4];
        // SAFETY: the host sides are arrays and a pinned block of that size.
        unsafe {
            assert_eq!(*pinned, 0);
            driver.download(back.as_mut_ptr(), address, 4).unwrap();
            assert_eq!(back, [POISON; 4]);
            driver.upload(address, [1, 2, 3, 4].as_ptr(), 4).unwrap();
            driver.fill(address + 4, 4, 9).unwrap();
            driver.download(back.as_mut_ptr(), address + 2, 4).unwrap();
            assert_eq!(back, [3, 4, 9, 9]);
            assert_eq!(driver.fill(address + 4, 5, 0).unwrap_err().status(), Status::Internal);
        }
        assert_eq!(driver.alive(), Counts { allocations: 1, pinned: 1, ..Counts::default() });
        assert_eq!((driver.calls(Call::Allocate), driver.calls(Call::AllocatePinned)), (1, 1));
        driver.release(address);
        driver.release_pinned(pinned);
        driver.release(0);
        assert_eq!((driver.alive(), driver.used_bytes()), (Counts::default(), 0));
    }

    #[test]
    fn too_little_memory_tells_needed_and_free() {
        let driver = FakeDriver::with(Arch { major: 8, minor: 0 }, 1000);
        let first = driver.allocate(600, "a").unwrap();
        let error = driver.allocate(500, "the pool").unwrap_err();
        assert_eq!(error.status(), Status::OutOfMemory);
        let text = error.to_string();
        assert!(
            text.contains("the pool") && text.contains("500 bytes") && text.contains("400 bytes are free"),
            "{text}"
        );
        driver.release(first);
        driver.fail(Call::Allocate, 2);
        driver.allocate(1, "b").unwrap();
        assert_eq!(driver.allocate(1, "c").unwrap_err().status(), Status::OutOfMemory);
        driver.allocate(1, "d").unwrap();
    }

    #[test]
    fn graphs_replay_what_was_captured() {
        let driver = FakeDriver::new();
        let module = driver.load(b"cubin", "gemv").unwrap();
        let function = driver.function(module, "gemv", 0).unwrap();
        let address = driver.allocate(256, "x").unwrap();
        let launch = launch(function, vec![Argument::Address(address), Argument::U32(3)]);
        driver.begin_capture().unwrap();
        assert_eq!(driver.allocate(1, "y").unwrap_err().status(), Status::Internal);
        // SAFETY: the fake runs nothing.
        unsafe { driver.launch(&launch).unwrap() };
        let graph = driver.end_capture().unwrap();
        assert!(driver.launches().is_empty());
        // SAFETY: as above.
        unsafe {
            driver.launch_graph(graph).unwrap();
            driver.launch_graph(graph).unwrap();
        }
        assert_eq!(driver.launches(), vec![("gemv".to_string(), launch); 2]);
        // What the graph uses is gone.
        driver.release(address);
        // SAFETY: as above.
        assert_eq!(unsafe { driver.launch_graph(graph) }.unwrap_err().status(), Status::Internal);
        driver.release_graph(graph);
        driver.unload(module);
        assert_eq!(driver.alive(), Counts::default());
    }

    #[test]
    fn a_loss_comes_when_asked_for_and_stays() {
        let driver = FakeDriver::new();
        let event = driver.event(true).unwrap();
        driver.record(event).unwrap();
        driver.fail(Call::Wait, 2);
        driver.wait(event).unwrap();
        assert_eq!(driver.elapsed(event, event).unwrap(), 1.0);
        let lost = driver.wait(event).unwrap_err();
        assert_eq!(lost.status(), Status::DeviceLost);
        assert_eq!(driver.synchronize().unwrap_err(), lost);
        assert_eq!(driver.allocate(1, "x").unwrap_err(), lost);
        driver.release_event(event);
        assert_eq!(driver.alive(), Counts::default());
    }

    #[test]
    fn loads_fail_when_asked_for() {
        let driver = FakeDriver::new();
        driver.fail(Call::Load, 1);
        assert_eq!(driver.load(b"", "gemv").unwrap_err().status(), Status::Corrupt);
        driver.load(b"", "gemv").unwrap();
    }

    #[test]
    fn impossible_launches_are_refused() {
        let driver = FakeDriver::with(Arch { major: 8, minor: 0 }, 1 << 20);
        let module = driver.load(b"", "k").unwrap();
        let function = driver.function(module, "k", 1024).unwrap();
        let good = launch(function, vec![Argument::Address(0)]);
        let bad = [
            Launch { function: Function(99), ..good.clone() },
            Launch { grid: [1, 0, 1], ..good.clone() },
            Launch { block: 1025, ..good.clone() },
            Launch { shared: 1025, ..good.clone() },
            Launch { cluster: 2, ..good.clone() },
            Launch { arguments: vec![Argument::Address(64)], ..good.clone() },
            Launch { arguments: vec![Argument::U32(0); 33], ..good.clone() },
        ];
        // SAFETY: the fake runs nothing.
        unsafe {
            driver.launch(&good).unwrap();
            for launch in bad {
                assert_eq!(driver.launch(&launch).unwrap_err().status(), Status::Internal, "{launch:?}");
            }
        }
    }
}
