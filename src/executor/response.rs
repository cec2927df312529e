//! What comes back. Every accepted request ends in exactly one response with `last` set.

use std::time::Duration;

use crate::error::Error;
use crate::executor::request::RequestId;
use crate::sampling::TokenInfo;

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// An EOS token.
    Eos,
    /// A stop string or stop sequence.
    Stop,
    /// `max_tokens` or the sequence limit.
    Length,
    Cancelled,
    TimeLimit,
    /// The request failed; `Response::error` says why.
    Error,
}

/// Times and counts of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestStats {
    pub prompt_tokens: usize,
    /// Prompt tokens whose cache blocks were reused.
    pub cached_tokens: usize,
    /// Generated tokens over all sequences.
    pub generated_tokens: usize,
    pub preemptions: usize,
    /// From submission to the first scheduled step.
    pub queued: Duration,
    /// From submission to the first token.
    pub first_token: Duration,
    /// From submission to the end.
    pub total: Duration,
}

/// A piece of a request's output.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub request: RequestId,
    /// Which of the request's `n` sequences.
    pub sequence: u32,
    /// New text; valid UTF-8, may be empty.
    pub text: String,
    /// New tokens.
    pub tokens: Vec<u32>,
    /// One entry per token when log-probabilities were asked for.
    pub logprobs: Vec<TokenInfo>,
    /// `[prompt tokens, vocab]` f32 when asked for, once.
    pub context_logits: Vec<f32>,
    /// `[tokens, vocab]` f32 when asked for.
    pub generation_logits: Vec<f32>,
    /// Set in the last response of this sequence.
    pub finish: Option<FinishReason>,
    /// Set when the sequence failed.
    pub error: Option<Error>,
    /// No further response of this request follows.
    pub last: bool,
    /// Filled in the last response.
    pub stats: RequestStats,
}
