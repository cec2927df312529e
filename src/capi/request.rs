//! A generation request: the prompt, how to sample, what to return and how. A request is a plain description: it belongs to
//! no executor, may be changed and submitted again, and may be destroyed as soon as it is submitted.

use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::argument::{MAX_ELEMENTS, array, flag, output, text};
use super::callback::UserData;
use super::handle::{self, Handle};
use super::panic::boundary;
use super::response::trtllm_response;
use super::sampling::trtllm_sampling;
use super::sized;
use super::status::trtllm_status;
use crate::error::{Error, Result};
use crate::executor::{Input, Request};
use crate::sampling::{LogitBias, SamplingParams};
use crate::types::heap;

/// Most stop strings, stop sequences or logit biases of one request.
const MAX_LIST: usize = 4096;
/// Most bytes of a salt.
const MAX_SALT_BYTES: usize = 256;

/// Receives the responses of a request on one of the library's threads, in order, one at a time per executor.
///
/// `response` is borrowed: it is destroyed when the callback returns. The callback may submit and cancel requests; it must
/// not unwind, and destroying or shutting down an executor inside it fails with `TRTLLM_STATUS_WOULD_DEADLOCK`. A slow
/// callback delays other responses, never the generation.
pub type trtllm_response_callback =
    Option<unsafe extern "C" fn(user_data: *mut c_void, response: *const trtllm_response)>;

/// Frees user data. Called exactly once, possibly on one of the library's threads; must not unwind.
pub type trtllm_user_data_free = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// A request (handle).
pub struct trtllm_request {
    _private: (),
}

impl Handle for trtllm_request {
    type Object = Mutex<Draft>;
    const KIND: u8 = 1;
    const NAME: &'static str = "trtllm_request";
}

/// A function of the caller with its user data.
#[derive(Clone)]
pub(super) struct Callback {
    pub function: unsafe extern "C" fn(*mut c_void, *const trtllm_response),
    pub user_data: Arc<UserData>,
}

/// What a request handle stands for.
pub struct Draft {
    input: Option<Input>,
    /// `None`: the engine's generation defaults.
    sampling: Option<SamplingParams>,
    stop_strings: Vec<String>,
    stop_sequences: Vec<Vec<u32>>,
    logit_bias: Vec<LogitBias>,
    stream: bool,
    time_limit: Option<Duration>,
    salt: Vec<u8>,
    context_logits: bool,
    generation_logits: bool,
    callback: Option<Callback>,
}

impl Draft {
    fn new() -> Self {
        Self {
            input: None,
            sampling: None,
            stop_strings: Vec::new(),
            stop_sequences: Vec::new(),
            logit_bias: Vec::new(),
            stream: true,
            time_limit: None,
            salt: Vec::new(),
            context_logits: false,
            generation_logits: false,
            callback: None,
        }
    }

    /// The request to submit; `defaults` are the engine's generation defaults.
    pub(super) fn request(&self, defaults: impl FnOnce() -> SamplingParams) -> Result<Request> {
        let input =
            match self.input.as_ref().ok_or_else(|| Error::argument("request", "has no text, tokens or chat"))? {
                Input::Text(text) => Input::Text(heap::text(text, "text")?),
                Input::Tokens(tokens) => Input::Tokens(heap::copy(tokens, "tokens")?),
                Input::Chat(messages) => Input::Chat(heap::text(messages, "messages")?),
            };
        // Neither holds lists.
        let mut sampling = self.sampling.clone().unwrap_or_else(defaults);
        sampling.stop_strings = heap::vector(self.stop_strings.len(), "stop strings")?;
        for text in &self.stop_strings {
            sampling.stop_strings.push(heap::text(text, "stop string")?);
        }
        sampling.stop_sequences = heap::vector(self.stop_sequences.len(), "stop sequences")?;
        for tokens in &self.stop_sequences {
            sampling.stop_sequences.push(heap::copy(tokens, "stop sequence")?);
        }
        sampling.logit_bias = heap::copy(&self.logit_bias, "logit biases")?;
        Ok(Request {
            input,
            sampling,
            stream: self.stream,
            time_limit: self.time_limit,
            salt: self.salt.clone(),
            return_context_logits: self.context_logits,
            return_generation_logits: self.generation_logits,
        })
    }

