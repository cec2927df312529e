//! The CUDA driver, opened at run time.

use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::sys::{self, CUresult};

use super::driver::{
    Address, Arch, DeviceInfo, Driver, Event, Function, Graph, Launch, MapElement, MapSpec, Module, TensorMap,
};
use crate::error::{Error, Result};

/// Most arguments of a kernel.
const MOST_ARGUMENTS: usize = 32;
/// Event queries between two naps: waiting for a step of milliseconds by sleeping alone would cost tens of microseconds.
const SPINS: u32 = 2000;

/// One device of this machine, with a stream of its own. The device's primary context is shared with whoever uses it in the
/// same process.
pub struct RealDriver {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    info: DeviceInfo,
    lost: AtomicBool,
}

// SAFETY: contexts and streams may be used from any thread; every call makes the context current first.
unsafe impl Send for RealDriver {}
// SAFETY: as above; the driver itself serialises calls.
unsafe impl Sync for RealDriver {}

impl RealDriver {
    /// Opens device `index`.
    ///
    /// # Errors
    /// `DeviceUnavailable` saying what is missing: the driver's library, the device, a compute capability of 8.0.
    pub fn open(index: usize) -> Result<Arc<dyn Driver>> {
        // SAFETY: only looks for the library.
        if !unsafe { sys::is_culib_present() } {
            return Err(unavailable("cuda", "libcuda.so.1 was not found: is an NVIDIA driver installed?"));
        }
        // SAFETY: plain calls into the driver with places for their results.
        unsafe {
            start("cuInit", sys::cuInit(0))?;
            let mut count: c_int = 0;
            start("cuDeviceGetCount", sys::cuDeviceGetCount(&raw mut count))?;
            if index >= usize::try_from(count).unwrap_or(0) {
                return Err(unavailable(&format!("cuda:{index}"), &format!("there are {count} CUDA devices")));
            }
            let mut device = 0;
            start("cuDeviceGet", sys::cuDeviceGet(&raw mut device, index as c_int))?;
            let info = describe(device)?;
            if info.arch.major < 8 {
                let why = format!("{} has compute capability {}; 8.0 is the least", info.name, info.arch);
                return Err(unavailable(&format!("cuda:{index}"), &why));
            }
            let mut context = ptr::null_mut();
            start("cuDevicePrimaryCtxRetain", sys::cuDevicePrimaryCtxRetain(&raw mut context, device))?;
            let mut driver = Self { device, context, stream: ptr::null_mut(), info, lost: AtomicBool::new(false) };
            driver.enter()?;
            let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
            let mut stream = ptr::null_mut();
            driver.check("cuStreamCreate", sys::cuStreamCreate(&raw mut stream, flags))?;
            driver.stream = stream;
            Ok(Arc::new(driver))
        }
    }

    fn enter(&self) -> Result<()> {
        if self.lost.load(Ordering::Relaxed) {
            return Err(self.gone("an earlier fault"));
        }
        // SAFETY: the context is retained for as long as the driver lives.
        self.check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.context) })
    }

    fn gone(&self, why: &str) -> Error {
        Error::DeviceLost { what: self.info.name.clone(), why: why.into() }
    }

    fn check(&self, call: &str, result: CUresult) -> Result<()> {
        use CUresult as R;
        match result {
            R::CUDA_SUCCESS => Ok(()),
            R::CUDA_ERROR_OUT_OF_MEMORY => {
                Err(Error::OutOfMemory { what: self.info.name.clone(), why: format!("{call}: {}", text(result)) })
            }
            R::CUDA_ERROR_ILLEGAL_ADDRESS
            | R::CUDA_ERROR_LAUNCH_FAILED
            | R::CUDA_ERROR_LAUNCH_TIMEOUT
            | R::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | R::CUDA_ERROR_MISALIGNED_ADDRESS
            | R::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | R::CUDA_ERROR_INVALID_PC
            | R::CUDA_ERROR_HARDWARE_STACK_ERROR
            | R::CUDA_ERROR_ECC_UNCORRECTABLE
            | R::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | R::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | R::CUDA_ERROR_ASSERT
            | R::CUDA_ERROR_TENSOR_MEMORY_LEAK
            | R::CUDA_ERROR_UNKNOWN => {
                self.lost.store(true, Ordering::Relaxed);
                Err(self.gone(&format!("{call}: {}", text(result))))
            }
            _ => Err(Error::internal(call, text(result))),
        }
    }
}

