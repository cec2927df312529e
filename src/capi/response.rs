//! A response: a piece of a request's output. A request of one sequence ends with exactly one response whose `last` is 1;
//! a request of several sequences marks the end of each by `finish_reason` and its own end by `last`.

use std::ffi::c_char;
use std::mem::offset_of;
use std::ptr;
use std::sync::Arc;

use super::argument::{TEXT, buffer};
use super::handle::{self, Handle, Vacancy};
use super::panic::{boundary, boundary_or};
use super::sized::{self, Growing};
use super::status::trtllm_status;
use crate::executor::{FinishReason, RequestStats, Response};
use crate::sampling::TokenLogprob;

/// A response (handle).
pub struct trtllm_response {
    _private: (),
}

impl Handle for trtllm_response {
    type Object = Delivered;
    const KIND: u8 = 2;
    const NAME: &'static str = "trtllm_response";
}

/// Why a sequence ended.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum trtllm_finish_reason {
    /// It goes on.
    None = 0,
    /// The model ended its text.
    Eos = 1,
    /// A stop string or stop sequence.
    Stop = 2,
    /// `max_tokens`, or the longest sequence that the engine or executor allows.
    Length = 3,
    /// The request was cancelled.
    Cancelled = 4,
    /// The request ran past its time limit.
    TimeLimit = 5,
    /// The sequence failed; `status` and `error_message` say why.
    Error = 6,
}

impl From<Option<FinishReason>> for trtllm_finish_reason {
    fn from(reason: Option<FinishReason>) -> Self {
        match reason {
            None => Self::None,
            Some(FinishReason::Eos) => Self::Eos,
            Some(FinishReason::Stop) => Self::Stop,
            Some(FinishReason::Length) => Self::Length,
            Some(FinishReason::Cancelled) => Self::Cancelled,
            Some(FinishReason::TimeLimit) => Self::TimeLimit,
            Some(FinishReason::Error) => Self::Error,
        }
    }
}

/// A token and the natural logarithm of its probability, before temperature and filters.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct trtllm_token_logprob {
    pub token: u32,
    pub logprob: f32,
}

/// What a response holds. Pointers are borrowed from the response and end with it; an empty array is NULL.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_response_view {
    /// New text: whole UTF-8 characters, possibly none. Never NULL; a NUL follows the last byte.
    pub text: *const c_char,
    /// Bytes of `text`.
    pub text_length: usize,
    /// New tokens.
    pub tokens: *const u32,
    pub token_count: usize,
    /// One entry for each new token when log-probabilities were asked for, otherwise NULL.
    pub logprobs: *const trtllm_token_logprob,
    /// `top_logprobs_per_token` entries for each new token, most likely first.
    pub top_logprobs: *const trtllm_token_logprob,
    pub top_logprobs_per_token: usize,
    /// Logits of the prompt, a row of vocabulary size per prompt token: once per request, when asked for.
    pub context_logits: *const f32,
    /// Number of floats.
    pub context_logits_count: usize,
    /// Logits that the new tokens were sampled from, a row of vocabulary size per new token, when asked for.
    pub generation_logits: *const f32,
    /// Number of floats.
    pub generation_logits_count: usize,
    /// What went wrong when `status` is not OK; otherwise empty, never NULL.
    pub error_message: *const c_char,
    /// The request, as its submission named it.
    pub request_id: u64,
    /// Which of the request's `n` sequences, counted from 0.
    pub sequence: u32,
    /// A `trtllm_finish_reason`; other than NONE in the last response of this sequence.
    pub finish_reason: i32,
    /// A `trtllm_status`; other than OK when the sequence failed.
    pub status: i32,
    /// 1: no further response of this request follows.
    pub last: i32,
}

// SAFETY: twelve words, a u64 and four half words: no padding. Never read from a caller.
unsafe impl Growing for trtllm_response_view {
    const OLDEST_SIZE: usize = 120;
}

const _: () = assert!(size_of::<trtllm_response_view>() == 120);

