//! Bytes read as a program of C calls: requests and sampling structs with arbitrary fields, sizes, arrays and texts,
//! submitted to executors of a small engine; handles are stale, of another type, NULL or numbers, and are destroyed in any
//! order. Every status is right. What must hold: no panic, every accepted request ends, user data is freed once, nothing
//! of a request stays behind.

use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr::{self, null, null_mut, without_provenance_mut};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use trtllm::capi::engine::*;
use trtllm::capi::executor::*;
use trtllm::capi::request::*;
use trtllm::capi::response::*;
use trtllm::capi::sampling::*;
use trtllm::capi::status::{trtllm_last_error_message, trtllm_status};
use trtllm::engine::SectionKind;

use super::{ENGINE, TEMPLATE, TOKENIZER, with_section};

/// Most calls of one program: what a longer one finds, several short ones find sooner.
const MOST_CALLS: usize = 64;
/// Bytes that an executor of a program may take.
const BUDGET: u64 = 24 << 20;
/// Within this an executor is idle after all its requests were cancelled.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs a program; whether it submitted a request that was accepted.
pub fn run(program: &[u8]) -> bool {
    let mut calls = Calls::new(program);
    for _ in 0..MOST_CALLS {
        let Some(call) = calls.input.byte() else { break };
        calls.make(call);
    }
    calls.finish()
}

/// What all programs share: an engine with tokenizer and template, and an executor that lives on.
struct Shared {
    engine_path: CString,
    engine: usize,
    executor: usize,
}

static SHARED: LazyLock<Shared> = LazyLock::new(|| {
    let with_tokenizer = with_section(ENGINE, SectionKind::Tokenizer, TOKENIZER);
    let engine = with_section(&with_tokenizer, SectionKind::ChatTemplate, TEMPLATE);
    let mut file = tempfile::tempfile().expect("a temporary file");
    std::io::Write::write_all(&mut file, &engine).expect("the file is writable");
    let engine_path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("a path has no NUL");
    // The file is open as long as the process.
    std::mem::forget(file);
    let (mut engine, mut executor) = (null_mut(), null_mut());
    let config = trtllm_executor_config { threads: 1, max_batch_size: 4, kv_tokens: 128, ..Default::default() };
    // SAFETY: a path, no config, a place; the engine, a config, a place.
    unsafe {
        assert_eq!(trtllm_engine_load(engine_path.as_ptr(), null(), &mut engine), trtllm_status::Ok);
        assert_eq!(trtllm_executor_create(engine, &config, &mut executor), trtllm_status::Ok);
    }
    Shared { engine_path, engine: engine.addr(), executor: executor.addr() }
});

/// The bytes of a program as they are read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next byte, 0 after the end.
    fn small(&mut self) -> usize {
        usize::from(self.byte().unwrap_or(0))
    }

    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn word(&mut self) -> u64 {
        let mut word = [0; 8];
        let bytes = self.bytes(8);
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    }

    /// An array with its length; now and then NULL, or a length that no caller can mean.
    fn array(&mut self) -> (&'a [u8], *const u8, usize) {
        match self.small() {
            255 => (&[], ptr::dangling(), usize::MAX - self.small()),
            254 => (&[], null(), self.small()),
            length => {
                let bytes = self.bytes(length);
                (bytes, bytes.as_ptr(), bytes.len())
            }
        }
    }

    /// As [`Input::array`], of token ids.
    fn tokens(&mut self) -> (Vec<u32>, *const u32, usize) {
        let (bytes, start, count) = self.array();
        let token = |byte: &u8| if *byte == 255 { u32::MAX } else { u32::from(*byte) };
        let tokens: Vec<u32> = bytes.iter().map(token).collect();
        let start = if start.is_null() { null() } else { tokens.as_ptr() };
        (tokens, start, count)
    }

    /// A config struct of `size` bytes: its size first, as long as it claims to be, then what the program says.
    fn config(&mut self, size: usize) -> Vec<u64> {
        let claimed = match self.small() {
            0 => self.word(),
            1 => size as u64 + self.small() as u64,
            _ => size as u64,
        };
        // A size that is no struct's is refused before anything behind it is read.
        let readable = usize::try_from(claimed).unwrap_or(usize::MAX).clamp(8, 1 << 16);
        let mut words = vec![0; readable.div_ceil(8)];
        words[0] = claimed;
        words.iter_mut().take(size / 8).skip(1).for_each(|word| *word = self.word());
        words
    }
}

