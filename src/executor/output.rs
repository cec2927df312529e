//! From sampled tokens to what is delivered: stops, text, the end of a sequence.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::Result;
use crate::executor::FinishReason;
use crate::sampling::{Logprobs, Sampled, SamplingParams, StopMatcher, StopText};
use crate::text::{Detokenizer, Tokenizer};
use crate::types::heap;

/// Text of a token, on average; a longer one grows.
const AVERAGE_TOKEN_BYTES: usize = 8;
/// Tokens whose memory is taken before they are said; more of them grow.
const MOST_AHEAD: usize = 4096;

/// What was generated and not yet delivered.
#[derive(Debug, Default)]
pub(super) struct Delta {
    pub(super) text: String,
    pub(super) tokens: Vec<u32>,
    pub(super) logprobs: Logprobs,
    pub(super) logits: Vec<f32>,
}

impl Delta {
    /// Room for what is said in one step.
    pub(super) fn small() -> Self {
        Self { text: String::with_capacity(128), tokens: Vec::with_capacity(8), ..Self::default() }
    }

    /// Empties it for another sequence; the memory stays. Logits go: they are too large to be kept.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.tokens.clear();
        self.logprobs.clear();
        self.logits = Vec::new();
    }
}

/// The output side of one sequence.
pub(super) struct Output {
    params: Arc<SamplingParams>,
    eos: Arc<[u32]>,
    detokenizer: Option<Detokenizer>,
    stop_sequences: StopMatcher<u32>,
    stop_text: StopText,
    /// Tokens that may begin a stop sequence and have no text yet.
    held: VecDeque<u32>,
    generated: u32,
    delta: Delta,
}

impl Output {
    /// Without a tokenizer there are tokens and no text. A sequence that speaks only at its end takes the memory for what
    /// it is going to say, as far as that is known and up to [`MOST_AHEAD`] tokens.
    ///
    /// # Errors
    /// `OutOfMemory`; whatever the detokenizer says of the prompt.
    pub(super) fn new(
        params: Arc<SamplingParams>,
        eos: Arc<[u32]>,
        tokenizer: Option<&Tokenizer>,
        prompt: &[u32],
        streams: bool,
    ) -> Result<Self> {
        let detokenizer = tokenizer.map(|t| Detokenizer::new(t.clone(), prompt, true)).transpose()?;
        let stop_sequences = StopMatcher::new(&params.stop_sequences)?;
        let stop_text = StopText::new(&params.stop_strings)?;
        let held = heap::deque(stop_sequences.longest() + 1, "stops")?;
        let mut delta = Delta::small();
        if !streams {
            let tokens = (params.max_tokens as usize).min(MOST_AHEAD);
            let top = params.logprobs.map_or(0, |top| tokens.saturating_mul(top as usize));
            heap::reserve(&mut delta.tokens, tokens, "tokens")?;
            delta.logprobs.reserve(if params.logprobs.is_some() { tokens } else { 0 }, top)?;
            let bytes = if detokenizer.is_some() { AVERAGE_TOKEN_BYTES * tokens } else { 0 };
            heap::room(&mut delta.text, bytes, "text")?;
        }
        Ok(Self { params, eos, detokenizer, stop_sequences, stop_text, held, generated: 0, delta })
    }

    /// Takes the next token; says when the sequence is complete with it.
    ///
    /// # Errors
    /// `OutOfMemory`; whatever the detokenizer says of its tokens.
    pub(super) fn push(&mut self, sampled: Sampled<'_>) -> Result<Option<FinishReason>> {
        let token = sampled.token;
        self.generated += 1;
        heap::push(&mut self.delta.tokens, token, "tokens")?;
        if let Some(info) = sampled.info {
            self.delta.logprobs.push(info)?;
        }
        let armed = self.generated >= self.params.min_tokens;
        if armed && !self.params.ignore_eos && self.eos.contains(&token) {
            self.close()?;
            return Ok(Some(FinishReason::Eos));
        }
        self.held.push_back(token);
        let stopped = match self.stop_sequences.push(token, armed) {
            Some(length) => {
                self.held.truncate(self.held.len().saturating_sub(length));
                self.close()?;
                true
            }
            None => self.speak(self.stop_sequences.held(), armed)?,
        };
        if stopped {
            return Ok(Some(FinishReason::Stop));
        }
        if self.generated < self.params.max_tokens {
            return Ok(None);
        }
        let stopped = self.close()?;
        Ok(Some(if stopped { FinishReason::Stop } else { FinishReason::Length }))
    }

    /// Adds the logits that the last token was sampled from.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn push_logits(&mut self, row: &[f32]) -> Result<()> {
        heap::extend(&mut self.delta.logits, row, "returned logits")
    }

    /// Delivers what is held back: nothing follows. True when a stop string turned up in it.
    pub(super) fn close(&mut self) -> Result<bool> {
        let armed = self.generated >= self.params.min_tokens;
        let mut stopped = self.speak(0, armed)?;
        if let Some(detokenizer) = self.detokenizer.as_mut().filter(|_| !stopped) {
            stopped = self.stop_text.push(detokenizer.flush()?, armed, &mut self.delta.text)?;
        }
        if !stopped {
            self.stop_text.finish(&mut self.delta.text)?;
        }
        Ok(stopped)
    }

    /// What is new since the last call; what comes next is collected in `blank`.
    pub(super) fn take(&mut self, blank: Delta) -> Delta {
        std::mem::replace(&mut self.delta, blank)
    }

    /// Turns all held tokens but the last `keep` into text; true when a stop string is complete.
    fn speak(&mut self, keep: usize, armed: bool) -> Result<bool> {
        while self.held.len() > keep {
            let token = self.held.pop_front().expect("the loop checked the length");
            let Some(detokenizer) = &mut self.detokenizer else { continue };
            if self.stop_text.push(detokenizer.push(token)?, armed, &mut self.delta.text)? {
                self.held.clear();
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