    pub(super) fn callback(&self) -> Option<Callback> {
        self.callback.clone()
    }
}

/// Creates a request: no prompt yet, the engine's sampling defaults, streaming, delivered by `trtllm_executor_await`.
///
/// Ownership: returns an owned handle; destroy it with `trtllm_request_destroy`. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_request_create(request: *mut *mut trtllm_request) -> trtllm_status {
    boundary("trtllm_request_create", || {
        // SAFETY: as the C contract says.
        let place = unsafe { output(request, "request") }?;
        place.write(handle::insert(Arc::new(Mutex::new(Draft::new())))?);
        Ok(())
    })
}

/// Destroys a request; NULL is fine. What was submitted from it goes on.
///
/// Ownership: takes `request`. Thread safety: safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_request_destroy(request: *mut trtllm_request) -> trtllm_status {
    boundary("trtllm_request_destroy", || handle::remove(request, "request").map(drop))
}

/// Makes `length` bytes of UTF-8 text the prompt. Special tokens (such as a leading BOS) are added as the tokenizer says.
///
/// At most 16 MiB. Replaces an earlier prompt. Ownership: copies `text`. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_request_set_text(
    request: *mut trtllm_request,
    text: *const c_char,
    length: usize,
) -> trtllm_status {
    change(request, "trtllm_request_set_text", |draft| {
        // SAFETY: as the C contract says.
        draft.input = Some(Input::Text(heap::text(unsafe { self::text(text, length, "text") }?, "text")?));
        Ok(())
    })
}

/// Makes `count` token ids the prompt, exactly as the model shall see them.
///
/// At most 16777216. Replaces an earlier prompt. Ownership: copies `tokens`. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_request_set_tokens(
    request: *mut trtllm_request,
    tokens: *const u32,
    count: usize,
) -> trtllm_status {
    change(request, "trtllm_request_set_tokens", |draft| {
        // SAFETY: as the C contract says.
        let tokens = unsafe { array(tokens, count, MAX_ELEMENTS, "tokens") }?;
        draft.input = Some(Input::Tokens(heap::copy(tokens, "tokens")?));
        Ok(())
    })
}

/// Makes a conversation the prompt: a JSON array of `{"role": ..., "content": ...}`, rendered by the engine's chat template
/// up to where the assistant's answer begins.
///
/// At most 16 MiB. Replaces an earlier prompt. Ownership: copies `messages`. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_request_set_chat(
    request: *mut trtllm_request,
    messages: *const c_char,
    length: usize,
) -> trtllm_status {
    change(request, "trtllm_request_set_chat", |draft| {
        // SAFETY: as the C contract says.
        draft.input = Some(Input::Chat(heap::text(unsafe { text(messages, length, "messages") }?, "messages")?));
        Ok(())
    })
}

/// Sets the sampling parameters; NULL: back to the engine's defaults.
///
/// Ownership: copies `sampling`. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_request_set_sampling(
    request: *mut trtllm_request,
    sampling: *const trtllm_sampling,
) -> trtllm_status {
    change(request, "trtllm_request_set_sampling", |draft| {
        if sampling.is_null() {
            draft.sampling = None;
            return Ok(());
        }
        // SAFETY: as the C contract says.
        draft.sampling = Some(unsafe { sized::read(sampling, "sampling") }?.to_params()?);
        Ok(())
    })
}

/// Adds a text that ends the generation; it is not delivered itself. Not empty.
///
/// Ownership: copies `text`. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_request_add_stop_string(
    request: *mut trtllm_request,
    text: *const c_char,
    length: usize,
) -> trtllm_status {
    change(request, "trtllm_request_add_stop_string", |draft| {
        // SAFETY: as the C contract says.
        let text = unsafe { self::text(text, length, "text") }?;
        if text.is_empty() {
            return Err(Error::argument("text", "is empty"));
        }
        push(&mut draft.stop_strings, heap::text(text, "stop string")?, "stop strings")
    })
}