/// The state of a program: handles by number (stale ones stay), and what its executors owe.
struct Calls<'a> {
    input: Input<'a>,
    requests: [usize; 3],
    responses: [usize; 3],
    engine: usize,
    executor: usize,
    submitted: Vec<u64>,
    accepted: bool,
    callbacks: usize,
}

impl<'a> Calls<'a> {
    fn new(program: &'a [u8]) -> Self {
        FREED.store(0, Ordering::SeqCst);
        let (requests, responses) = ([0; 3], [0; 3]);
        let mut calls = Self {
            input: Input(program),
            requests,
            responses,
            engine: 0,
            executor: 0,
            submitted: Vec::new(),
            accepted: false,
            callbacks: 0,
        };
        calls.requests[0] = created(|place| unsafe { trtllm_request_create(place) });
        calls
    }

    /// A handle of the program's kind `own`, or something else.
    fn handle<T>(&mut self, own: &[usize]) -> *mut T {
        let choice = self.input.small();
        let address = match choice % 16 {
            15 => 0,
            14 => self.executor,
            13 => self.requests[0],
            12 => self.input.word() as usize,
            _ => own[choice % own.len()],
        };
        without_provenance_mut(address)
    }

    /// The same for a call that destroys: what all programs share must live on.
    fn doomed<T>(&mut self, own: &[usize]) -> *mut T {
        let handle: *mut T = self.handle(own);
        let kept = handle.addr() == SHARED.engine || handle.addr() == SHARED.executor;
        if kept { null_mut() } else { handle }
    }

    fn request(&mut self) -> *mut trtllm_request {
        let own = self.requests;
        self.handle(&own)
    }

    fn response(&mut self) -> *mut trtllm_response {
        let own = self.responses;
        self.handle(&own)
    }

    fn executor(&mut self) -> *mut trtllm_executor {
        let own = [SHARED.executor, self.executor];
        self.handle(&own)
    }

    fn engine(&mut self) -> *mut trtllm_engine {
        let own = [SHARED.engine, self.engine];
        self.handle(&own)
    }

    fn id(&mut self) -> u64 {
        match self.input.small() {
            255 => self.input.word(),
            0 => TRTLLM_ANY_REQUEST,
            choice => self.submitted.get(choice % self.submitted.len().max(1)).copied().unwrap_or(1),
        }
    }

    /// One call. Pointers are valid or NULL, and lengths that claim more are refused before anything is read.
    fn make(&mut self, call: u8) {
        match call % 24 {
            0 => self.create_request(),
            1 => self.destroy(),
            2..=4 => self.set_prompt(call % 24),
            5 | 6 => self.set_sampling(),
            7 | 8 => self.add_stop(call % 24),
            9 => self.set_numbers(),
            10 => self.set_salt(),
            11 => self.set_callback(),
            12..=14 => self.submit(),
            15 => self.submit_text(),
            16 => self.cancel(),
            17 | 18 => self.take(),
            19 | 20 => self.look(),
            21 => self.ask(),
            22 => self.load(),
            _ => self.serve(),
        }
    }

    fn create_request(&mut self) {
        let slot = self.input.small() % self.requests.len();
        let old = self.requests[slot];
        // SAFETY: a handle, living or stale; a place.
        succeeded(unsafe { trtllm_request_destroy(without_provenance_mut(old)) });
        self.requests[slot] = created(|place| unsafe { trtllm_request_create(place) });
    }

    fn destroy(&mut self) {
        let (requests, responses, [engine, executor]) = (self.requests, self.responses, [self.engine, self.executor]);
        // SAFETY: whatever the numbers are, they are looked up.
        succeeded(unsafe {
            match self.input.small() % 6 {
                0 | 1 => trtllm_request_destroy(self.doomed(&requests)),
                2 => trtllm_response_destroy(self.doomed(&responses)),
                3 => trtllm_engine_destroy(self.doomed(&[engine])),
                4 => trtllm_executor_shutdown(self.doomed(&[executor])),
                _ => trtllm_executor_destroy(self.doomed(&[executor])),
            }
        });
    }

