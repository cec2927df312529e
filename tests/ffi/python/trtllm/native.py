"""The functions and structs of libtrtllm, as ctypes sees them."""

import ctypes
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint8, c_uint32
from ctypes import c_uint64, c_void_p, sizeof

from .status import Error, Status

VERSION = (0, 1)

# The SONAME: before version 1.0 another minor version is another library. CDLL lets go of Python's lock during a
# call. That is needed: the library waits for its callbacks, and they want the lock.
_library = ctypes.CDLL("libtrtllm.so.0.1")


class Struct(ctypes.Structure):
    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name, _ in self._fields_)})"


class Config(Struct):
    """A struct that begins from the library's defaults, changed by keyword."""

    def __init__(self, **changes):
        super().__init__()
        call(self.c_name[len("trtllm_") :] + "_init", sizeof(self), byref(self))
        for name, value in changes.items():
            if not hasattr(self, name):
                raise TypeError(f"{type(self).__name__} has no {name!r}")
            setattr(self, name, value.encode() if isinstance(value, str) else value)


class Sampling(Config):
    c_name = "trtllm_sampling"
    _fields_ = [
        ("struct_size", c_size_t),
        ("seed", c_uint64),
        ("temperature", c_float),
        ("top_k", c_uint32),
        ("top_p", c_float),
        ("min_p", c_float),
        ("repetition_penalty", c_float),
        ("presence_penalty", c_float),
        ("frequency_penalty", c_float),
        ("min_tokens", c_uint32),
        ("max_tokens", c_uint32),
        ("n", c_uint32),
        ("logprobs", c_int32),
        ("ignore_eos", c_int32),
    ]


ProgressCallback = CFUNCTYPE(c_int32, c_void_p, c_char_p, c_double)


class EngineConfig(Config):
    c_name = "trtllm_engine_config"
    _fields_ = [
        ("struct_size", c_size_t),
        ("progress", ProgressCallback),
        ("user_data", c_void_p),
        ("load_mode", c_int32),
        ("verify_weights", c_int32),
    ]


class EngineInfo(Struct):
    c_name = "trtllm_engine_info"
    _fields_ = [
        ("architecture", c_char_p),
        ("eos_tokens", POINTER(c_uint32)),
        ("eos_token_count", c_size_t),
        ("weight_bytes", c_uint64),
        ("kv_bytes_per_token", c_uint64),
        ("bos_token", c_int64),
        ("vocab_size", c_uint32),
        ("hidden_size", c_uint32),
        ("layers", c_uint32),
        ("max_positions", c_uint32),
        ("precision", c_int32),
        ("target", c_int32),
        ("kv_precision", c_int32),
        ("head_precision", c_int32),
    ]


class BuildConfig(Config):
    c_name = "trtllm_build_config"
    _fields_ = [
        ("struct_size", c_size_t),
        ("disabled_passes", POINTER(c_char_p)),
        ("disabled_pass_count", c_size_t),
        ("progress", ProgressCallback),
        ("user_data", c_void_p),
        ("seed", c_uint64),
        ("max_positions", c_uint32),
        ("precision", c_int32),
        ("dummy_weights", c_int32),
        ("target", c_int32),
        ("kv_precision", c_int32),
        ("head_precision", c_int32),
        ("archs", c_char_p),
        ("invariant", c_int32),
        ("default_tactics", c_int32),
    ]


class TokenLogprob(Struct):
    c_name = "trtllm_token_logprob"
    _fields_ = [("token", c_uint32), ("logprob", c_float)]


class ResponseView(Struct):
    c_name = "trtllm_response_view"
    _fields_ = [
        ("text", c_void_p),
        ("text_length", c_size_t),
        ("tokens", POINTER(c_uint32)),
        ("token_count", c_size_t),
        ("logprobs", POINTER(TokenLogprob)),
        ("top_logprobs", POINTER(TokenLogprob)),
        ("top_logprobs_per_token", c_size_t),
        ("context_logits", POINTER(c_float)),
        ("context_logits_count", c_size_t),
        ("generation_logits", POINTER(c_float)),
        ("generation_logits_count", c_size_t),
        ("error_message", c_char_p),
        ("request_id", c_uint64),
        ("sequence", c_uint32),
        ("finish_reason", c_int32),
        ("status", c_int32),
        ("last", c_int32),
    ]


class RequestStats(Struct):
    c_name = "trtllm_request_stats"
    _fields_ = [
        ("prompt_tokens", c_uint64),
        ("cached_tokens", c_uint64),
        ("generated_tokens", c_uint64),
        ("preemptions", c_uint64),
        ("queued_ns", c_uint64),
        ("first_token_ns", c_uint64),
        ("total_ns", c_uint64),
    ]


class ExecutorConfig(Config):
    c_name = "trtllm_executor_config"
    _fields_ = [
        ("struct_size", c_size_t),
        ("memory_budget", c_uint64),
        ("kv_tokens", c_uint64),
        ("isa", c_char_p),
        ("max_batch_size", c_uint32),
        ("max_batch_tokens", c_uint32),
        ("max_sequence_tokens", c_uint32),
        ("max_queue", c_uint32),
        ("max_pending_responses", c_uint32),
        ("threads", c_uint32),
        ("prefix_reuse", c_int32),
        ("device", c_uint32),
        ("refuse_stored_kernels", c_int32),
        ("reserved", c_uint32),
    ]


