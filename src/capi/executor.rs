//! An executor: serves many requests on one engine at once. Submit, then await the responses (or give the request a callback).

use std::ffi::c_char;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use super::argument::{MAX_TEXT_BYTES, TEXT, buffer, check_pointer, flag, name, output, string};
use super::callback::{during_callback, refuse_during_callback};
use super::engine::{Loaded, trtllm_engine};
use super::handle::{self, Handle};
use super::panic::boundary;
use super::request::{Callback, trtllm_request};
use super::response::{self, trtllm_response};
use super::sampling::trtllm_sampling;
use super::sized::{self, Config, Growing};
use super::status::trtllm_status;
use crate::error::{Error, Result};
use crate::executor::{Executor, ExecutorConfig, ExecutorStats, Input, Request, RequestId, Response};
use crate::types::heap;

/// Stands for any request in `trtllm_executor_await`.
pub const TRTLLM_ANY_REQUEST: u64 = 0;
/// A timeout that never ends.
pub const TRTLLM_WAIT_FOREVER: i64 = -1;

/// An executor (handle).
pub struct trtllm_executor {
    _private: (),
}

impl Handle for trtllm_executor {
    type Object = Serving;
    const KIND: u8 = 5;
    const NAME: &'static str = "trtllm_executor";
}

/// Limits and resources of an executor. Start from `TRTLLM_EXECUTOR_CONFIG_INIT`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_executor_config {
    /// Set by `TRTLLM_EXECUTOR_CONFIG_INIT`.
    pub struct_size: usize,
    /// Hard limit in bytes on weights (mapped or not), workspace and cache together, on a GPU with kernels, graphs and
    /// page-locked memory; 0: none, which is the default.
    pub memory_budget: u64,
    /// Tokens that the KV cache holds; 0: what the budget leaves, or room for `max_batch_size` sequences without a budget.
    /// Default 0.
    pub kv_tokens: u64,
    /// Instruction set: `portable`, `avx2`, `avx512` or `avx512bf16`; NULL: the best of this machine, which is the default.
    pub isa: *const c_char,
    /// Sequences that run at once. Default 16.
    pub max_batch_size: u32,
    /// Tokens in one step, of all sequences together. Default 512.
    pub max_batch_tokens: u32,
    /// Most tokens of a request, prompt and output together; 0: the engine's, which is the default.
    pub max_sequence_tokens: u32,
    /// Requests beside `max_batch_size` of them; one more is refused with `TRTLLM_STATUS_QUEUE_FULL`. A request counts until
    /// its last response was taken or delivered. Default 1024.
    pub max_queue: u32,
    /// Responses kept for a request before their texts are joined for a slow consumer. Default 64.
    pub max_pending_responses: u32,
    /// CPU threads; 0: one for each available core, which is the default.
    pub threads: u32,
    /// 1: cached blocks of equal prefixes are used again. Default 1.
    pub prefix_reuse: i32,
    /// Index of the GPU that runs a CUDA engine. Default 0.
    pub device: u32,
    /// 1: machine code that came with a CUDA engine does not run. All kernels are compiled here, from the library's own
    /// sources, which needs NVRTC (or what it compiled before, in the user's cache). Default 0.
    pub refuse_stored_kernels: i32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: four words and ten half words; every bit pattern is valid.
unsafe impl Growing for trtllm_executor_config {
    const OLDEST_SIZE: usize = 64;
}
// SAFETY: begins with its size.
unsafe impl Config for trtllm_executor_config {}

const _: () = assert!(size_of::<trtllm_executor_config>() == 72);

impl Default for trtllm_executor_config {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            memory_budget: 0,
            kv_tokens: 0,
            isa: ptr::null(),
            max_batch_size: 16,
            max_batch_tokens: 512,
            max_sequence_tokens: 0,
            max_queue: 1024,
            max_pending_responses: 64,
            threads: 0,
            prefix_reuse: 1,
            device: 0,
            refuse_stored_kernels: 0,
            reserved: 0,
        }
    }
}