    fn set_prompt(&mut self, kind: u8) {
        let request = self.request();
        // SAFETY: as of `make`.
        succeeded(unsafe {
            match kind {
                2 => {
                    let (_, text, length) = self.input.array();
                    trtllm_request_set_text(request, text.cast(), length)
                }
                3 => {
                    let (_tokens, start, count) = self.input.tokens();
                    trtllm_request_set_tokens(request, start, count)
                }
                _ => {
                    let (_, text, length) = self.input.array();
                    trtllm_request_set_chat(request, text.cast(), length)
                }
            }
        });
    }

    fn set_sampling(&mut self) {
        let request = self.request();
        let sampling = self.input.config(size_of::<trtllm_sampling>());
        // SAFETY: a struct as long as it says, or of a size that is refused.
        succeeded(unsafe { trtllm_request_set_sampling(request, sampling.as_ptr().cast()) });
    }

    fn add_stop(&mut self, kind: u8) {
        let request = self.request();
        // SAFETY: as of `make`.
        succeeded(unsafe {
            match kind {
                7 => {
                    let (_, text, length) = self.input.array();
                    trtllm_request_add_stop_string(request, text.cast(), length)
                }
                _ => {
                    let (_tokens, start, count) = self.input.tokens();
                    trtllm_request_add_stop_tokens(request, start, count)
                }
            }
        });
    }

    fn set_numbers(&mut self) {
        let (request, word) = (self.request(), self.input.word());
        let (low, high) = (word as u32, (word >> 32) as u32);
        // SAFETY: a handle and numbers.
        succeeded(unsafe {
            match self.input.small() % 4 {
                0 => trtllm_request_set_stream(request, low as i32),
                1 => trtllm_request_set_time_limit(request, word),
                2 => trtllm_request_set_return_logits(request, low as i32, high as i32),
                _ => trtllm_request_add_logit_bias(request, low, f32::from_bits(high)),
            }
        });
    }

    fn set_salt(&mut self) {
        let (request, (_, salt, length)) = (self.request(), self.input.array());
        // SAFETY: as of `make`.
        succeeded(unsafe { trtllm_request_set_salt(request, salt, length) });
    }

    fn set_callback(&mut self) {
        let request = self.request();
        let callback: trtllm_response_callback = (self.input.small() & 3 > 0).then_some(receive);
        let free: trtllm_user_data_free = (self.input.small() & 3 > 0).then_some(freed);
        // SAFETY: functions that live as long as the process; the data is no pointer and is not followed.
        let status = unsafe { trtllm_request_set_callback(request, callback, null_mut(), free) };
        self.callbacks += usize::from(succeeded(status) && free.is_some());
    }

    fn submit(&mut self) {
        let (executor, request) = (self.executor(), self.request());
        let mut id = 0;
        // SAFETY: handles and a place.
        let status = unsafe { trtllm_executor_submit(executor, request, &mut id) };
        self.note(status, id);
    }

