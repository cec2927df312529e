//! A client of the C API that takes every refusal of memory for an answer and nothing else.

use std::ffi::{CStr, CString, c_void};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::Mutex;

use trtllm::capi::engine::*;
use trtllm::capi::executor::*;
use trtllm::capi::request::*;
use trtllm::capi::response::*;
use trtllm::capi::sampling::*;
use trtllm::capi::status::{trtllm_last_error_message, trtllm_status};

/// Milliseconds after which something hangs.
const PATIENCE: i64 = 20_000;

/// Whether a call did what it was to do; if not, memory was refused.
#[track_caller]
pub fn done(status: trtllm_status) -> bool {
    match status {
        trtllm_status::Ok => true,
        trtllm_status::OutOfMemory => false,
        other => {
            // SAFETY: the message ends with a NUL and lives until this thread's next call.
            let message = unsafe { CStr::from_ptr(trtllm_last_error_message()) };
            panic!("{other:?}: {}", message.to_string_lossy())
        }
    }
}

/// An engine, or nothing without memory.
pub fn load(path: &Path, mode: trtllm_load_mode) -> Option<*mut trtllm_engine> {
    let path = CString::new(path.as_os_str().as_encoded_bytes()).expect("no NUL");
    let config = trtllm_engine_config { load_mode: mode as i32, ..trtllm_engine_config::default() };
    let mut engine = null_mut();
    // SAFETY: all pointers are valid.
    done(unsafe { trtllm_engine_load(path.as_ptr(), &config, &mut engine) }).then_some(engine)
}

/// An executor on two threads, or nothing without memory.
pub fn create(engine: *mut trtllm_engine) -> Option<*mut trtllm_executor> {
    let config = trtllm_executor_config {
        threads: 2,
        max_batch_size: 4,
        kv_tokens: 8192,
        max_pending_responses: 4,
        ..trtllm_executor_config::default()
    };
    let mut executor = null_mut();
    // SAFETY: all pointers are valid.
    done(unsafe { trtllm_executor_create(engine, &config, &mut executor) }).then_some(executor)
}

/// What a request asks for.
#[derive(Clone)]
pub enum Prompt {
    Tokens(Vec<u32>),
    Text(String),
    Chat(String),
}

#[derive(Clone)]
pub struct Wish {
    pub prompt: Prompt,
    pub sampling: trtllm_sampling,
    pub stream: bool,
    pub stops: Vec<String>,
    pub stop_tokens: Vec<Vec<u32>>,
    pub biases: usize,
    pub logits: bool,
    pub callback: bool,
}

impl Wish {
    pub fn new(prompt: Prompt, max_tokens: u32) -> Self {
        let sampling = trtllm_sampling { max_tokens, ignore_eos: 1, ..trtllm_sampling::default() };
        Self {
            prompt,
            sampling,
            stream: true,
            stops: Vec::new(),
            stop_tokens: Vec::new(),
            biases: 0,
            logits: false,
            callback: false,
        }
    }
}

/// What came back of one request: its tokens, and whether it ended for want of memory.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Heard {
    pub tokens: Vec<u32>,
    pub refused: bool,
    pub last: bool,
}

impl Heard {
    fn hear(&mut self, response: *const trtllm_response) {
        // SAFETY: a view is plain numbers and pointers, for which zero is valid.
        let mut view: trtllm_response_view = unsafe { std::mem::zeroed() };
        // SAFETY: the response is alive.
        let status = unsafe { trtllm_response_get(response, size_of_val(&view), &mut view) };
        assert!(done(status), "looking at a response takes no memory");
        assert!(!self.last, "a response after the last one");
        if view.token_count > 0 {
            // SAFETY: the response is alive.
            self.tokens.extend(unsafe { std::slice::from_raw_parts(view.tokens, view.token_count) });
        }
        self.last = view.last == 1;
        match view.status {
            status if status == trtllm_status::Ok as i32 => {}
            status if status == trtllm_status::OutOfMemory as i32 => self.refused = true,
            // SAFETY: the response is alive.
            status => panic!("{status}: {:?}", unsafe { CStr::from_ptr(view.error_message) }),
        }
    }
}

/// A request that was accepted.
pub struct Accepted {
    id: u64,
    heard: Box<Mutex<Heard>>,
    callback: bool,
}

unsafe extern "C" fn hear(user_data: *mut c_void, response: *const trtllm_response) {
    // SAFETY: `submit` passed the address of what `Accepted` owns to the end of the request.
    let heard = unsafe { &*user_data.cast::<Mutex<Heard>>() };
    heard.lock().expect("no client panics").hear(response);
}

/// Submits a request, or gives up at the first call that memory was refused to.
pub fn submit(executor: *mut trtllm_executor, wish: &Wish) -> Option<Accepted> {
    let mut request = null_mut();
    // SAFETY: the place is valid.
    if !done(unsafe { trtllm_request_create(&mut request) }) {
        return None;
    }
    let heard = Box::new(Mutex::new(Heard::default()));
    let mut id = 0;
    // SAFETY: the request and the place are valid.
    let accepted =
        unsafe { describe(request, wish, &heard) && done(trtllm_executor_submit(executor, request, &mut id)) };
    // SAFETY: the request is ours.
    assert!(done(unsafe { trtllm_request_destroy(request) }));
    accepted.then_some(Accepted { id, heard, callback: wish.callback })
}

