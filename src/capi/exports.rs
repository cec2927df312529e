//! Every exported function under a panic, at every place of it in turn: a status comes of it, outputs are untouched, and the
//! objects go on working.

#![allow(unused_unsafe, unused_variables)] // Some functions need no promise, some have no output.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::panic::tests::{last_message, with_injected_panic, with_panic_behind};
use super::status::trtllm_status;
use super::{builder, engine, executor, network, request, response, sampling, status, tokenizer, version};

/// Room for the outputs of a call: two of at most 4 KiB.
const ROOM: usize = 8192;
const SECOND: usize = ROOM / 2;
const PATTERN: u8 = 0x5a;
const MESSAGES: &CStr = cr#"[{"role": "user", "content": "Hello"}]"#;

/// A place for outputs, aligned for all of them.
#[repr(align(16))]
struct Outputs([u8; ROOM]);

impl Outputs {
    fn new() -> Self {
        Outputs([PATTERN; ROOM])
    }

    fn first<T>(&mut self) -> *mut T {
        self.0.as_mut_ptr().cast()
    }

    fn second<T>(&mut self) -> *mut T {
        self.0[SECOND..].as_mut_ptr().cast()
    }

    /// The handle that a call wrote first.
    fn handle<T>(&self) -> *mut T {
        let bits = self.0[..8].try_into().expect("eight bytes");
        ptr::without_provenance_mut(usize::from_ne_bytes(bits))
    }

    fn assert_untouched(&self, name: &str) {
        assert!(self.0.iter().all(|byte| *byte == PATTERN), "{name} wrote an output before it panicked");
    }
}

