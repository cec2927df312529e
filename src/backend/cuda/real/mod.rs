//! The driver of a real device: its primary context and one stream of our own in it.

mod calls;
mod fault;
pub(super) mod launch;
mod matmul;
mod probe;

use std::collections::{HashMap, HashSet};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cudarc::driver::sys::{self, CUcontext, CUdevice, CUresult, CUstream, CUstreamCaptureMode};
use fault::Fault;
use matmul::Matmuls;
use parking_lot::Mutex;

use super::driver::{Address, DeviceInfo, Driver, Event};
use crate::error::{Error, Result};

/// A real device. Dropping it waits for its stream and gives back whatever was not released.
pub struct RealDriver {
    info: DeviceInfo,
    /// The device as errors name it.
    label: String,
    device: CUdevice,
    context: CUcontext,
    stream: CUstream,
    /// Why the device is gone, once it is. Its context answers nothing any more; what lives in it ends with the context.
    lost: OnceLock<Error>,
    capturing: AtomicBool,
    live: Mutex<Live>,
    matmuls: Mutex<Matmuls>,
}

/// Everything not given back yet.
#[derive(Default)]
struct Live {
    memory: HashSet<Address>,
    pinned: HashSet<usize>,
    modules: HashSet<u64>,
    functions: HashMap<u64, Loaded>,
    graphs: HashSet<u64>,
    events: HashSet<u64>,
}

/// A function of a module.
struct Loaded {
    module: u64,
    /// For errors.
    name: String,
    /// Dynamic shared memory that it may have.
    shared: u32,
}

// SAFETY: the handles inside are the driver API's, which may be used from any thread; each call makes the context current.
unsafe impl Send for RealDriver {}
// SAFETY: as above; our own state is behind locks.
unsafe impl Sync for RealDriver {}

/// The context is current on this thread while this lives; what was current before returns then, as programs that use
/// CUDA themselves expect.
struct Entered {
    pushed: bool,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.pushed {
            let mut context = null_mut();
            // SAFETY: pops what `enter` pushed on this thread.
            unsafe { sys::cuCtxPopCurrent_v2(&raw mut context) };
        }
    }
}