/// Times and counts of one request; complete in its last response. Times count from the submission, in nanoseconds.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct trtllm_request_stats {
    pub prompt_tokens: u64,
    /// Prompt tokens whose cache blocks were reused.
    pub cached_tokens: u64,
    /// Generated tokens over all sequences.
    pub generated_tokens: u64,
    /// How often the request had to give up its cache blocks.
    pub preemptions: u64,
    /// To the first scheduled step.
    pub queued_ns: u64,
    /// To the first token.
    pub first_token_ns: u64,
    /// To the end.
    pub total_ns: u64,
}

// SAFETY: seven u64.
unsafe impl Growing for trtllm_request_stats {
    const OLDEST_SIZE: usize = 56;
}

const _: () = assert!(size_of::<trtllm_request_stats>() == 56);

impl From<&RequestStats> for trtllm_request_stats {
    fn from(stats: &RequestStats) -> Self {
        let nanoseconds = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            prompt_tokens: stats.prompt_tokens as u64,
            cached_tokens: stats.cached_tokens as u64,
            generated_tokens: stats.generated_tokens as u64,
            preemptions: stats.preemptions as u64,
            queued_ns: nanoseconds(stats.queued),
            first_token_ns: nanoseconds(stats.first_token),
            total_ns: nanoseconds(stats.total),
        }
    }
}

/// A response in the shape that its view points into.
pub struct Delivered {
    response: Response,
    /// The response's text and a NUL.
    text: String,
    /// The error's text and a NUL.
    error_message: String,
}

// Log-probabilities are shown where they lie.
const _: () = assert!(
    size_of::<TokenLogprob>() == size_of::<trtllm_token_logprob>()
        && offset_of!(TokenLogprob, token) == offset_of!(trtllm_token_logprob, token)
        && offset_of!(TokenLogprob, logprob) == offset_of!(trtllm_token_logprob, logprob)
);

impl Delivered {
    pub(super) fn new(mut response: Response) -> Self {
        // Where there is text the executor left room for the NUL.
        let mut text = std::mem::take(&mut response.text);
        text.push('\0');
        let mut error_message = response.error.as_ref().map(ToString::to_string).unwrap_or_default();
        error_message.retain(|c| c != '\0');
        error_message.push('\0');
        Self { response, text, error_message }
    }

    fn view(&self) -> trtllm_response_view {
        let response = &self.response;
        let status = response.error.as_ref().map_or(trtllm_status::Ok, |error| error.status().into());
        trtllm_response_view {
            text: self.text.as_ptr().cast(),
            text_length: self.text.len() - 1,
            tokens: start(&response.tokens),
            token_count: response.tokens.len(),
            logprobs: start(&response.logprobs.chosen).cast(),
            top_logprobs: start(&response.logprobs.top).cast(),
            top_logprobs_per_token: response.logprobs.top_per_token,
            context_logits: start(&response.context_logits),
            context_logits_count: response.context_logits.len(),
            generation_logits: start(&response.generation_logits),
            generation_logits_count: response.generation_logits.len(),
            error_message: self.error_message.as_ptr().cast(),
            request_id: response.request.0,
            sequence: response.sequence,
            finish_reason: trtllm_finish_reason::from(response.finish) as i32,
            status: status as i32,
            last: i32::from(response.last),
        }
    }
}

fn start<T>(items: &[T]) -> *const T {
    if items.is_empty() { ptr::null() } else { items.as_ptr() }
}

/// Fills `view` with what the response holds.
///
/// `view_size`: the size of the caller's `trtllm_response_view`.
/// Ownership: what `view` points to is borrowed until the response is destroyed. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_response_get(
    response: *const trtllm_response,
    view_size: usize,
    view: *mut trtllm_response_view,
) -> trtllm_status {
    boundary("trtllm_response_get", || {
        let response = handle::get(response, "response")?;
        // SAFETY: as the C contract says.
        unsafe { sized::write(&response.view(), view_size, "view_size", view, "view") }
    })
}

/// Fills `stats` with the request's times and counts; they are complete in its last response.
///
/// `stats_size`: the size of the caller's `trtllm_request_stats`.
/// Ownership: borrows `stats`. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_response_get_stats(
    response: *const trtllm_response,
    stats_size: usize,
    stats: *mut trtllm_request_stats,
) -> trtllm_status {
    boundary("trtllm_response_get_stats", || {
        let response = handle::get(response, "response")?;
        let value = trtllm_request_stats::from(&response.response.stats);
        // SAFETY: as the C contract says.
        unsafe { sized::write(&value, stats_size, "stats_size", stats, "stats") }
    })
}