/// The functions that were called, for the comparison with the library's list.
#[derive(Default)]
struct Called(Vec<&'static str>);

impl Called {
    /// Calls with what `prepare` makes until no panic is in the way; `check` looks at it after every panic.
    fn until_it_works<T: Copy>(
        &mut self,
        name: &'static str,
        mut prepare: impl FnMut() -> T,
        mut call: impl FnMut(T, &mut Outputs) -> trtllm_status,
        mut check: impl FnMut(T),
    ) -> Outputs {
        self.0.push(name);
        for places in 0..1000 {
            let (argument, mut outputs) = (prepare(), Outputs::new());
            match with_panic_behind(places, || call(argument, &mut outputs)) {
                trtllm_status::Panic => {
                    let message = last_message();
                    assert!(message.starts_with(&format!("panic in {name}: injected panic")), "{message}");
                    outputs.assert_untouched(name);
                    check(argument);
                }
                trtllm_status::Ok => {
                    assert!(places > 0, "{name} has no boundary");
                    return outputs;
                }
                other => panic!("{name}: {other:?}: {}", last_message()),
            }
        }
        panic!("{name} panics without an end")
    }
}

/// `call!(called, outputs => noun::function(arguments))`.
macro_rules! call {
    ($called:ident, $outputs:ident => $noun:ident :: $function:ident ( $($argument:expr),* $(,)? )) => {
        $called.until_it_works(
            stringify!($function),
            || (),
            // SAFETY: every argument is valid as the C contract says, or refused.
            |(), $outputs| unsafe { $noun::$function($($argument),*) },
            |()| (),
        )
    };
}

/// `destroy!(called, noun::function, new)`: what is left after a panic is the object or nothing.
macro_rules! destroy {
    ($called:ident, $noun:ident :: $function:ident, $new:expr) => {
        $called.until_it_works(
            stringify!($function),
            || $new,
            // SAFETY: a living handle.
            |handle, _| unsafe { $noun::$function(handle) },
            |handle| {
                // SAFETY: a handle that is valid or refused.
                let again = unsafe { $noun::$function(handle) };
                assert!(matches!(again, trtllm_status::Ok | trtllm_status::InvalidHandle), "{again:?}");
            },
        )
    };
}

fn ok(status: trtllm_status) {
    assert_eq!(status, trtllm_status::Ok, "{}", last_message());
}

/// What the calls work on.
struct World {
    engine: *mut engine::trtllm_engine,
    executor: *mut executor::trtllm_executor,
    network: *mut network::trtllm_network,
    request: *mut request::trtllm_request,
    tokenizer: *mut tokenizer::trtllm_tokenizer,
    checkpoint: CString,
    engine_path: CString,
    other_path: CString,
}

impl World {
    fn new(folder: &std::path::Path) -> Self {
        let path = |name: &str| CString::new(folder.join(name).to_str().expect("UTF-8")).expect("no NUL");
        let (engine_path, other_path) = (path("model.engine"), path("other.engine"));
        let checkpoint = CString::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/tiny")).expect("no NUL");
        let mut engine = ptr::null_mut();
        // SAFETY: strings and places are valid.
        unsafe {
            ok(builder::trtllm_build(checkpoint.as_ptr(), engine_path.as_ptr(), ptr::null()));
            ok(engine::trtllm_engine_load(engine_path.as_ptr(), ptr::null(), &mut engine));
        }
        let (mut network, mut tokenizer) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: strings, handles and places are valid.
        unsafe {
            ok(network::trtllm_network_from_checkpoint(checkpoint.as_ptr(), &mut network));
            ok(tokenizer::trtllm_tokenizer_create(engine, &mut tokenizer));
        }
        let (executor, request) = (new_executor(engine), new_request());
        Self { engine, executor, network, request, tokenizer, checkpoint, engine_path, other_path }
    }

    fn submitted(&self) -> u64 {
        let mut id = 0;
        // SAFETY: handles and place are valid.
        ok(unsafe { executor::trtllm_executor_submit(self.executor, self.request, &mut id) });
        id
    }

    fn response(&self, id: u64) -> *mut response::trtllm_response {
        let mut response = ptr::null_mut();
        // SAFETY: handle and place are valid.
        ok(unsafe { executor::trtllm_executor_await(self.executor, id, -1, &mut response) });
        response
    }

    /// What the objects say together.
    fn text(&self) -> String {
        let response = self.response(self.submitted());
        let mut outputs = Outputs::new();
        let view: *mut response::trtllm_response_view = outputs.first();
        // SAFETY: the view is filled, and its text lives as long as the response.
        unsafe {
            ok(response::trtllm_response_get(response, size_of_val(&*view), view));
            let text = CStr::from_ptr((*view).text).to_str().expect("UTF-8").to_owned();
            ok(response::trtllm_response_destroy(response));
            text
        }
    }
}

fn new_executor(engine: *const engine::trtllm_engine) -> *mut executor::trtllm_executor {
    let config =
        executor::trtllm_executor_config { max_batch_size: 2, threads: 1, kv_tokens: 256, ..Default::default() };
    let mut executor = ptr::null_mut();
    // SAFETY: handle, config and place are valid.
    ok(unsafe { executor::trtllm_executor_create(engine, &config, &mut executor) });
    executor
}

/// A request that ends in one response.
fn new_request() -> *mut request::trtllm_request {
    let sampling = sampling::trtllm_sampling { max_tokens: 8, ignore_eos: 1, ..Default::default() };
    let mut request = ptr::null_mut();
    // SAFETY: handle, texts and place are valid.
    unsafe {
        ok(request::trtllm_request_create(&mut request));
        ok(request::trtllm_request_set_text(request, c"Once upon".as_ptr(), 9));
        ok(request::trtllm_request_set_sampling(request, &sampling));
        ok(request::trtllm_request_set_stream(request, 0));
    }
    request
}

#[test]
fn a_panic_anywhere_in_any_function_becomes_a_status() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (world, mut called) = (World::new(folder.path()), Called::default());
    let before = world.text();
    engines(&world, &mut called);
    executors(&world, &mut called);
    networks_and_tokenizers(&world, &mut called);
    requests(&mut called);
    responses(&world, &mut called);
    call!(called, out => version::trtllm_check_version(0, version::TRTLLM_VERSION_MINOR));
    assert_eq!(world.text(), before);
    let mut called: Vec<_> = called.0.into_iter().chain(INFALLIBLE).collect();
    called.sort_unstable();
    assert_eq!(called, include_str!("../../cmake/trtllm.symbols").lines().collect::<Vec<_>>());
}

fn engines(world: &World, called: &mut Called) {
    let (checkpoint, path) = (world.checkpoint.as_ptr(), world.engine_path.as_ptr());
    let handle = world.engine;
    let engine_config = engine::trtllm_engine_config::default();
    let names = [c"qkv".as_ptr()];
    let build_config =
        builder::trtllm_build_config { disabled_passes: names.as_ptr(), disabled_pass_count: 1, ..Default::default() };
    call!(called, out => builder::trtllm_build_config_init(size_of_val(&build_config), out.first()));
    call!(called, out => builder::trtllm_build(checkpoint, world.other_path.as_ptr(), &build_config));
    call!(called, out => engine::trtllm_engine_config_init(size_of::<engine::trtllm_engine_config>(), out.first()));
    let engine = call!(called, out => engine::trtllm_engine_load(path, &engine_config, out.first())).handle();
    // SAFETY: a living handle.
    ok(unsafe { engine::trtllm_engine_destroy(engine) });
    call!(called, out => engine::trtllm_engine_get_info(handle, size_of::<engine::trtllm_engine_info>(), out.first()));
    call!(called, out => engine::trtllm_engine_get_sampling(handle, size_of::<sampling::trtllm_sampling>(), out.first()));
    call!(called, out => engine::trtllm_engine_inspect(handle, ptr::null_mut(), 0, out.first()));
    call!(called, out => engine::trtllm_engine_inspect_file(path, ptr::null_mut(), 0, out.first()));
    destroy!(called, engine::trtllm_engine_destroy, {
        let mut engine = ptr::null_mut();
        // SAFETY: path and place are valid.
        ok(unsafe { engine::trtllm_engine_load(path, ptr::null(), &mut engine) });
        engine
    });
}