unsafe fn describe(device: sys::CUdevice) -> Result<DeviceInfo> {
    use sys::CUdevice_attribute as A;
    let attribute = |which: A| {
        let mut value: c_int = 0;
        // SAFETY: a place for the result, a device that exists.
        start("cuDeviceGetAttribute", unsafe { sys::cuDeviceGetAttribute(&raw mut value, which, device) })?;
        Ok(usize::try_from(value).unwrap_or(0))
    };
    let (mut name, mut total, mut version) = ([0; 128], 0, 0);
    // SAFETY: places of the sizes that are given.
    unsafe {
        start("cuDeviceGetName", sys::cuDeviceGetName(name.as_mut_ptr(), 127, device))?;
        start("cuDeviceTotalMem", sys::cuDeviceTotalMem_v2(&raw mut total, device))?;
        start("cuDriverGetVersion", sys::cuDriverGetVersion(&raw mut version))?;
    }
    // SAFETY: the driver ends the name with a NUL, and the last byte is one.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    Ok(DeviceInfo {
        name,
        arch: Arch {
            major: attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? as u32,
            minor: attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)? as u32,
        },
        multiprocessors: attribute(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_bytes: attribute(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        total_bytes: total,
        driver_version: version as u32,
    })
}

/// CUDA's name and description of a result.
fn text(result: CUresult) -> String {
    let part = |get: unsafe fn(CUresult, *mut *const std::ffi::c_char) -> CUresult| {
        let mut text = ptr::null();
        // SAFETY: a place for a pointer to a static string.
        match unsafe { get(result, &raw mut text) } {
            CUresult::CUDA_SUCCESS if !text.is_null() => {
                // SAFETY: as the driver says.
                unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
            }
            _ => format!("{result:?}"),
        }
    };
    format!("{} ({})", part(sys::cuGetErrorString), part(sys::cuGetErrorName))
}

fn unavailable(what: &str, why: &str) -> Error {
    Error::DeviceUnavailable { what: what.into(), why: why.into() }
}

/// A result from before there is a device.
fn start(call: &str, result: CUresult) -> Result<()> {
    match result {
        CUresult::CUDA_SUCCESS => Ok(()),
        other => Err(unavailable("cuda", &format!("{call}: {}", text(other)))),
    }
}