/// Counts of an executor since its creation, and its state as of its last step.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct trtllm_executor_stats {
    /// Steps that computed something.
    pub iterations: u64,
    /// Requests that ended by end of text, stop or length.
    pub completed: u64,
    pub cancelled: u64,
    /// Requests that ran past their time limit.
    pub expired: u64,
    pub failed: u64,
    /// How often a sequence had to give up its cache blocks.
    pub preemptions: u64,
    pub generated_tokens: u64,
    /// Requests whose last response was not yet taken or delivered.
    pub requests: u64,
    /// Prompt tokens that were looked up in the prefix cache.
    pub prefix_lookup_tokens: u64,
    /// Of these: found.
    pub prefix_hit_tokens: u64,
    /// Sequences with cache blocks.
    pub running: u64,
    /// Sequences without.
    pub waiting: u64,
    /// Tokens of the last step.
    pub batch_tokens: u64,
    /// Cache blocks that running sequences need; shared ones count once.
    pub kv_blocks_used: u64,
    /// Cache blocks kept for a prefix hit, given up when room is needed.
    pub kv_blocks_cached: u64,
    pub kv_blocks_free: u64,
    /// Nanoseconds of the last step.
    pub last_step_ns: u64,
    /// Nanoseconds spent in steps.
    pub busy_ns: u64,
    /// Bytes of weights (mapped or not), workspace and cache; on a GPU with kernels, graphs and page-locked memory.
    pub memory_bytes: u64,
    /// Nanoseconds of the last step on its device, from its first work to its last; on a CPU: of the computation.
    pub last_step_device_ns: u64,
    /// The same of all steps. What `busy_ns` has beyond it is time of the host that the device did not hide.
    pub device_busy_ns: u64,
    /// Nanoseconds that the device waited for its next step while there were requests.
    pub device_idle_ns: u64,
}

// SAFETY: twenty-two u64.
unsafe impl Growing for trtllm_executor_stats {
    const OLDEST_SIZE: usize = 152;
}

const _: () = assert!(size_of::<trtllm_executor_stats>() == 176);

impl From<&ExecutorStats> for trtllm_executor_stats {
    fn from(stats: &ExecutorStats) -> Self {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let totals = &stats.totals;
        Self {
            iterations: stats.iterations,
            completed: totals.completed,
            cancelled: totals.cancelled,
            expired: totals.expired,
            failed: totals.failed,
            preemptions: totals.preemptions,
            generated_tokens: totals.generated_tokens,
            requests: stats.requests as u64,
            prefix_lookup_tokens: stats.prefix_lookup_tokens,
            prefix_hit_tokens: stats.prefix_hit_tokens,
            running: stats.running as u64,
            waiting: stats.waiting as u64,
            batch_tokens: stats.batch_tokens as u64,
            kv_blocks_used: stats.kv.used as u64,
            kv_blocks_cached: stats.kv.cached as u64,
            kv_blocks_free: stats.kv.free as u64,
            last_step_ns: nanoseconds(stats.last_step),
            busy_ns: nanoseconds(stats.busy),
            memory_bytes: stats.memory_bytes,
            last_step_device_ns: nanoseconds(stats.last_step_device),
            device_busy_ns: nanoseconds(stats.device_busy),
            device_idle_ns: nanoseconds(stats.device_idle),
        }
    }
}

impl trtllm_executor_config {
    /// The core's config.
    ///
    /// # Safety
    /// `isa` is NULL or a string.
    unsafe fn to_core(self) -> Result<ExecutorConfig> {
        if self.reserved != 0 {
            return Err(Error::argument("config.reserved", "is not 0"));
        }
        let isa = match self.isa.is_null() {
            true => None,
            // SAFETY: as the caller promises.
            false => Some(unsafe { name(self.isa, "config.isa") }?.to_owned()),
        };
        Ok(ExecutorConfig {
            max_batch_size: self.max_batch_size as usize,
            max_batch_tokens: self.max_batch_tokens as usize,
            max_sequence_tokens: self.max_sequence_tokens as usize,
            max_queue: self.max_queue as usize,
            max_pending_responses: self.max_pending_responses as usize,
            kv_tokens: self.kv_tokens as usize,
            memory_budget: self.memory_budget,
            prefix_reuse: flag(self.prefix_reuse, "config.prefix_reuse")?,
            threads: self.threads as usize,
            isa,
            device: self.device as usize,
            refuse_stored_kernels: flag(self.refuse_stored_kernels, "config.refuse_stored_kernels")?,
        })
    }
}