/// # Safety
/// `request` is alive, and `heard` will be until the end of whatever is submitted with it.
unsafe fn describe(request: *mut trtllm_request, wish: &Wish, heard: &Mutex<Heard>) -> bool {
    // SAFETY: the caller's; all arrays live.
    unsafe {
        let described = match &wish.prompt {
            Prompt::Tokens(tokens) => trtllm_request_set_tokens(request, tokens.as_ptr(), tokens.len()),
            Prompt::Text(text) => trtllm_request_set_text(request, text.as_ptr().cast(), text.len()),
            Prompt::Chat(chat) => trtllm_request_set_chat(request, chat.as_ptr().cast(), chat.len()),
        };
        done(described)
            && done(trtllm_request_set_sampling(request, &wish.sampling))
            && done(trtllm_request_set_stream(request, i32::from(wish.stream)))
            && done(trtllm_request_set_return_logits(request, i32::from(wish.logits), i32::from(wish.logits)))
            && wish.stops.iter().all(|s| done(trtllm_request_add_stop_string(request, s.as_ptr().cast(), s.len())))
            && wish.stop_tokens.iter().all(|s| done(trtllm_request_add_stop_tokens(request, s.as_ptr(), s.len())))
            && (0..wish.biases).all(|token| done(trtllm_request_add_logit_bias(request, 6 + token as u32, 0.01)))
            && (!wish.callback || {
                let user_data = std::ptr::from_ref(heard).cast_mut().cast();
                done(trtllm_request_set_callback(request, Some(hear), user_data, None))
            })
    }
}

impl Accepted {
    /// All that the request says to its end; asks again where memory was refused for the asking.
    pub fn hear_out(self, executor: *mut trtllm_executor, refusals: &mut usize) -> Heard {
        let deadline = std::time::Instant::now() + std::time::Duration::from_millis(PATIENCE as u64);
        while !self.heard.lock().expect("no callback panics").last {
            assert!(std::time::Instant::now() < deadline, "no last response");
            if self.callback {
                std::thread::yield_now();
                continue;
            }
            let mut response = null_mut();
            // SAFETY: the executor is alive and the place valid.
            if done(unsafe { trtllm_executor_await(executor, self.id, PATIENCE, &mut response) }) {
                self.heard.lock().expect("no callback panics").hear(response);
                // SAFETY: the response is ours.
                assert!(done(unsafe { trtllm_response_destroy(response) }));
            } else {
                *refusals += 1;
            }
        }
        let heard = self.heard.lock().expect("no callback panics");
        heard.clone()
    }

    /// Asks for the end of the request; false when memory was refused for that.
    pub fn cancel(&self, executor: *mut trtllm_executor) -> bool {
        // SAFETY: the executor is alive.
        done(unsafe { trtllm_executor_cancel(executor, self.id) })
    }
}

/// Ends both, which takes no memory.
pub fn destroy(engine: *mut trtllm_engine, executor: *mut trtllm_executor) {
    // SAFETY: both are ours, or NULL.
    unsafe {
        assert!(done(trtllm_executor_destroy(executor)));
        assert!(done(trtllm_engine_destroy(engine)));
    }
}

/// Bytes that are allocated now, whatever this thread's last error was.
pub fn live() -> i64 {
    // SAFETY: refused, and the message of that takes the place of the last.
    assert_eq!(unsafe { trtllm_engine_destroy(std::ptr::without_provenance_mut(1)) }, trtllm_status::InvalidHandle);
    crate::allocator::live()
}

/// A greedy request of eight tokens.
pub fn plain() -> Wish {
    Wish::new(Prompt::Text("Once upon a time".into()), 8)
}

/// Its tokens; nothing may be refused now.
pub fn plain_tokens(executor: *mut trtllm_executor) -> Vec<u32> {
    let heard = submit(executor, &plain()).expect("there is memory").hear_out(executor, &mut 0);
    assert!(!heard.refused);
    heard.tokens
}

/// Reads everything that is told in texts of unknown size; false at the first refusal of memory.
pub fn inspect(engine: *mut trtllm_engine, executor: *mut trtllm_executor) -> bool {
    let mut length = 0;
    // SAFETY: a size query writes nothing else.
    unsafe {
        done(trtllm_engine_inspect(engine, null_mut(), 0, &mut length))
            && done(trtllm_executor_iterations_json(executor, null_mut(), 0, &mut length))
            && done(trtllm_executor_stats_json(executor, null_mut(), 0, &mut length))
            && done(trtllm_engine_get_sampling(engine, size_of::<trtllm_sampling>(), &mut trtllm_sampling::default()))
    }
}