fn executors(world: &World, called: &mut Called) {
    let (handle, request) = (world.executor, world.request);
    let config = executor::trtllm_executor_config { isa: c"portable".as_ptr(), threads: 1, ..Default::default() };
    let sampling = sampling::trtllm_sampling { max_tokens: 1, ..Default::default() };
    call!(called, out => executor::trtllm_executor_config_init(size_of::<executor::trtllm_executor_config>(), out.first()));
    let executor = call!(called, out => executor::trtllm_executor_create(world.engine, &config, out.first())).handle();
    call!(called, out => executor::trtllm_executor_shutdown(executor));
    // SAFETY: a living handle.
    ok(unsafe { executor::trtllm_executor_destroy(executor) });
    destroy!(called, executor::trtllm_executor_destroy, new_executor(world.engine));
    let id_of = |outputs: &mut Outputs| {
        // SAFETY: the call wrote an id.
        unsafe { outputs.first::<u64>().read() }
    };
    let id = id_of(&mut call!(called, out => executor::trtllm_executor_submit(handle, request, out.first())));
    call!(called, out => executor::trtllm_executor_cancel(handle, id));
    let response = world.response(id);
    destroy!(called, response::trtllm_response_destroy, world.response(world.submitted()));
    let text = c"Once".as_ptr();
    let mut outputs = call!(called, out => executor::trtllm_executor_submit_text(handle, text, &sampling, out.first()));
    // SAFETY: living handles.
    unsafe {
        ok(response::trtllm_response_destroy(response));
        ok(response::trtllm_response_destroy(world.response(id_of(&mut outputs))));
    }
    // A panic behind the queue takes the response with it.
    called.until_it_works(
        "trtllm_executor_await",
        || world.submitted(),
        // SAFETY: handle and place are valid.
        |id, out| unsafe { executor::trtllm_executor_await(handle, id, -1, out.first()) },
        |_| (),
    );
    called.until_it_works(
        "trtllm_executor_await_many",
        || world.submitted(),
        // SAFETY: handle and places are valid.
        |id, out| unsafe { executor::trtllm_executor_await_many(handle, id, -1, 4, out.first(), out.second()) },
        |_| (),
    );
    call!(called, out => executor::trtllm_executor_check_health(handle));
    call!(called, out => executor::trtllm_executor_get_stats(handle, size_of::<executor::trtllm_executor_stats>(), out.first()));
    call!(called, out => executor::trtllm_executor_stats_json(handle, out.first(), SECOND, out.second()));
    call!(called, out => executor::trtllm_executor_iterations_json(handle, ptr::null_mut(), 0, out.first()));
}

fn networks_and_tokenizers(world: &World, called: &mut Called) {
    let (checkpoint, handle, names) = (world.checkpoint.as_ptr(), world.network, [c"qkv".as_ptr()]);
    let new = || {
        let mut network = ptr::null_mut();
        // SAFETY: path and place are valid.
        ok(unsafe { network::trtllm_network_from_checkpoint(checkpoint, &mut network) });
        network
    };
    let network = call!(called, out => network::trtllm_network_from_checkpoint(checkpoint, out.first())).handle();
    // SAFETY: a living handle.
    ok(unsafe { network::trtllm_network_destroy(network) });
    call!(called, out => network::trtllm_network_run_passes(handle, names.as_ptr(), 1));
    call!(called, out => network::trtllm_network_text(handle, ptr::null_mut(), 0, out.first()));
    call!(called, out => network::trtllm_network_dot(handle, ptr::null_mut(), 0, out.first()));
    destroy!(called, network::trtllm_network_destroy, new());
    let (handle, text) = (world.tokenizer, c"Once".as_ptr());
    let new = || {
        let mut tokenizer = ptr::null_mut();
        // SAFETY: handle and place are valid.
        ok(unsafe { tokenizer::trtllm_tokenizer_create(world.engine, &mut tokenizer) });
        tokenizer
    };
    let tokenizer = call!(called, out => tokenizer::trtllm_tokenizer_create(world.engine, out.first())).handle();
    // SAFETY: a living handle.
    ok(unsafe { tokenizer::trtllm_tokenizer_destroy(tokenizer) });
    destroy!(called, tokenizer::trtllm_tokenizer_destroy, new());
    call!(called, out => tokenizer::trtllm_tokenizer_encode(handle, text, 4, 1, out.first(), 64, out.second()));
    let tokens = [300];
    call!(called, out => tokenizer::trtllm_tokenizer_decode(handle, tokens.as_ptr(), 1, 1, out.first(), 64, out.second()));
    let (chat, length) = (MESSAGES.as_ptr(), MESSAGES.count_bytes());
    call!(called, out => tokenizer::trtllm_tokenizer_apply_chat_template(handle, chat, length, 1, out.first(), 999, out.second()));
}

