//! The trait's calls, one driver call each with its result checked.

use std::ffi::{CString, c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::Ordering;

use cudarc::driver::sys::{self, CUresult, CUstreamCaptureMode};

use super::super::blueprint::graph_bytes;
use super::super::driver::{
    Address, DeviceInfo, Driver, Event, Function, Graph, Launch, MapElement, MapSpec, Matmul, Module, TensorMap,
};
use super::super::matmul::{MatmulOperands, MatmulSpec};
use super::{Loaded, RealDriver, launch};
use crate::error::{Error, Result};

impl Driver for RealDriver {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn free_bytes(&self) -> Result<usize> {
        let _context = self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the context is current, both are valid places.
        self.check(unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) }, "cuMemGetInfo")?;
        Ok(free)
    }

    fn allocate(&self, bytes: usize, what: &str) -> Result<Address> {
        let _context = self.enter()?;
        if bytes == 0 {
            return Ok(0);
        }
        let mut address = 0;
        // SAFETY: the context is current, `address` a valid place.
        let result = unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes) };
        self.check_memory(result, "cuMemAlloc", what, bytes, "device memory")?;
        self.live.lock().memory.insert(address);
        Ok(address)
    }

    fn release(&self, address: Address) {
        if self.live.lock().memory.remove(&address) {
            // SAFETY: it was allocated here and is freed once; the call waits for work that uses it.
            self.give_back("cuMemFree", || unsafe { sys::cuMemFree_v2(address) });
        }
    }

    fn allocate_pinned(&self, bytes: usize, what: &str) -> Result<*mut u8> {
        let _context = self.enter()?;
        let (mut pointer, bytes) = (null_mut::<c_void>(), bytes.max(1));
        // SAFETY: the context is current, `pointer` a valid place.
        let result = unsafe { sys::cuMemHostAlloc(&raw mut pointer, bytes, 0) };
        self.check_memory(result, "cuMemHostAlloc", what, bytes, "page-locked host memory")?;
        self.live.lock().pinned.insert(pointer as usize);
        // SAFETY: the allocation has `bytes` bytes.
        unsafe { pointer.cast::<u8>().write_bytes(0, bytes) };
        Ok(pointer.cast())
    }

    fn release_pinned(&self, pointer: *mut u8) {
        if self.live.lock().pinned.remove(&(pointer as usize)) {
            // SAFETY: it was allocated here and is freed once; the call waits for work that uses it.
            self.give_back("cuMemFreeHost", || unsafe { sys::cuMemFreeHost(pointer.cast()) });
        }
    }

    unsafe fn upload(&self, to: Address, from: *const u8, bytes: usize) -> Result<()> {
        let _context = self.enter()?;
        // SAFETY: the caller keeps both sides valid until the stream has passed.
        let result = unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.cast(), bytes, self.stream) };
        self.check(result, "cuMemcpyHtoDAsync")
    }

    unsafe fn download(&self, to: *mut u8, from: Address, bytes: usize) -> Result<()> {
        let _context = self.enter()?;
        // SAFETY: as in `upload`.
        let result = unsafe { sys::cuMemcpyDtoHAsync_v2(to.cast(), from, bytes, self.stream) };
        self.check(result, "cuMemcpyDtoHAsync")
    }

    unsafe fn fill(&self, to: Address, bytes: usize, byte: u8) -> Result<()> {
        let _context = self.enter()?;
        // SAFETY: as in `upload`.
        self.check(unsafe { sys::cuMemsetD8Async(to, byte, bytes, self.stream) }, "cuMemsetD8Async")
    }

    fn load(&self, cubin: &[u8], what: &str) -> Result<Module> {
        let _context = self.enter()?;
        let image = launch::image(cubin, what)?;
        let mut module = null_mut();
        // SAFETY: the image holds a whole cubin: the driver learns its size from its headers, which `image` has checked.
        let result = unsafe { sys::cuModuleLoadData(&raw mut module, image.as_ptr().cast()) };
        self.check_memory(result, "cuModuleLoadData", what, cubin.len(), "device memory")
            .map_err(|error| launch::naming(error, what))?;
        self.live.lock().modules.insert(module as u64);
        Ok(Module(module as u64))
    }

    fn unload(&self, module: Module) {
        let mut live = self.live.lock();
        live.functions.retain(|_, function| function.module != module.0);
        if live.modules.remove(&module.0) {
            drop(live);
            // SAFETY: it was loaded here and is unloaded once.
            self.give_back("cuModuleUnload", || unsafe { sys::cuModuleUnload(module.0 as sys::CUmodule) });
        }
    }

    fn function(&self, module: Module, entry: &str, shared: u32) -> Result<Function> {
        let _context = self.enter()?;
        if shared as usize > self.info.shared_bytes {
            let why =
                format!("it needs {shared} bytes of shared memory, {} has {}", self.label, self.info.shared_bytes);
            return Err(Error::Unsupported { what: entry.into(), why });
        }
        let mut live = self.live.lock();
        if !live.modules.contains(&module.0) {
            return Err(Error::internal(entry, "its module was unloaded or never loaded"));
        }
        let name = CString::new(entry).map_err(|_| Error::internal("kernel entry", "its name holds a NUL"))?;
        let mut function = null_mut();
        // SAFETY: the module is loaded, and the lock keeps it so; `name` is NUL-terminated.
        let result = unsafe { sys::cuModuleGetFunction(&raw mut function, module.0 as sys::CUmodule, name.as_ptr()) };
        self.check(result, "cuModuleGetFunction").map_err(|error| launch::naming(error, entry))?;
        // The function is the same at every call, and nobody's allowance may shrink.
        let shared = live.functions.get(&(function as u64)).map_or(shared, |known| known.shared.max(shared));
        let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is one of a loaded module.
        let result = unsafe { sys::cuFuncSetAttribute(function, most, shared as c_int) };
        self.check(result, "cuFuncSetAttribute").map_err(|error| launch::naming(error, entry))?;
        live.functions.insert(function as u64, Loaded { module: module.0, name: entry.into(), shared });
        Ok(Function(function as u64))
    }

    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        let _context = self.enter()?;
        // SAFETY: the caller vouches for function and arguments.
        let result = unsafe { launch::launch(launch, self.stream, self.info.arch) }?;
        self.check(result, "cuLaunchKernelEx").map_err(|error| {
            let live = self.live.lock();
            let function = live.functions.get(&launch.function.0);
            launch::naming(error, function.map_or("a kernel", |function| function.name.as_str()))
        })
    }

    fn tensor_map(&self, spec: &MapSpec) -> Result<TensorMap> {
        let _context = self.enter()?;
        let kind = match spec.element {
            MapElement::Byte => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT8,
            MapElement::Half => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            MapElement::Bf16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        };
        let small = |value: usize| u32::try_from(value).map_err(|_| Error::internal("tensor map", format!("{spec:?}")));
        let (sizes, strides) = ([spec.columns as u64, spec.rows as u64], [spec.row_bytes as u64]);
        let (steps, in_box) = ([1_u32, 1], [small(spec.box_columns)?, small(spec.box_rows)?]);
        let mut map = TensorMap([0; 128]);
        // SAFETY: a tensor map is 128 opaque bytes at a multiple of 64; the arrays are of rank 2 (strides: rank 1). The
        // call only encodes the address.
        let result = unsafe {
            sys::cuTensorMapEncodeTiled(
                (&raw mut map).cast(),
                kind,
                2,
                spec.address as *mut c_void,
                sizes.as_ptr(),
                strides.as_ptr(),
                in_box.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        self.check(result, "cuTensorMapEncodeTiled").map_err(|error| launch::naming(error, &format!("{spec:?}")))?;
        Ok(map)
    }

    fn matmul(&self, spec: &MatmulSpec) -> Result<Matmul> {
        self.prepare_matmul(spec)
    }

    unsafe fn launch_matmul(&self, matmul: Matmul, operands: &MatmulOperands, rows: u32) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.enqueue_matmul(matmul, operands, rows) }
    }

    fn release_matmul(&self, matmul: Matmul) {
        self.drop_matmul(matmul);
    }

    fn begin_capture(&self) -> Result<()> {
        let _context = self.enter()?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is ours.
        self.check(unsafe { sys::cuStreamBeginCapture_v2(self.stream, mode) }, "cuStreamBeginCapture")?;
        self.capturing.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn end_capture(&self) -> Result<Graph> {
        let _context = self.enter()?;
        let mut recorded = null_mut();
        // SAFETY: the stream is ours, `recorded` a valid place.
        let result = unsafe { sys::cuStreamEndCapture(self.stream, &raw mut recorded) };
        self.capturing.store(false, Ordering::Relaxed);
        self.check(result, "cuStreamEndCapture")?;
        let (mut graph, mut nodes) = (null_mut(), 0);
        // SAFETY: the recorded graph is whole; what is instantiated does not need it any more.
        let result = unsafe {
            sys::cuGraphGetNodes(recorded, null_mut(), &raw mut nodes);
            let result = sys::cuGraphInstantiateWithFlags(&raw mut graph, recorded, 0);
            sys::cuGraphDestroy(recorded);
            result
        };
        self.check_memory(result, "cuGraphInstantiate", "graph", graph_bytes(nodes), "device memory")?;
        self.live.lock().graphs.insert(graph as u64);
        let graph = Graph(graph as u64);
        // The first launch would upload otherwise, and be late.
        // SAFETY: the graph was instantiated in this context.
        let result = unsafe { sys::cuGraphUpload(graph.0 as sys::CUgraphExec, self.stream) };
        self.check(result, "cuGraphUpload").inspect_err(|_| self.release_graph(graph))?;
        Ok(graph)
    }

    unsafe fn launch_graph(&self, graph: Graph) -> Result<()> {
        let _context = self.enter()?;
        // SAFETY: the caller vouches for the graph and for what it runs on.
        self.check(unsafe { sys::cuGraphLaunch(graph.0 as sys::CUgraphExec, self.stream) }, "cuGraphLaunch")
    }

    fn release_graph(&self, graph: Graph) {
        if self.live.lock().graphs.remove(&graph.0) {
            // SAFETY: it was made here and is destroyed once; one under way ends first.
            self.give_back("cuGraphExecDestroy", || unsafe { sys::cuGraphExecDestroy(graph.0 as sys::CUgraphExec) });
        }
    }

    fn event(&self, timed: bool) -> Result<Event> {
        let _context = self.enter()?;
        let flags = if timed { 0 } else { sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32 };
        let mut event = null_mut();
        // SAFETY: the context is current, `event` a valid place.
        self.check(unsafe { sys::cuEventCreate(&raw mut event, flags) }, "cuEventCreate")?;
        self.live.lock().events.insert(event as u64);
        Ok(Event(event as u64))
    }

    fn record(&self, event: Event) -> Result<()> {
        let _context = self.enter()?;
        let event = self.live_event(event)?;
        // SAFETY: event and stream are live and of this context.
        self.check(unsafe { sys::cuEventRecord(event, self.stream) }, "cuEventRecord")
    }

    fn wait(&self, event: Event) -> Result<()> {
        let _context = self.enter()?;
        let event = self.live_event(event)?;
        // SAFETY: the event is live.
        self.poll("cuEventQuery", || unsafe { sys::cuEventQuery(event) })
    }

    fn elapsed(&self, from: Event, to: Event) -> Result<f32> {
        let _context = self.enter()?;
        let (from, to, mut milliseconds) = (self.live_event(from)?, self.live_event(to)?, 0.0);
        // SAFETY: the function has this type in every driver, and both events are live.
        let result = unsafe {
            // By name, as the bindings know its second version alone, which drivers before CUDA 12.8 lack.
            type Elapsed = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> CUresult;
            let elapsed = sys::culib().get::<Elapsed>(b"cuEventElapsedTime\0");
            let elapsed = elapsed.map_err(|why| Error::internal("cuEventElapsedTime", why.to_string()))?;
            elapsed(&raw mut milliseconds, from, to)
        };
        self.check(result, "cuEventElapsedTime")?;
        Ok(milliseconds)
    }

    fn release_event(&self, event: Event) {
        if self.live.lock().events.remove(&event.0) {
            // SAFETY: it was made here and is destroyed once.
            self.give_back("cuEventDestroy", || unsafe { sys::cuEventDestroy_v2(event.0 as sys::CUevent) });
        }
    }

    fn synchronize(&self) -> Result<()> {
        let _context = self.enter()?;
        // SAFETY: the stream is ours.
        self.poll("cuStreamQuery", || unsafe { sys::cuStreamQuery(self.stream) })
    }
}
