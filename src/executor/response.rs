//! What comes back. Every accepted request ends in exactly one response with `last` set.

use crate::error::{Error, Result};
use crate::executor::output::Delta;
use crate::executor::{RequestId, RequestStats};
use crate::sampling::{Logprobs, TokenLogprob};
use crate::types::heap;

/// Larger ones are given away.
const MOST_BLANK_BYTES: usize = 32 << 10;

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
    pub logprobs: Logprobs,
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
            logprobs: Logprobs::default(),
            context_logits: Vec::new(),
            generation_logits: Vec::new(),
            finish: Some(finish),
            error,
            last: true,
            stats: RequestStats::default(),
        }
    }

    /// Appends the next response of the same sequence; neither has ended it.
    ///
    /// # Errors
    /// `OutOfMemory`: it is in disorder then.
    pub(super) fn join(&mut self, next: &Response) -> Result<()> {
        heap::append(&mut self.text, &next.text, "text")?;
        heap::extend(&mut self.tokens, &next.tokens, "tokens")?;
        self.logprobs.append(&next.logprobs)?;
        heap::extend(&mut self.context_logits, &next.context_logits, "returned logits")?;
        heap::extend(&mut self.generation_logits, &next.generation_logits, "returned logits")
    }

    /// What the client is given: a copy, so that the executor's thread has the memory of this one again, or this one
    /// itself where it is the sequence's last or no copy can be made.
    pub(super) fn deliver(self, blanks: &mut Vec<Delta>) -> Response {
        if self.finish.is_some() || blanks.len() == blanks.capacity() || self.bytes() > MOST_BLANK_BYTES {
            return self;
        }
        match self.copy() {
            Ok((text, tokens, logprobs)) => {
                let mut blank =
                    Delta { text: self.text, tokens: self.tokens, logprobs: self.logprobs, logits: Vec::new() };
                blank.clear();
                blanks.push(blank);
                Response { text, tokens, logprobs, ..self }
            }
            Err(_) => self,
        }
    }

    /// Memory that a copy would leave to the executor.
    fn bytes(&self) -> usize {
        let logprobs = self.logprobs.chosen.capacity() + self.logprobs.top.capacity();
        self.text.capacity() + size_of::<u32>() * self.tokens.capacity() + size_of::<TokenLogprob>() * logprobs
    }

    fn copy(&self) -> Result<(String, Vec<u32>, Logprobs)> {
        let mut logprobs = Logprobs::default();
        logprobs.append(&self.logprobs)?;
        Ok((heap::text(&self.text, "text")?, heap::copy(&self.tokens, "tokens")?, logprobs))
    }
}