/// Adds a sequence of tokens that ends the generation; it is delivered as tokens, not as text. Not empty.
///
/// Ownership: copies `tokens`. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_request_add_stop_tokens(
    request: *mut trtllm_request,
    tokens: *const u32,
    count: usize,
) -> trtllm_status {
    change(request, "trtllm_request_add_stop_tokens", |draft| {
        // SAFETY: as the C contract says.
        let tokens = unsafe { array(tokens, count, MAX_ELEMENTS, "tokens") }?;
        if tokens.is_empty() {
            return Err(Error::argument("count", "is 0"));
        }
        push(&mut draft.stop_sequences, heap::copy(tokens, "stop sequence")?, "stop sequences")
    })
}

/// Adds `bias` to the logit of `token`; minus infinity bans the token.
///
/// Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_request_add_logit_bias(
    request: *mut trtllm_request,
    token: u32,
    bias: f32,
) -> trtllm_status {
    change(request, "trtllm_request_add_logit_bias", |draft| {
        push(&mut draft.logit_bias, LogitBias { token, bias }, "logit biases")
    })
}

/// 1: responses come as tokens come (the default); 0: one response per sequence, at its end.
///
/// Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_request_set_stream(request: *mut trtllm_request, stream: i32) -> trtllm_status {
    change(request, "trtllm_request_set_stream", |draft| {
        draft.stream = flag(stream, "stream")?;
        Ok(())
    })
}

/// Ends the request when it is not finished this many milliseconds after its submission; 0: no limit (the default).
///
/// Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_request_set_time_limit(
    request: *mut trtllm_request,
    milliseconds: u64,
) -> trtllm_status {
    change(request, "trtllm_request_set_time_limit", |draft| {
        draft.time_limit = (milliseconds > 0).then(|| Duration::from_millis(milliseconds));
        Ok(())
    })
}

/// Cached prefixes are shared only between requests of equal salt (for instance one per tenant); empty is the default.
///
/// At most 256 bytes. Ownership: copies `salt`. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_request_set_salt(
    request: *mut trtllm_request,
    salt: *const u8,
    length: usize,
) -> trtllm_status {
    change(request, "trtllm_request_set_salt", |draft| {
        // SAFETY: as the C contract says.
        draft.salt = unsafe { array(salt, length, MAX_SALT_BYTES, "salt") }?.to_vec();
        Ok(())
    })
}

/// Asks for raw logits: `context` 1 for those of every prompt position, `generation` 1 for those that each generated token
/// was sampled from. Both are 0 by default; they are large.
///
/// Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_request_set_return_logits(
    request: *mut trtllm_request,
    context: i32,
    generation: i32,
) -> trtllm_status {
    change(request, "trtllm_request_set_return_logits", |draft| {
        let (context, generation) = (flag(context, "context")?, flag(generation, "generation")?);
        (draft.context_logits, draft.generation_logits) = (context, generation);
        Ok(())
    })
}

/// Delivers the responses to `callback` instead of `trtllm_executor_await`; NULL: back to await.
///
/// `user_data` is passed to the callback as it is. `user_data_free` may be NULL; otherwise it is called exactly once, when
/// this call succeeded and then the callback was replaced or the request destroyed, and every submission made with it has
/// ended. Ownership: takes `user_data` when it succeeds. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_request_set_callback(
    request: *mut trtllm_request,
    callback: trtllm_response_callback,
    user_data: *mut c_void,
    user_data_free: trtllm_user_data_free,
) -> trtllm_status {
    boundary("trtllm_request_set_callback", || {
        let draft = handle::get(request, "request")?;
        if callback.is_none() && user_data_free.is_some() {
            return Err(Error::argument("user_data_free", "is given without a callback"));
        }
        let callback = callback
            .map(|function| Callback { function, user_data: Arc::new(UserData::new(user_data, user_data_free)) });
        // The old one is dropped after the lock is released: its finalizer may use this request.
        let old = std::mem::replace(&mut draft.lock().callback, callback);
        drop(old);
        Ok(())
    })
}

fn change(request: *mut trtllm_request, function: &str, body: impl FnOnce(&mut Draft) -> Result<()>) -> trtllm_status {
    boundary(function, || body(&mut handle::get(request, "request")?.lock()))
}

fn push<T>(list: &mut Vec<T>, item: T, what: &str) -> Result<()> {
    if list.len() == MAX_LIST {
        return Err(Error::argument("request", format!("already has {MAX_LIST} {what}")));
    }
    heap::push(list, item, what)
}