fn requests(called: &mut Called) {
    let (handle, sampling) = (new_request(), sampling::trtllm_sampling::default());
    let (text, tokens, length) = (MESSAGES.as_ptr(), [300, 301], MESSAGES.count_bytes());
    let request = call!(called, out => request::trtllm_request_create(out.first())).handle();
    // SAFETY: a living handle.
    ok(unsafe { request::trtllm_request_destroy(request) });
    destroy!(called, request::trtllm_request_destroy, new_request());
    call!(called, out => request::trtllm_request_set_text(handle, text, length));
    call!(called, out => request::trtllm_request_set_tokens(handle, tokens.as_ptr(), 2));
    call!(called, out => request::trtllm_request_set_chat(handle, text, length));
    call!(called, out => request::trtllm_request_set_sampling(handle, &sampling));
    call!(called, out => request::trtllm_request_add_stop_string(handle, text, 3));
    call!(called, out => request::trtllm_request_add_stop_tokens(handle, tokens.as_ptr(), 2));
    call!(called, out => request::trtllm_request_add_logit_bias(handle, 1, 1.0));
    call!(called, out => request::trtllm_request_set_stream(handle, 1));
    call!(called, out => request::trtllm_request_set_time_limit(handle, 1));
    call!(called, out => request::trtllm_request_set_salt(handle, text.cast(), 3));
    call!(called, out => request::trtllm_request_set_return_logits(handle, 1, 1));
    call!(called, out => sampling::trtllm_sampling_init(size_of::<sampling::trtllm_sampling>(), out.first()));
    let frees = AtomicUsize::new(0);
    let user_data = (&raw const frees).cast_mut().cast();
    call!(called, out => request::trtllm_request_set_callback(handle, Some(hear), user_data, Some(count)));
    assert_eq!(frees.load(Ordering::Relaxed), 0, "a call that panics does not take user data");
    // SAFETY: a living handle.
    ok(unsafe { request::trtllm_request_destroy(handle) });
    assert_eq!(frees.load(Ordering::Relaxed), 1);
}

unsafe extern "C" fn hear(_: *mut c_void, _: *const response::trtllm_response) {}

unsafe extern "C" fn count(user_data: *mut c_void) {
    // SAFETY: the test passes a counter.
    unsafe { &*user_data.cast::<AtomicUsize>() }.fetch_add(1, Ordering::Relaxed);
}

fn responses(world: &World, called: &mut Called) {
    let handle = world.response(world.submitted());
    call!(called, out => response::trtllm_response_get(handle, size_of::<response::trtllm_response_view>(), out.first()));
    call!(called, out => response::trtllm_response_get_stats(handle, size_of::<response::trtllm_request_stats>(), out.first()));
    call!(called, out => response::trtllm_response_stats_json(handle, out.first::<c_char>(), SECOND, out.second()));
    // SAFETY: a living handle.
    ok(unsafe { response::trtllm_response_destroy(handle) });
}

/// Functions that return something else than a status.
const INFALLIBLE: [&str; 6] = [
    "trtllm_finish_reason_name",
    "trtllm_last_error_message",
    "trtllm_last_error_status",
    "trtllm_status_name",
    "trtllm_version",
    "trtllm_version_string",
];

#[test]
fn a_function_without_a_status_falls_back() {
    let text = |pointer| {
        // SAFETY: these functions return static strings.
        unsafe { CStr::from_ptr(pointer) }
    };
    with_injected_panic(|| {
        assert_eq!(text(response::trtllm_finish_reason_name(1)), c"UNKNOWN");
        assert_eq!(text(status::trtllm_last_error_message()), c"");
        assert_eq!(status::trtllm_last_error_status(), trtllm_status::Panic);
        assert_eq!(text(status::trtllm_status_name(0)), c"UNKNOWN");
        assert_eq!(version::trtllm_version(), version::TRTLLM_VERSION_NUMBER);
        assert_eq!(text(version::trtllm_version_string()).to_str().unwrap(), env!("CARGO_PKG_VERSION"));
    });
}