class ExecutorStats(Struct):
    c_name = "trtllm_executor_stats"
    _fields_ = [
        ("iterations", c_uint64),
        ("completed", c_uint64),
        ("cancelled", c_uint64),
        ("expired", c_uint64),
        ("failed", c_uint64),
        ("preemptions", c_uint64),
        ("generated_tokens", c_uint64),
        ("requests", c_uint64),
        ("prefix_lookup_tokens", c_uint64),
        ("prefix_hit_tokens", c_uint64),
        ("running", c_uint64),
        ("waiting", c_uint64),
        ("batch_tokens", c_uint64),
        ("kv_blocks_used", c_uint64),
        ("kv_blocks_cached", c_uint64),
        ("kv_blocks_free", c_uint64),
        ("last_step_ns", c_uint64),
        ("busy_ns", c_uint64),
        ("memory_bytes", c_uint64),
        ("last_step_device_ns", c_uint64),
        ("device_busy_ns", c_uint64),
        ("device_idle_ns", c_uint64),
    ]


ResponseCallback = CFUNCTYPE(None, c_void_p, c_void_p)
UserDataFree = CFUNCTYPE(None, c_void_p)

# Handles are c_void_p: numbers that only the library understands.
_SIGNATURES = {
    "check_version": [c_uint32, c_uint32],
    "sampling_init": [c_size_t, POINTER(Sampling)],
    "build_config_init": [c_size_t, POINTER(BuildConfig)],
    "build": [c_char_p, c_char_p, POINTER(BuildConfig)],
    "engine_config_init": [c_size_t, POINTER(EngineConfig)],
    "engine_load": [c_char_p, POINTER(EngineConfig), POINTER(c_void_p)],
    "engine_destroy": [c_void_p],
    "engine_get_info": [c_void_p, c_size_t, POINTER(EngineInfo)],
    "engine_get_sampling": [c_void_p, c_size_t, POINTER(Sampling)],
    "engine_inspect": [c_void_p, c_char_p, c_size_t, POINTER(c_size_t)],
    "tokenizer_create": [c_void_p, POINTER(c_void_p)],
    "tokenizer_destroy": [c_void_p],
    "tokenizer_encode": [c_void_p, c_char_p, c_size_t, c_int32, POINTER(c_uint32), c_size_t, POINTER(c_size_t)],
    "tokenizer_decode": [c_void_p, POINTER(c_uint32), c_size_t, c_int32, c_char_p, c_size_t, POINTER(c_size_t)],
    "tokenizer_apply_chat_template": [c_void_p, c_char_p, c_size_t, c_int32, c_char_p, c_size_t, POINTER(c_size_t)],
    "request_create": [POINTER(c_void_p)],
    "request_destroy": [c_void_p],
    "request_set_text": [c_void_p, c_char_p, c_size_t],
    "request_set_tokens": [c_void_p, POINTER(c_uint32), c_size_t],
    "request_set_chat": [c_void_p, c_char_p, c_size_t],
    "request_set_sampling": [c_void_p, POINTER(Sampling)],
    "request_add_stop_string": [c_void_p, c_char_p, c_size_t],
    "request_add_stop_tokens": [c_void_p, POINTER(c_uint32), c_size_t],
    "request_add_logit_bias": [c_void_p, c_uint32, c_float],
    "request_set_stream": [c_void_p, c_int32],
    "request_set_time_limit": [c_void_p, c_uint64],
    "request_set_salt": [c_void_p, POINTER(c_uint8), c_size_t],
    "request_set_callback": [c_void_p, ResponseCallback, c_void_p, UserDataFree],
    "response_get": [c_void_p, c_size_t, POINTER(ResponseView)],
    "response_get_stats": [c_void_p, c_size_t, POINTER(RequestStats)],
    "response_destroy": [c_void_p],
    "executor_config_init": [c_size_t, POINTER(ExecutorConfig)],
    "executor_create": [c_void_p, POINTER(ExecutorConfig), POINTER(c_void_p)],
    "executor_destroy": [c_void_p],
    "executor_shutdown": [c_void_p],
    "executor_submit": [c_void_p, c_void_p, POINTER(c_uint64)],
    "executor_cancel": [c_void_p, c_uint64],
    "executor_await": [c_void_p, c_uint64, c_int64, POINTER(c_void_p)],
    "executor_check_health": [c_void_p],
    "executor_get_stats": [c_void_p, c_size_t, POINTER(ExecutorStats)],
}


def call(name, *arguments):
    """Makes one call; a failure raises the calling thread's last error."""
    status = getattr(_library, "trtllm_" + name)(*arguments)
    if status != Status.OK:
        raise Error(status, _library.trtllm_last_error_message().decode())


def version():
    """The version of the loaded library, e.g. 0.1.0."""
    return _library.trtllm_version_string().decode()


def text_of_unknown_size(name, *arguments):
    """Takes such a text, also when it grows between two calls."""
    length = c_size_t()
    call(name, *arguments, None, 0, byref(length))
    while True:
        buffer = ctypes.create_string_buffer(length.value + 1)
        try:
            call(name, *arguments, buffer, len(buffer), byref(length))
        except Error as error:
            if error.status != Status.BUFFER_TOO_SMALL:
                raise
            continue
        return buffer.raw[: length.value].decode()


def tokens_to_c(tokens):
    return (c_uint32 * len(tokens))(*tokens)


def _declare():
    for name, types in _SIGNATURES.items():
        function = getattr(_library, "trtllm_" + name)
        function.argtypes, function.restype = types, c_int32
    for name in "last_error_message", "version_string":
        function = getattr(_library, "trtllm_" + name)
        function.argtypes, function.restype = [], c_char_p


_declare()