/// An executor and the engine whose defaults its requests take.
pub struct Serving {
    executor: Executor,
    engine: Arc<Loaded>,
}

impl Serving {
    fn submit(&self, request: Request, callback: Option<Callback>) -> Result<RequestId> {
        match callback {
            Some(callback) => {
                self.executor.submit_with_callback(request, Box::new(move |response| call(&callback, response)))
            }
            None => self.executor.submit(request),
        }
    }

    fn take(&self, request_id: u64, timeout_ms: i64) -> Result<Response> {
        let filter = (request_id != TRTLLM_ANY_REQUEST).then_some(RequestId(request_id));
        let timeout = match timeout_ms {
            TRTLLM_WAIT_FOREVER => None,
            ms => Some(Duration::from_millis(u64::try_from(ms).map_err(|_| {
                Error::argument("timeout_ms", format!("is {ms}, not TRTLLM_WAIT_FOREVER or a number of milliseconds"))
            })?)),
        };
        let responses = self.executor.await_responses(filter, timeout, 1)?;
        responses.into_iter().next().ok_or_else(|| Error::internal("await", "no response and no error"))
    }
}

/// Lends a response to the caller's function.
fn call(callback: &Callback, response: Response) {
    // The executor takes a panic here as the end of a client and cancels its request.
    let place = handle::reserve().expect("2^24 handles are not alive at once, and there is memory for one more");
    let handle = response::deliver(response, place);
    // SAFETY: the C contract lets the function be called with its user data from any thread.
    during_callback(|| unsafe { (callback.function)(callback.user_data.pointer(), handle) });
    // The function may have destroyed its response itself, which is all the same.
    let _ = handle::remove(handle, "response");
}

/// Writes the defaults of `TRTLLM_EXECUTOR_CONFIG_INIT` into `config`, for languages without macros.
///
/// `struct_size`: the size of the caller's `trtllm_executor_config`.
/// Ownership: borrows `config`. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_executor_config_init(
    struct_size: usize,
    config: *mut trtllm_executor_config,
) -> trtllm_status {
    // SAFETY: as the C contract says.
    boundary("trtllm_executor_config_init", || unsafe { sized::init(config, struct_size, "config") })
}

/// Creates an executor and starts its threads; NULL for `config` means the defaults.
///
/// All memory is reserved here: a budget that does not suffice fails with `TRTLLM_STATUS_BUDGET_EXCEEDED`, and the message
/// has the figure that would; too little device memory with `TRTLLM_STATUS_OUT_OF_MEMORY`, and the message has needed and
/// free bytes. Ownership: borrows its arguments; returns an owned handle, which keeps the engine alive.
/// Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_executor_create(
    engine: *const trtllm_engine,
    config: *const trtllm_executor_config,
    executor: *mut *mut trtllm_executor,
) -> trtllm_status {
    boundary("trtllm_executor_create", || {
        let engine = handle::get(engine, "engine")?;
        // SAFETY: as the C contract says.
        let (config, place) = unsafe { (sized::read(config, "config")?.to_core()?, output(executor, "executor")?) };
        let executor = Executor::load(engine.engine(), config)?;
        place.write(handle::insert(Arc::new(Serving { executor, engine }))?);
        Ok(())
    })
}

/// Shuts an executor down and destroys it; NULL is fine. Unfinished requests end as in `trtllm_executor_shutdown`; responses
/// that nobody has taken are lost.
///
/// Waits for running callbacks: inside one it fails with `TRTLLM_STATUS_WOULD_DEADLOCK`, and the handle stays valid.
/// Ownership: takes `executor`. Thread safety: safe; calls that wait in other threads end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_executor_destroy(executor: *mut trtllm_executor) -> trtllm_status {
    boundary("trtllm_executor_destroy", || {
        refuse_during_callback("trtllm_executor_destroy")?;
        match handle::remove(executor, "executor")? {
            Some(serving) => serving.executor.shutdown(),
            None => Ok(()),
        }
    })
}