impl RealDriver {
    /// Opens the device with this index and gives it a stream.
    ///
    /// # Errors
    /// `DeviceUnavailable` naming what is missing: the library, the driver, the device, its capability.
    pub fn open(index: usize) -> Result<Arc<dyn Driver>> {
        let (device, info) = probe::device(index)?;
        let label = format!("{} ({})", probe::label(index), info.name);
        let mut context = null_mut();
        // SAFETY: `device` is one of the initialised driver's.
        let retained = unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut context, device) };
        if retained != CUresult::CUDA_SUCCESS {
            let why = format!("its context cannot be opened: {}", probe::name_of(retained));
            return Err(Error::DeviceUnavailable { what: label, why });
        }
        let mut driver = Self {
            info,
            label,
            device,
            context,
            stream: null_mut(),
            lost: OnceLock::new(),
            capturing: AtomicBool::new(false),
            live: Mutex::default(),
            matmuls: Mutex::default(),
        };
        driver.stream = driver.new_stream()?;
        Ok(Arc::new(driver))
    }

    fn new_stream(&self) -> Result<CUstream> {
        let _context = self.enter()?;
        let mut stream = null_mut();
        let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the context is current.
        self.check(unsafe { sys::cuStreamCreate(&raw mut stream, flags) }, "cuStreamCreate")?;
        Ok(stream)
    }

    /// Makes the context current; fails with the loss of a lost device.
    fn enter(&self) -> Result<Entered> {
        if let Some(lost) = self.lost.get() {
            return Err(lost.clone());
        }
        let mut current = null_mut();
        // SAFETY: the driver is initialised.
        if unsafe { sys::cuCtxGetCurrent(&raw mut current) } == CUresult::CUDA_SUCCESS && current == self.context {
            return Ok(Entered { pushed: false });
        }
        // SAFETY: the context is retained until drop.
        self.check(unsafe { sys::cuCtxPushCurrent_v2(self.context) }, "cuCtxPushCurrent")?;
        Ok(Entered { pushed: true })
    }

    /// The error of a failed call; the loss of the device is remembered.
    fn check(&self, result: CUresult, call: &str) -> Result<()> {
        if result == CUresult::CUDA_SUCCESS {
            return Ok(());
        }
        let error = Fault { code: result as u32, name: &probe::name_of(result), call }.error(&self.label);
        match error {
            Error::DeviceLost { .. } => Err(self.lost.get_or_init(|| error).clone()),
            other => Err(other),
        }
    }

    /// As [`RealDriver::check`] for memory: needed and free bytes are told.
    fn check_memory(&self, result: CUresult, call: &str, what: &str, bytes: usize, kind: &str) -> Result<()> {
        self.check(result, call).map_err(|error| match error {
            Error::OutOfMemory { .. } => {
                let free = self.free_bytes().map_or("an unknown number of".into(), |free| free.to_string());
                let why = format!("{bytes} bytes of {kind} are needed, {free} bytes are free on {}", self.label);
                Error::OutOfMemory { what: what.into(), why }
            }
            other => other,
        })
    }

    /// Runs a release; on a lost device it is left to the context's end.
    fn give_back(&self, call: &str, release: impl FnOnce() -> CUresult) {
        let Ok(_context) = self.enter() else { return };
        // A loss is remembered and told by the next call that can fail.
        let _ = self.check(self.relaxed(release), call);
    }

    /// Runs what a thread that captures may not do in its mode, such as freeing when it gives up halfway.
    fn relaxed<R>(&self, call: impl FnOnce() -> R) -> R {
        if !self.capturing.load(Ordering::Relaxed) {
            return call();
        }
        let mut mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: swaps this thread's mode with `mode`.
        unsafe { sys::cuThreadExchangeStreamCaptureMode(&raw mut mode) };
        let result = call();
        // SAFETY: as above, back again.
        unsafe { sys::cuThreadExchangeStreamCaptureMode(&raw mut mode) };
        result
    }

    /// Asks until the answer is not "not ready". Blocking waits of the driver wake tens of microseconds late, which a
    /// decode step of a few milliseconds notices: short waits spin, longer ones let other threads run in between, and
    /// only waits that are long anyhow sleep.
    fn poll(&self, call: &str, query: impl Fn() -> CUresult) -> Result<()> {
        const SPIN: Duration = Duration::from_micros(50);
        const YIELD: Duration = Duration::from_millis(10);
        const SLEEP: Duration = Duration::from_micros(50);
        let start = Instant::now();
        loop {
            match query() {
                CUresult::CUDA_ERROR_NOT_READY => {}
                other => return self.check(other, call),
            }
            match start.elapsed() {
                waited if waited < SPIN => (0..32).for_each(|_| std::hint::spin_loop()),
                waited if waited < YIELD => std::thread::yield_now(),
                _ => std::thread::sleep(SLEEP),
            }
        }
    }

    fn live_event(&self, event: Event) -> Result<sys::CUevent> {
        match self.live.lock().events.contains(&event.0) {
            true => Ok(event.0 as sys::CUevent),
            false => Err(Error::internal("event", "it was released or never made")),
        }
    }
}

impl Drop for RealDriver {
    fn drop(&mut self) {
        self.end_stream();
        // SAFETY: retained once in `open`. Of a lost device this is what gives everything back.
        unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

impl RealDriver {
    /// Waits for the stream and gives back what is still alive, then the stream itself.
    fn end_stream(&mut self) {
        if self.stream.is_null() {
            return;
        }
        if *self.capturing.get_mut() {
            // What was recorded is wanted by nobody.
            let _ = self.end_capture();
        }
        // Of a lost device nothing below does anything; the loss was told where it was found.
        let _ = self.synchronize();
        self.end_matmuls();
        let live = std::mem::take(self.live.get_mut());
        let stream = self.stream;
        // SAFETY: each handle was made by this driver, is still alive, and the stream that used it is empty.
        unsafe {
            live.graphs.iter().for_each(|&x| self.give_back("cuGraphExecDestroy", || sys::cuGraphExecDestroy(x as _)));
            live.events.iter().for_each(|&x| self.give_back("cuEventDestroy", || sys::cuEventDestroy_v2(x as _)));
            live.modules.iter().for_each(|&x| self.give_back("cuModuleUnload", || sys::cuModuleUnload(x as _)));
            live.memory.iter().for_each(|&x| self.give_back("cuMemFree", || sys::cuMemFree_v2(x)));
            live.pinned.iter().for_each(|&x| self.give_back("cuMemFreeHost", || sys::cuMemFreeHost(x as _)));
            self.give_back("cuStreamDestroy", || sys::cuStreamDestroy_v2(stream));
        }
    }
}

#[cfg(test)]
mod tests;