    fn submit_text(&mut self) {
        let (executor, (bytes, ..)) = (self.executor(), self.input.array());
        let text: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).chain([0]).collect();
        let sampling = self.input.config(size_of::<trtllm_sampling>());
        let mut id = 0;
        // SAFETY: a text that ends with NUL, a struct as of `set_sampling`, a place.
        let status =
            unsafe { trtllm_executor_submit_text(executor, text.as_ptr().cast(), sampling.as_ptr().cast(), &mut id) };
        self.note(status, id);
    }

    fn note(&mut self, status: trtllm_status, id: u64) {
        if succeeded(status) {
            assert_ne!(id, 0);
            self.submitted.push(id);
            self.accepted = true;
        } else {
            assert_eq!(id, 0, "a failed call wrote its output");
        }
    }

    fn cancel(&mut self) {
        let (executor, id) = (self.executor(), self.id());
        // SAFETY: a handle.
        succeeded(unsafe { trtllm_executor_cancel(executor, id) });
    }

    /// Takes responses into the slots; what stood there is destroyed.
    fn take(&mut self) {
        let (executor, id) = (self.executor(), self.id());
        let mut taken = [null_mut(); 2];
        let capacity = self.input.small() % (taken.len() + 1);
        let mut count = 0;
        // SAFETY: a handle, room for `capacity` handles, a place.
        succeeded(unsafe { trtllm_executor_await_many(executor, id, 1, capacity, taken.as_mut_ptr(), &mut count) });
        for response in taken.iter().take(count) {
            read(*response);
            // SAFETY: a handle, living or stale.
            succeeded(unsafe { trtllm_response_destroy(without_provenance_mut(self.responses[0])) });
            self.responses.rotate_left(1);
            self.responses[2] = response.addr();
        }
    }

    fn look(&mut self) {
        read(self.response());
    }

    fn ask(&mut self) {
        let (executor, size) = (self.executor(), self.input.small() * 4);
        let mut stats = [0u64; 128];
        let mut text: [c_char; 256] = [0; 256];
        let mut length = 0;
        // SAFETY: a handle, a place of up to 1020 bytes, a buffer with its capacity.
        succeeded(unsafe {
            match self.input.small() % 4 {
                0 => trtllm_executor_get_stats(executor, size, stats.as_mut_ptr().cast()),
                1 => trtllm_executor_stats_json(executor, text.as_mut_ptr(), size.min(text.len()), &mut length),
                2 => trtllm_executor_iterations_json(executor, text.as_mut_ptr(), size.min(text.len()), &mut length),
                _ => trtllm_executor_check_health(executor),
            }
        });
    }

    /// Loads the engine again, at most once, and asks what its sampling is.
    fn load(&mut self) {
        let (engine, size) = (self.engine(), self.input.small() * 4);
        let mut sampling = [0u64; 128];
        // SAFETY: a handle and a place of up to 1020 bytes.
        succeeded(unsafe { trtllm_engine_get_sampling(engine, size, sampling.as_mut_ptr().cast()) });
        let mut config = self.input.config(size_of::<trtllm_engine_config>());
        // A function of the caller and its data are valid or NULL.
        config.iter_mut().skip(1).take(2).for_each(|word| *word = 0);
        if self.engine == 0 {
            // SAFETY: a path, a struct as of `set_sampling`, a place.
            self.engine = created(|place| unsafe {
                trtllm_engine_load(SHARED.engine_path.as_ptr(), config.as_ptr().cast(), place)
            });
        }
    }

    /// Creates an executor, at most one, with arbitrary limits within a small budget.
    fn serve(&mut self) {
        let engine = self.engine();
        let mut config = self.input.config(size_of::<trtllm_executor_config>());
        let isa = [null(), c"portable".as_ptr(), c"".as_ptr(), c"sse2".as_ptr()][self.input.small() % 4];
        if let [_, budget, _, place, ..] = &mut config[..] {
            *budget = 1 + *budget % BUDGET;
            *place = isa.addr() as u64;
        }
        // More threads than a few are only slow.
        if let Some(word) = config.get_mut(6)
            && *word >> 32 <= 1024
        {
            *word &= 3 << 32 | u64::from(u32::MAX);
        }
        if self.executor == 0 {
            // SAFETY: a handle, a struct as of `set_sampling` whose text is one of the above, a place.
            self.executor = created(|place| unsafe { trtllm_executor_create(engine, config.as_ptr().cast(), place) });
        }
    }

    /// Ends what runs, destroys everything, and sees that nothing is left.
    fn finish(self) -> bool {
        // SAFETY: handles, living or stale, none of which all programs share.
        unsafe {
            succeeded(trtllm_executor_destroy(without_provenance_mut(self.executor)));
            succeeded(trtllm_engine_destroy(without_provenance_mut(self.engine)));
        }
        for request in self.requests {
            // SAFETY: as above.
            succeeded(unsafe { trtllm_request_destroy(without_provenance_mut(request)) });
        }
        for id in &self.submitted {
            // SAFETY: a handle; ids of the other executor are unknown or long ended.
            succeeded(unsafe { trtllm_executor_cancel(without_provenance_mut(SHARED.executor), *id) });
        }
        for response in self.responses {
            // SAFETY: as above.
            succeeded(unsafe { trtllm_response_destroy(without_provenance_mut(response)) });
        }
        wait_until_idle();
        let start = Instant::now();
        while FREED.load(Ordering::SeqCst) != self.callbacks {
            assert!(
                start.elapsed() < PATIENCE,
                "{} of {} user data freed",
                FREED.load(Ordering::SeqCst),
                self.callbacks
            );
            std::thread::yield_now();
        }
        self.accepted
    }
}