impl Driver for RealDriver {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn free_bytes(&self) -> Result<usize> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: places for both results.
        self.check("cuMemGetInfo", unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) })?;
        Ok(free)
    }

    fn allocate(&self, bytes: usize, what: &str) -> Result<Address> {
        self.enter()?;
        let mut address = 0;
        // SAFETY: a place for the result.
        match unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes) } {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let free = self.free_bytes()?;
                let why = format!("{bytes} bytes are needed, {free} are free on {}", self.info.name);
                Err(Error::OutOfMemory { what: what.into(), why })
            }
            result => self.check("cuMemAlloc", result).map(|()| address),
        }
    }

    fn release(&self, address: Address) {
        if address != 0 && self.enter().is_ok() {
            // SAFETY: `allocate` gave the address; whoever owned it is gone.
            let _ = unsafe { sys::cuMemFree_v2(address) };
        }
    }

    fn allocate_pinned(&self, bytes: usize, what: &str) -> Result<*mut u8> {
        self.enter()?;
        let mut pointer: *mut c_void = ptr::null_mut();
        // SAFETY: a place for the result.
        match unsafe { sys::cuMemAllocHost_v2(&raw mut pointer, bytes) } {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let why = format!("{bytes} bytes of page-locked host memory are needed");
                return Err(Error::OutOfMemory { what: what.into(), why });
            }
            result => self.check("cuMemAllocHost", result)?,
        }
        // SAFETY: the memory is this large and ours.
        unsafe { pointer.cast::<u8>().write_bytes(0, bytes) };
        Ok(pointer.cast())
    }

    fn release_pinned(&self, pointer: *mut u8) {
        // SAFETY: `allocate_pinned` gave it; with a lost context the driver only says no.
        unsafe {
            let _ = sys::cuCtxSetCurrent(self.context);
            let _ = sys::cuMemFreeHost(pointer.cast());
        }
    }

    unsafe fn upload(&self, to: Address, from: *const u8, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller's.
        self.check("cuMemcpyHtoDAsync", unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.cast(), bytes, self.stream) })
    }

    unsafe fn download(&self, to: *mut u8, from: Address, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller's.
        self.check("cuMemcpyDtoHAsync", unsafe { sys::cuMemcpyDtoHAsync_v2(to.cast(), from, bytes, self.stream) })
    }

    unsafe fn fill(&self, to: Address, bytes: usize, byte: u8) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller's.
        self.check("cuMemsetD8Async", unsafe { sys::cuMemsetD8Async(to, byte, bytes, self.stream) })
    }

    fn load(&self, cubin: &[u8], what: &str) -> Result<Module> {
        self.enter()?;
        let mut module = ptr::null_mut();
        // SAFETY: the driver checks the image.
        let result = unsafe { sys::cuModuleLoadData(&raw mut module, cubin.as_ptr().cast()) };
        self.check("cuModuleLoadData", result).map_err(|error| error.within(what))?;
        Ok(Module(module as u64))
    }

    fn unload(&self, module: Module) {
        if self.enter().is_ok() {
            // SAFETY: `load` gave it; its functions are no longer used.
            let _ = unsafe { sys::cuModuleUnload(module.0 as sys::CUmodule) };
        }
    }

    fn function(&self, module: Module, entry: &str, shared: u32) -> Result<Function> {
        self.enter()?;
        let name = CString::new(entry).map_err(|_| Error::internal("kernel entry", "it has a NUL"))?;
        let mut function = ptr::null_mut();
        // SAFETY: `load` gave the module.
        let result = unsafe { sys::cuModuleGetFunction(&raw mut function, module.0 as sys::CUmodule, name.as_ptr()) };
        self.check("cuModuleGetFunction", result).map_err(|error| error.within(entry))?;
        if shared > 48 << 10 {
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function exists.
            let result = unsafe { sys::cuFuncSetAttribute(function, most, shared as c_int) };
            self.check("cuFuncSetAttribute", result).map_err(|error| error.within(entry))?;
        }
        Ok(Function(function as u64))
    }

    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        self.enter()?;
        let mut pointers = [ptr::null_mut::<c_void>(); MOST_ARGUMENTS];
        if launch.arguments.len() > MOST_ARGUMENTS {
            return Err(Error::internal("launch", format!("{} arguments", launch.arguments.len())));
        }
        for (pointer, argument) in pointers.iter_mut().zip(&launch.arguments) {
            *pointer = argument.pointer().cast_mut();
        }
        // SAFETY: all-zero is a valid attribute.
        let mut attributes: [sys::CUlaunchAttribute; 2] = unsafe { std::mem::zeroed() };
        let mut count = 0;
        if launch.dependent {
            attributes[count].id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
            attributes[count].value.programmaticStreamSerializationAllowed = 1;
            count += 1;
        }
        if launch.cluster > 1 {
            attributes[count].id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
            // SAFETY: every field of the union is plain data.
            unsafe {
                attributes[count].value.clusterDim.x = launch.cluster;
                attributes[count].value.clusterDim.y = 1;
                attributes[count].value.clusterDim.z = 1;
            }
            count += 1;
        }
        let config = sys::CUlaunchConfig {
            gridDimX: launch.grid[0],
            gridDimY: launch.grid[1],
            gridDimZ: launch.grid[2],
            blockDimX: launch.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.shared,
            hStream: self.stream,
            attrs: attributes.as_mut_ptr(),
            numAttrs: count as u32,
        };
        let function = launch.function.0 as sys::CUfunction;
        // SAFETY: the caller's; the arguments' bytes outlive the call, which copies them.
        let result =
            unsafe { sys::cuLaunchKernelEx(&raw const config, function, pointers.as_mut_ptr(), ptr::null_mut()) };
        self.check("cuLaunchKernelEx", result)
    }

    fn tensor_map(&self, spec: &MapSpec) -> Result<TensorMap> {
        use sys::CUtensorMapDataType as T;
        self.enter()?;
        let element = match spec.element {
            MapElement::Byte => T::CU_TENSOR_MAP_DATA_TYPE_UINT8,
            MapElement::Half => T::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            MapElement::Bf16 => T::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        };
        // SAFETY: plain data.
        let mut map: sys::CUtensorMap = unsafe { std::mem::zeroed() };
        let dims = [spec.columns as u64, spec.rows as u64];
        let strides = [spec.row_bytes as u64];
        let extent = [spec.box_columns as u32, spec.box_rows as u32];
        // SAFETY: arrays of the rank that is given.
        let result = unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                element,
                2,
                spec.address as *mut c_void,
                dims.as_ptr(),
                strides.as_ptr(),
                extent.as_ptr(),
                [1, 1].as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        self.check("cuTensorMapEncodeTiled", result).map_err(|error| error.within(&format!("{spec:?}")))?;
        // SAFETY: both are 128 bytes of plain data.
        Ok(TensorMap(unsafe { std::mem::transmute::<[u64; 16], [u8; 128]>(map.opaque) }))
    }

    fn begin_capture(&self) -> Result<()> {
        self.enter()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is ours.
        self.check("cuStreamBeginCapture", unsafe { sys::cuStreamBeginCapture_v2(self.stream, mode) })
    }

    fn end_capture(&self) -> Result<Graph> {
        self.enter()?;
        let (mut graph, mut ready) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the stream is ours; the template is destroyed once the executable graph exists.
        unsafe {
            self.check("cuStreamEndCapture", sys::cuStreamEndCapture(self.stream, &raw mut graph))?;
            let made = self.check("cuGraphInstantiate", sys::cuGraphInstantiateWithFlags(&raw mut ready, graph, 0));
            let _ = sys::cuGraphDestroy(graph);
            made?;
            self.check("cuGraphUpload", sys::cuGraphUpload(ready, self.stream))?;
        }
        Ok(Graph(ready as u64))
    }

    unsafe fn launch_graph(&self, graph: Graph) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller's.
        self.check("cuGraphLaunch", unsafe { sys::cuGraphLaunch(graph.0 as sys::CUgraphExec, self.stream) })
    }

    fn release_graph(&self, graph: Graph) {
        if self.enter().is_ok() {
            // SAFETY: `end_capture` gave it.
            let _ = unsafe { sys::cuGraphExecDestroy(graph.0 as sys::CUgraphExec) };
        }
    }

    fn event(&self, timed: bool) -> Result<Event> {
        self.enter()?;
        let flags = if timed { 0 } else { sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32 };
        let mut event = ptr::null_mut();
        // SAFETY: a place for the result.
        self.check("cuEventCreate", unsafe { sys::cuEventCreate(&raw mut event, flags) })?;
        Ok(Event(event as u64))
    }

    fn record(&self, event: Event) -> Result<()> {
        self.enter()?;
        // SAFETY: `event` gave it.
        self.check("cuEventRecord", unsafe { sys::cuEventRecord(event.0 as sys::CUevent, self.stream) })
    }

    fn wait(&self, event: Event) -> Result<()> {
        self.enter()?;
        let mut spins = 0;
        loop {
            // SAFETY: `event` gave it.
            match unsafe { sys::cuEventQuery(event.0 as sys::CUevent) } {
                CUresult::CUDA_ERROR_NOT_READY if spins < SPINS => std::hint::spin_loop(),
                CUresult::CUDA_ERROR_NOT_READY => std::thread::yield_now(),
                result => return self.check("cuEventQuery", result),
            }
            spins += 1;
        }
    }

    fn elapsed(&self, from: Event, to: Event) -> Result<f32> {
        self.enter()?;
        let mut milliseconds = 0.0;
        // SAFETY: `event` gave both.
        let result =
            unsafe { sys::cuEventElapsedTime_v2(&raw mut milliseconds, from.0 as sys::CUevent, to.0 as sys::CUevent) };
        self.check("cuEventElapsedTime", result).map(|()| milliseconds)
    }

    fn release_event(&self, event: Event) {
        if self.enter().is_ok() {
            // SAFETY: `event` gave it.
            let _ = unsafe { sys::cuEventDestroy_v2(event.0 as sys::CUevent) };
        }
    }

    fn synchronize(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream is ours.
        self.check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.stream) })
    }
}

impl Drop for RealDriver {
    fn drop(&mut self) {
        // SAFETY: nobody uses the stream any more; with a lost context the driver only says no.
        unsafe {
            let _ = sys::cuCtxSetCurrent(self.context);
            if !self.stream.is_null() {
                let _ = sys::cuStreamDestroy_v2(self.stream);
            }
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}