/// Accepts no more requests, cancels what waits or runs, delivers the final responses and stops the threads. Responses can
/// still be awaited afterwards. A second call does nothing.
///
/// Waits for running callbacks: inside one it fails with `TRTLLM_STATUS_WOULD_DEADLOCK`. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_executor_shutdown(executor: *mut trtllm_executor) -> trtllm_status {
    boundary("trtllm_executor_shutdown", || {
        refuse_during_callback("trtllm_executor_shutdown")?;
        handle::get(executor, "executor")?.executor.shutdown()
    })
}

/// Submits a request. `request_id` names it in every response; it is never 0 and never used again.
///
/// A request that can never be served is refused here: with impossible sampling parameters, tokens outside the vocabulary
/// (`TRTLLM_STATUS_INVALID_ARGUMENT`), or too many of them (`TRTLLM_STATUS_REQUEST_TOO_LARGE`). An accepted one ends
/// in exactly one response with `last` 1, also when it is cancelled or fails. With a callback the first response may come
/// before this call returns. Ownership: copies `request`. Thread safety: safe, also inside a callback.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_executor_submit(
    executor: *mut trtllm_executor,
    request: *const trtllm_request,
    request_id: *mut u64,
) -> trtllm_status {
    boundary("trtllm_executor_submit", || {
        let (serving, draft) = (handle::get(executor, "executor")?, handle::get(request, "request")?);
        // SAFETY: as the C contract says.
        let place = unsafe { output(request_id, "request_id") }?;
        let (request, callback) = {
            let draft = draft.lock();
            (draft.request(|| serving.engine.sampling())?, draft.callback())
        };
        place.write(serving.submit(request, callback)?.0);
        Ok(())
    })
}

/// Submits a prompt without a request object: a streaming request for `text`, which ends with a NUL (at most 16 MiB).
/// NULL for `sampling` means the engine's defaults.
///
/// As `trtllm_executor_submit`. Ownership: copies its arguments. Thread safety: safe, also inside a callback.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_executor_submit_text(
    executor: *mut trtllm_executor,
    text: *const c_char,
    sampling: *const trtllm_sampling,
    request_id: *mut u64,
) -> trtllm_status {
    boundary("trtllm_executor_submit_text", || {
        let serving = handle::get(executor, "executor")?;
        // SAFETY: as the C contract says.
        let (text, place) = unsafe { (string(text, MAX_TEXT_BYTES, "text")?, output(request_id, "request_id")?) };
        let mut request = Request::new(Input::Text(heap::text(text, "text")?));
        request.sampling = match sampling.is_null() {
            true => serving.engine.sampling(),
            // SAFETY: as the C contract says.
            false => unsafe { sized::read(sampling, "sampling") }?.to_params()?,
        };
        place.write(serving.submit(request, None)?.0);
        Ok(())
    })
}

/// Asks to end a request early. Its final response says whether it was cancelled or had ended before; a request that has
/// ended is no error.
///
/// Fails with `TRTLLM_STATUS_NOT_FOUND` for an id that this executor never gave. Thread safety: safe, also inside a callback.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_executor_cancel(executor: *mut trtllm_executor, request_id: u64) -> trtllm_status {
    boundary("trtllm_executor_cancel", || handle::get(executor, "executor")?.executor.cancel(RequestId(request_id)))
}

/// Waits for the next response of a request, or of any with `TRTLLM_ANY_REQUEST`.
///
/// `timeout_ms`: most milliseconds to wait; 0 only looks, `TRTLLM_WAIT_FOREVER` waits until there is one.
/// Fails with `TRTLLM_STATUS_TIMEOUT` when none came, `TRTLLM_STATUS_NOT_FOUND` when the request has ended and all its
/// responses were taken or it never existed, `TRTLLM_STATUS_INVALID_ARGUMENT` when it has a callback, and for any request
/// `TRTLLM_STATUS_SHUTTING_DOWN` when the executor was shut down and nothing is left. Ownership: returns an owned handle; destroy it with `trtllm_response_destroy`.
/// Thread safety: safe; several threads may wait, each response goes to one of them.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_executor_await(
    executor: *mut trtllm_executor,
    request_id: u64,
    timeout_ms: i64,
    response: *mut *mut trtllm_response,
) -> trtllm_status {
    boundary("trtllm_executor_await", || {
        let serving = handle::get(executor, "executor")?;
        // SAFETY: as the C contract says.
        let place = unsafe { output(response, "response") }?;
        let vacancy = handle::reserve()?;
        place.write(response::deliver(serving.take(request_id, timeout_ms)?, vacancy));
        Ok(())
    })
}

