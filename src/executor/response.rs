//! What comes back. Every accepted request ends in exactly one response with `last` set.

use crate::error::Error;
use crate::executor::{RequestId, RequestStats};
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

/// A piece of a request's output.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub request: RequestId,
    /// Which of the request's `n` sequences.
    pub sequence: u32,
    /// New text; valid UTF-8, may be empty.
    pub text: String,
    /// New tokens, the EOS token or stop sequence that ends them included.
    pub tokens: Vec<u32>,
    /// One entry per token when log-probabilities were asked for.
    pub logprobs: Vec<TokenInfo>,
    /// `[prompt tokens, vocab]` f32 when asked for, once.
    pub context_logits: Vec<f32>,
    /// `[tokens, vocab]` f32 as the model gave them, when asked for.
    pub generation_logits: Vec<f32>,
    /// Set in the last response of this sequence. When a request ends early, sequences that had not begun have none.
    pub finish: Option<FinishReason>,
    /// Set when the sequence failed.
    pub error: Option<Error>,
    /// No further response of this request follows.
    pub last: bool,
    /// Filled in the last response.
    pub stats: RequestStats,
}

impl Response {
    /// The only response of a request that ends before it said anything.
    pub(super) fn ending(request: RequestId, finish: FinishReason, error: Option<Error>) -> Self {
        Self {
            request,
            sequence: 0,
            text: String::new(),
            tokens: Vec::new(),
            logprobs: Vec::new(),
            context_logits: Vec::new(),
            generation_logits: Vec::new(),
            finish: Some(finish),
            error,
            last: true,
            stats: RequestStats::default(),
        }
    }
    /// Appends the next response of the same sequence; neither has ended it.
    pub(super) fn join(&mut self, next: Response) {
        self.text.push_str(&next.text);
        self.tokens.extend(next.tokens);
        self.logprobs.extend(next.logprobs);
        self.context_logits.extend(next.context_logits);
        self.generation_logits.extend(next.generation_logits);
    }
}