/// The same times and counts as a JSON object; times are in seconds.
///
/// Ownership: copies into `buffer`, see "Results of unknown size" in trtllm.h. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_response_stats_json(
    response: *const trtllm_response,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> trtllm_status {
    boundary("trtllm_response_stats_json", || {
        let response = handle::get(response, "response")?;
        // SAFETY: as the C contract says.
        unsafe { self::buffer(buffer, capacity, length, TEXT) }?.write_text(&response.response.stats.to_json())
    })
}

/// Destroys a response and what its view points to; NULL is fine.
///
/// Ownership: takes `response`. Thread safety: safe, but no thread may go on using what the view points to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_response_destroy(response: *mut trtllm_response) -> trtllm_status {
    boundary("trtllm_response_destroy", || handle::remove(response, "response").map(drop))
}

/// The name of a finish reason without its prefix, e.g. `LENGTH`; `UNKNOWN` for a number that is none.
///
/// Ownership: returns a static string. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_finish_reason_name(finish_reason: i32) -> *const c_char {
    const NAMES: [&std::ffi::CStr; 7] = [c"NONE", c"EOS", c"STOP", c"LENGTH", c"CANCELLED", c"TIME_LIMIT", c"ERROR"];
    let unknown = c"UNKNOWN";
    boundary_or(unknown.as_ptr(), "trtllm_finish_reason_name", || {
        let index = usize::try_from(finish_reason).ok();
        index.and_then(|i| NAMES.get(i)).unwrap_or(&unknown).as_ptr()
    })
}

/// Gives a response to C in a place that waits for it: a response that was taken must not be lost.
pub(super) fn deliver(response: Response, place: Vacancy<trtllm_response>) -> *mut trtllm_response {
    place.fill(Arc::new(Delivered::new(response)))
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::time::Duration;

    use super::*;
    use crate::error::Error;
    use crate::executor::RequestId;
    use crate::sampling::Logprobs;

    fn response() -> Response {
        let logprob = |token, logprob| TokenLogprob { token, logprob };
        Response {
            request: RequestId(9),
            sequence: 1,
            text: "tea".to_owned(),
            tokens: vec![5, 6],
            logprobs: Logprobs {
                chosen: vec![logprob(5, -0.5), logprob(6, -2.0)],
                top: vec![logprob(5, -0.5), logprob(7, -1.0), logprob(8, -0.1), logprob(9, -0.2)],
                top_per_token: 2,
            },
            context_logits: Vec::new(),
            generation_logits: vec![0.0; 4],
            finish: Some(FinishReason::Error),
            error: Some(Error::Numeric { what: "request 9".to_owned(), why: "NaN".to_owned() }),
            last: true,
            stats: RequestStats { prompt_tokens: 3, total: Duration::from_micros(2), ..RequestStats::default() },
        }
    }

    #[test]
    fn a_view_shows_the_whole_response() {
        let delivered = Delivered::new(response());
        let view = delivered.view();
        // SAFETY: `delivered` lives, and its texts end with a NUL.
        let (text, message, top) = unsafe {
            let top = std::slice::from_raw_parts(view.top_logprobs, 2 * view.top_logprobs_per_token);
            (CStr::from_ptr(view.text), CStr::from_ptr(view.error_message), top)
        };
        assert_eq!((text, view.text_length), (c"tea", 3));
        assert_eq!(message, c"numeric failure in request 9: NaN");
        assert_eq!(top.iter().map(|t| t.token).collect::<Vec<_>>(), [5, 7, 8, 9]);
        assert_eq!((view.token_count, view.generation_logits_count), (2, 4));
        assert!(view.context_logits.is_null());
        assert_eq!((view.request_id, view.sequence, view.last), (9, 1, 1));
        assert_eq!((view.finish_reason, view.status), (trtllm_finish_reason::Error as i32, 502));
    }

    #[test]
    fn stats_are_in_nanoseconds() {
        let stats = trtllm_request_stats::from(&response().stats);
        assert_eq!((stats.prompt_tokens, stats.total_ns), (3, 2000));
    }
}