/// The handle that a call wrote, 0 when it failed.
fn created<T>(call: impl FnOnce(&mut *mut T) -> trtllm_status) -> usize {
    let mut place = null_mut();
    assert_eq!(succeeded(call(&mut place)), !place.is_null(), "an output that does not fit the status");
    place.addr()
}

fn last_message() -> String {
    // SAFETY: a NUL-terminated string that lives until this thread's next call.
    unsafe { std::ffi::CStr::from_ptr(trtllm_last_error_message()) }.to_string_lossy().into_owned()
}

/// Whether a call succeeded; a panic or a broken invariant inside it is a finding.
fn succeeded(status: trtllm_status) -> bool {
    let broken = matches!(status, trtllm_status::Panic | trtllm_status::Internal);
    assert!(!broken, "{status:?}: {}", last_message());
    status == trtllm_status::Ok
}

/// Reads everything that a response lends, if it is one.
fn read(response: *const trtllm_response) {
    let mut view = MaybeUninit::<trtllm_response_view>::zeroed();
    let (mut text, mut length): ([c_char; 64], usize) = ([0; 64], 0);
    // SAFETY: a handle, a place of the given size, a buffer with its capacity; a view's pointers are NULL or valid for the
    // counts beside them.
    unsafe {
        if succeeded(trtllm_response_get(response, size_of::<trtllm_response_view>(), view.as_mut_ptr())) {
            let view = view.assume_init();
            let text = CStr::from_ptr(view.text).to_bytes();
            assert!(str::from_utf8(text).is_ok() && text.len() <= view.text_length);
            let top = view.token_count * view.top_logprobs_per_token;
            let lent = [
                sum(view.tokens.cast::<u8>(), view.token_count * size_of::<u32>()),
                sum(view.top_logprobs.cast(), top * size_of::<trtllm_token_logprob>()),
                sum(view.context_logits.cast(), view.context_logits_count * size_of::<f32>()),
                sum(view.generation_logits.cast(), view.generation_logits_count * size_of::<f32>()),
                sum(view.error_message.cast(), CStr::from_ptr(view.error_message).count_bytes()),
            ];
            std::hint::black_box(lent);
        }
        succeeded(trtllm_response_stats_json(response, text.as_mut_ptr(), text.len(), &mut length));
    }
}

/// # Safety
/// `start` is NULL and `length` 0, or that many bytes are readable.
unsafe fn sum(start: *const u8, length: usize) -> u64 {
    if start.is_null() {
        assert_eq!(length, 0, "an array without a start");
        return 0;
    }
    // SAFETY: as the caller promises.
    unsafe { std::slice::from_raw_parts(start, length) }.iter().map(|byte| u64::from(*byte)).sum()
}

/// Takes what the shared executor still delivers, until it holds no request and no block is in use.
fn wait_until_idle() {
    let executor = without_provenance_mut(SHARED.executor);
    let start = Instant::now();
    loop {
        let mut stats = MaybeUninit::<trtllm_executor_stats>::zeroed();
        let size = size_of::<trtllm_executor_stats>();
        // SAFETY: a handle and a place of the given size.
        assert!(succeeded(unsafe { trtllm_executor_get_stats(executor, size, stats.as_mut_ptr()) }));
        // SAFETY: numbers, of which every pattern is one.
        let stats = unsafe { stats.assume_init() };
        if [stats.requests, stats.running, stats.waiting, stats.kv_blocks_used] == [0; 4] {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "something stays behind: {stats:?}");
        let mut response = null_mut();
        // SAFETY: a handle and a place, then what was written there or NULL.
        unsafe {
            succeeded(trtllm_executor_await(executor, TRTLLM_ANY_REQUEST, 1, &mut response));
            succeeded(trtllm_response_destroy(response));
        }
    }
}

/// How often user data was freed in this program.
static FREED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn receive(_: *mut c_void, response: *const trtllm_response) {
    read(response);
}

unsafe extern "C" fn freed(_: *mut c_void) {
    FREED.fetch_add(1, Ordering::SeqCst);
}