/// Waits as `trtllm_executor_await`, then takes all responses that are there, up to `capacity` (at least 1), in one call.
///
/// Ownership: writes `count` owned handles into `responses`; destroy each with `trtllm_response_destroy`.
/// Thread safety: safe; several threads may wait, each response goes to one of them.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_executor_await_many(
    executor: *mut trtllm_executor,
    request_id: u64,
    timeout_ms: i64,
    capacity: usize,
    responses: *mut *mut trtllm_response,
    count: *mut usize,
) -> trtllm_status {
    boundary("trtllm_executor_await_many", || {
        let serving = handle::get(executor, "executor")?;
        check_pointer(responses, "responses")?;
        // SAFETY: as the C contract says.
        let place = unsafe { output(count, "count") }?;
        if capacity == 0 {
            return Err(Error::argument("capacity", "is 0"));
        }
        let first = handle::reserve()?;
        let mut taken = 0;
        let mut give = |response, vacancy| {
            // SAFETY: the caller has room for `capacity` responses, and no more are taken.
            unsafe { responses.add(taken).write(response::deliver(response, vacancy)) };
            taken += 1;
            taken < capacity
        };
        let mut goes_on = give(serving.take(request_id, timeout_ms)?, first);
        // Whatever hinders the next one is told when somebody asks for it alone.
        while let (true, Ok(vacancy)) = (goes_on, handle::reserve()) {
            goes_on = serving.take(request_id, 0).is_ok_and(|response| give(response, vacancy));
        }
        place.write(taken);
        Ok(())
    })
}

/// OK while the executor serves; otherwise the status and message of what stopped it.
///
/// Thread safety: safe, also inside a callback.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_executor_check_health(executor: *const trtllm_executor) -> trtllm_status {
    boundary("trtllm_executor_check_health", || handle::get(executor, "executor")?.executor.health())
}

/// Fills `stats` with the executor's counts.
///
/// `stats_size`: the size of the caller's `trtllm_executor_stats`.
/// Ownership: borrows `stats`. Thread safety: safe, also inside a callback.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_executor_get_stats(
    executor: *const trtllm_executor,
    stats_size: usize,
    stats: *mut trtllm_executor_stats,
) -> trtllm_status {
    boundary("trtllm_executor_get_stats", || {
        let value = trtllm_executor_stats::from(&handle::get(executor, "executor")?.executor.stats());
        // SAFETY: as the C contract says.
        unsafe { sized::write(&value, stats_size, "stats_size", stats, "stats") }
    })
}

/// The same counts as a JSON object; times are in seconds.
///
/// Ownership: copies into `buffer`, see "Results of unknown size" in trtllm.h. The counts may grow between a size query
/// and the next call: give some room. Thread safety: safe, also inside a callback.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_executor_stats_json(
    executor: *const trtllm_executor,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> trtllm_status {
    boundary("trtllm_executor_stats_json", || {
        let serving = handle::get(executor, "executor")?;
        // SAFETY: as the C contract says.
        unsafe { self::buffer(buffer, capacity, length, TEXT) }?.write_text(&serving.executor.stats().to_json())
    })
}

/// The latest steps, 1024 at most and oldest first, as a JSON array: rows, tokens, cache blocks and duration of each.
///
/// Ownership: copies into `buffer`, see "Results of unknown size" in trtllm.h. The array may grow between a size query and
/// the next call: give some room. Thread safety: safe, also inside a callback.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_executor_iterations_json(
    executor: *const trtllm_executor,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> trtllm_status {
    boundary("trtllm_executor_iterations_json", || {
        let serving = handle::get(executor, "executor")?;
        // SAFETY: as the C contract says.
        unsafe { self::buffer(buffer, capacity, length, TEXT) }?.write_text(&serving.executor.iterations_json()?)
    })
}
