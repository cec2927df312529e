//! Every exported function under a panic: the boundary is around each of them.

use std::ffi::CStr;
use std::ptr;

use super::panic::tests::with_injected_panic;
use super::status::trtllm_status;
use super::{builder, engine, executor, network, request, response, sampling, status, tokenizer, version};

/// An argument that says nothing.
trait Nothing {
    const NOTHING: Self;
}

impl<T> Nothing for *const T {
    const NOTHING: Self = ptr::null();
}

impl<T> Nothing for *mut T {
    const NOTHING: Self = ptr::null_mut();
}

impl<T> Nothing for Option<T> {
    const NOTHING: Self = None;
}

macro_rules! zero {
    ($($number:ty)*) => { $(impl Nothing for $number { const NOTHING: Self = 0 as $number; })* };
}
zero! { usize u64 i64 u32 i32 f32 }

macro_rules! nothing {
    (_) => {
        Nothing::NOTHING
    };
}

macro_rules! call_all {
    ($($noun:ident :: $function:ident ( $($argument:tt),* );)*) => {
        // SAFETY: NULL and 0 are what every function has to expect.
        vec![$((stringify!($function), unsafe { $noun::$function($(nothing!($argument)),*) })),*]
    };
}

#[test]
fn a_panic_in_any_function_becomes_a_status() {
    #[allow(unused_unsafe)] // Some need no promise.
    let results: Vec<(&str, trtllm_status)> = with_injected_panic(|| {
        call_all! {
            builder::trtllm_build_config_init(_, _);
            builder::trtllm_build(_, _, _);
            engine::trtllm_engine_config_init(_, _);
            engine::trtllm_engine_load(_, _, _);
            engine::trtllm_engine_destroy(_);
            engine::trtllm_engine_get_info(_, _, _);
            engine::trtllm_engine_get_sampling(_, _, _);
            engine::trtllm_engine_inspect(_, _, _, _);
            engine::trtllm_engine_inspect_file(_, _, _, _);
            executor::trtllm_executor_config_init(_, _);
            executor::trtllm_executor_create(_, _, _);
            executor::trtllm_executor_destroy(_);
            executor::trtllm_executor_shutdown(_);
            executor::trtllm_executor_submit(_, _, _);
            executor::trtllm_executor_submit_text(_, _, _, _);
            executor::trtllm_executor_cancel(_, _);
            executor::trtllm_executor_await(_, _, _, _);
            executor::trtllm_executor_await_many(_, _, _, _, _, _);
            executor::trtllm_executor_check_health(_);
            executor::trtllm_executor_get_stats(_, _, _);
            executor::trtllm_executor_stats_json(_, _, _, _);
            executor::trtllm_executor_iterations_json(_, _, _, _);
            network::trtllm_network_from_checkpoint(_, _);
            network::trtllm_network_destroy(_);
            network::trtllm_network_run_passes(_, _, _);
            network::trtllm_network_text(_, _, _, _);
            network::trtllm_network_dot(_, _, _, _);
            request::trtllm_request_create(_);
            request::trtllm_request_destroy(_);
            request::trtllm_request_set_text(_, _, _);
            request::trtllm_request_set_tokens(_, _, _);
            request::trtllm_request_set_chat(_, _, _);
            request::trtllm_request_set_sampling(_, _);
            request::trtllm_request_add_stop_string(_, _, _);
            request::trtllm_request_add_stop_tokens(_, _, _);
            request::trtllm_request_add_logit_bias(_, _, _);
            request::trtllm_request_set_stream(_, _);
            request::trtllm_request_set_time_limit(_, _);
            request::trtllm_request_set_salt(_, _, _);
            request::trtllm_request_set_return_logits(_, _, _);
            request::trtllm_request_set_callback(_, _, _, _);
            response::trtllm_response_get(_, _, _);
            response::trtllm_response_get_stats(_, _, _);
            response::trtllm_response_stats_json(_, _, _, _);
            response::trtllm_response_destroy(_);
            sampling::trtllm_sampling_init(_, _);
            tokenizer::trtllm_tokenizer_create(_, _);
            tokenizer::trtllm_tokenizer_destroy(_);
            tokenizer::trtllm_tokenizer_encode(_, _, _, _, _, _, _);
            tokenizer::trtllm_tokenizer_decode(_, _, _, _, _, _, _);
            tokenizer::trtllm_tokenizer_apply_chat_template(_, _, _, _, _, _, _);
            version::trtllm_check_version(_, _);
        }
    });
    for (function, status) in &results {
        assert_eq!(*status, trtllm_status::Panic, "{function}");
    }
    let mut called: Vec<_> = results.iter().map(|(function, _)| *function).chain(INFALLIBLE).collect();
    called.sort_unstable();
    assert_eq!(called, include_str!("../../cmake/trtllm.symbols").lines().collect::<Vec<_>>());
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
