//! From sampled tokens to what is delivered: stops, text, the end of a sequence.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::Result;
use crate::executor::FinishReason;
use crate::sampling::{Sampled, SamplingParams, StopMatcher, StopText, TokenInfo};
use crate::text::{Detokenizer, Tokenizer};

/// What was generated and not yet delivered.
#[derive(Debug, Default)]
pub(super) struct Delta {
    pub(super) text: String,
    pub(super) tokens: Vec<u32>,
    pub(super) logprobs: Vec<TokenInfo>,
    pub(super) logits: Vec<f32>,
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
    /// Without a tokenizer there are tokens and no text.
    pub(super) fn new(
        params: Arc<SamplingParams>,
        eos: Arc<[u32]>,
        tokenizer: Option<&Tokenizer>,
        prompt: &[u32],
    ) -> Result<Self> {
        let detokenizer = tokenizer.map(|t| Detokenizer::new(t.clone(), prompt, true)).transpose()?;
        let stop_sequences = StopMatcher::new(params.stop_sequences.iter().cloned());
        let stop_text = StopText::new(&params.stop_strings);
        let (held, delta) = (VecDeque::new(), Delta::default());
        Ok(Self { params, eos, detokenizer, stop_sequences, stop_text, held, generated: 0, delta })
    }

    /// Takes the next token; says when the sequence is complete with it.
    ///
    /// # Errors
    /// Whatever the detokenizer says of its tokens.
    pub(super) fn push(&mut self, sampled: Sampled) -> Result<Option<FinishReason>> {
        let token = sampled.token;
        self.generated += 1;
        self.delta.tokens.push(token);
        self.delta.logprobs.extend(sampled.info);
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
    pub(super) fn push_logits(&mut self, row: &[f32]) {
        self.delta.logits.extend_from_slice(row);
    }

    /// Delivers what is held back: nothing follows. True when a stop string turned up in it.
    pub(super) fn close(&mut self) -> Result<bool> {
        let armed = self.generated >= self.params.min_tokens;
        let mut stopped = self.speak(0, armed)?;
        if let Some(detokenizer) = self.detokenizer.as_mut().filter(|_| !stopped) {
            stopped = self.stop_text.push(detokenizer.flush()?, armed, &mut self.delta.text);
        }
        if !stopped {
            self.stop_text.finish(&mut self.delta.text);
        }
        Ok(stopped)
    }

    /// What is new since the last call.
    pub(super) fn take(&mut self) -> Delta {
        std::mem::take(&mut self.delta)
    }

    /// Turns all held tokens but the last `keep` into text; true when a stop string is complete.
    fn speak(&mut self, keep: usize, armed: bool) -> Result<bool> {
        while self.held.len() > keep {
            let token = self.held.pop_front().expect("the loop checked the length");
            let Some(detokenizer) = &mut self.detokenizer else { continue };
            if self.stop_text.push(detokenizer.push(token)?, armed, &mut self.delta.text) {
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
