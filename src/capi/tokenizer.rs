//! The tokenizer and the chat template of an engine.

use std::ffi::c_char;

use super::argument::{self, MAX_ELEMENTS, array, flag, output, text};
use super::engine::{Loaded, trtllm_engine};
use super::handle::{self, Handle};
use super::panic::boundary;
use super::status::trtllm_status;
use crate::error::Error;

/// A tokenizer (handle).
pub struct trtllm_tokenizer {
    _private: (),
}

impl Handle for trtllm_tokenizer {
    type Object = Loaded;
    const KIND: u8 = 4;
    const NAME: &'static str = "trtllm_tokenizer";
}

/// Gives access to the tokenizer of an engine.
///
/// Fails with `TRTLLM_STATUS_NOT_FOUND` when the engine was built without one.
/// Ownership: returns an owned handle, which keeps the engine alive. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_tokenizer_create(
    engine: *const trtllm_engine,
    tokenizer: *mut *mut trtllm_tokenizer,
) -> trtllm_status {
    boundary("trtllm_tokenizer_create", || {
        let engine = handle::get(engine, "engine")?;
        // SAFETY: as the C contract says.
        let place = unsafe { output(tokenizer, "tokenizer") }?;
        engine.tokenizer()?;
        place.write(handle::insert::<trtllm_tokenizer>(engine)?);
        Ok(())
    })
}

/// Destroys a tokenizer; NULL is fine.
///
/// Ownership: takes `tokenizer`. Thread safety: safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_tokenizer_destroy(tokenizer: *mut trtllm_tokenizer) -> trtllm_status {
    boundary("trtllm_tokenizer_destroy", || handle::remove(tokenizer, "tokenizer").map(drop))
}

/// Turns `length` bytes of UTF-8 text into tokens; `add_special_tokens` 1 adds the special tokens of a prompt (such as BOS).
///
/// At most 16 MiB of text. Ownership: borrows `text`; copies `count` tokens into `tokens`, which has room for `capacity`,
/// see "Results of unknown size" in trtllm.h. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_tokenizer_encode(
    tokenizer: *const trtllm_tokenizer,
    text: *const c_char,
    length: usize,
    add_special_tokens: i32,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> trtllm_status {
    boundary("trtllm_tokenizer_encode", || {
        let engine = handle::get(tokenizer, "tokenizer")?;
        // SAFETY: as the C contract says.
        let (text, place) = unsafe {
            (self::text(text, length, "text")?, argument::buffer(tokens, capacity, count, argument::TOKENS)?)
        };
        let special = flag(add_special_tokens, "add_special_tokens")?;
        place.write(&engine.tokenizer()?.encode(text, special)?)
    })
}

/// Turns tokens into UTF-8 text; `skip_special_tokens` 1 leaves special tokens out. Bytes that are no whole character become
/// U+FFFD; an id outside the vocabulary has no text.
///
/// Ownership: borrows `tokens`; copies the text and a NUL into `buffer`, see "Results of unknown size" in trtllm.h.
/// Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_tokenizer_decode(
    tokenizer: *const trtllm_tokenizer,
    tokens: *const u32,
    count: usize,
    skip_special_tokens: i32,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> trtllm_status {
    boundary("trtllm_tokenizer_decode", || {
        let engine = handle::get(tokenizer, "tokenizer")?;
        // SAFETY: as the C contract says.
        let (tokens, place) = unsafe {
            (array(tokens, count, MAX_ELEMENTS, "tokens")?, argument::buffer(buffer, capacity, length, argument::TEXT)?)
        };
        let skip = flag(skip_special_tokens, "skip_special_tokens")?;
        place.write_text(&engine.tokenizer()?.decode(tokens, skip)?)
    })
}

/// Renders a conversation, a JSON array of `{"role": ..., "content": ...}`, by the engine's chat template.
/// `add_generation_prompt` 1 ends it where the assistant's answer begins.
///
/// Fails with `TRTLLM_STATUS_NOT_FOUND` when the engine has no chat template. Encode the result without special tokens: the
/// template has put them in. Ownership: borrows `messages`; copies the text and a NUL into `buffer`, see "Results of unknown
/// size" in trtllm.h. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_tokenizer_apply_chat_template(
    tokenizer: *const trtllm_tokenizer,
    messages: *const c_char,
    messages_length: usize,
    add_generation_prompt: i32,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> trtllm_status {
    boundary("trtllm_tokenizer_apply_chat_template", || {
        let engine = handle::get(tokenizer, "tokenizer")?;
        // SAFETY: as the C contract says.
        let (messages, place) = unsafe {
            (text(messages, messages_length, "messages")?, argument::buffer(buffer, capacity, length, argument::TEXT)?)
        };
        let prompt = flag(add_generation_prompt, "add_generation_prompt")?;
        let messages = serde_json::from_str(messages).map_err(|e| Error::argument("messages", e.to_string()))?;
        place.write_text(&engine.template()?.render(&messages, None, prompt)?)
    })
}
