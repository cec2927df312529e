//! Refuses parameters that have no meaning, before anything is allocated for them.

use crate::error::{Error, Result};
use crate::sampling::SamplingParams;

/// Most sequences of one request.
pub const MAX_SEQUENCES: u32 = 128;
/// Most log-probabilities beside the chosen token's.
pub const MAX_LOGPROBS: u32 = 1024;
/// Most entries of `logit_bias`.
pub const MAX_BIASES: usize = 4096;
/// Most stop strings, and most stop sequences.
pub const MAX_STOPS: usize = 64;
/// Longest stop string in bytes and stop sequence in tokens.
pub const MAX_STOP_LENGTH: usize = 1024;
const MAX_TEMPERATURE: f32 = 100.0;

impl SamplingParams {
    /// Checks every field against its range and every token id against the model's vocabulary.
    ///
    /// # Errors
    /// `InvalidArgument` that names the first field at fault.
    pub fn validate(&self, vocab_size: usize) -> Result<()> {
        self.check_distribution()?;
        self.check_penalties()?;
        self.check_counts()?;
        self.check_biases(vocab_size)?;
        self.check_stops(vocab_size)
    }

    fn check_distribution(&self) -> Result<()> {
        within("temperature", self.temperature, (0.0..=MAX_TEMPERATURE).contains(&self.temperature), "0 to 100")?;
        within("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0, at most 1")?;
        within("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1")
    }

    fn check_penalties(&self) -> Result<()> {
        let repetition = self.repetition_penalty;
        within("repetition_penalty", repetition, repetition.is_finite() && repetition > 0.0, "finite, above 0")?;
        within("presence_penalty", self.presence_penalty, self.presence_penalty.is_finite(), "finite")?;
        within("frequency_penalty", self.frequency_penalty, self.frequency_penalty.is_finite(), "finite")
    }

    fn check_counts(&self) -> Result<()> {
        within("n", self.n, (1..=MAX_SEQUENCES).contains(&self.n), "1 to 128")?;
        within("max_tokens", self.max_tokens, self.max_tokens > 0, "at least 1")?;
        within("min_tokens", self.min_tokens, self.min_tokens <= self.max_tokens, "at most max_tokens")?;
        let logprobs = self.logprobs.unwrap_or(0);
        within("logprobs", logprobs, logprobs <= MAX_LOGPROBS, "at most 1024")
    }

    fn check_biases(&self, vocab_size: usize) -> Result<()> {
        let count = self.logit_bias.len();
        within("logit_bias", count, count <= MAX_BIASES, "at most 4096 entries")?;
        for entry in &self.logit_bias {
            check_token("logit_bias", entry.token, vocab_size)?;
            let usable = entry.bias.is_finite() || entry.bias == f32::NEG_INFINITY;
            within("logit_bias", entry.bias, usable, "finite or -inf")?;
        }
        Ok(())
    }

    fn check_stops(&self, vocab_size: usize) -> Result<()> {
        check_lengths("stop_strings", &self.stop_strings, String::len)?;
        check_lengths("stop_sequences", &self.stop_sequences, Vec::len)?;
        let ids = self.stop_sequences.iter().flatten();
        ids.copied().try_for_each(|id| check_token("stop_sequences", id, vocab_size))
    }
}

fn check_lengths<T>(field: &str, stops: &[T], length: impl Fn(&T) -> usize) -> Result<()> {
    within(field, stops.len(), stops.len() <= MAX_STOPS, "at most 64 entries")?;
    stops.iter().map(length).try_for_each(|l| within(field, l, (1..=MAX_STOP_LENGTH).contains(&l), "1 to 1024 long"))
}

fn check_token(field: &str, id: u32, vocab_size: usize) -> Result<()> {
    if (id as usize) < vocab_size {
        return Ok(());
    }
    Err(Error::argument(field, format!("token id {id} is outside the vocabulary of {vocab_size}")))
}

fn within(field: &str, value: impl std::fmt::Display, holds: bool, range: &str) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::argument(field, format!("{value} is not in its range: {range}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::LogitBias;

    const VOCAB: usize = 100;

    fn culprit(change: impl FnOnce(&mut SamplingParams)) -> String {
        let mut params = SamplingParams::default();
        change(&mut params);
        match params.validate(VOCAB) {
            Err(Error::InvalidArgument { what, .. }) => what,
            other => panic!("expected an invalid argument, got {other:?}"),
        }
    }

    #[test]
    fn defaults_and_extremes_are_valid() {
        assert_eq!(SamplingParams::default().validate(1), Ok(()));
        let extreme = SamplingParams {
            temperature: 100.0,
            top_k: u32::MAX,
            min_p: 1.0,
            min_tokens: u32::MAX,
            max_tokens: u32::MAX,
            logprobs: Some(MAX_LOGPROBS),
            n: MAX_SEQUENCES,
            seed: u64::MAX,
            logit_bias: vec![LogitBias { token: 99, bias: f32::NEG_INFINITY }],
            stop_strings: vec!["x".repeat(MAX_STOP_LENGTH); MAX_STOPS],
            ..SamplingParams::default()
        };
        assert_eq!(extreme.validate(VOCAB), Ok(()));
    }

    #[test]
    fn each_field_is_named() {
        for bad in [f32::NAN, f32::INFINITY, -0.1, 100.5] {
            assert_eq!(culprit(|p| p.temperature = bad), "temperature");
        }
        for bad in [f32::NAN, 0.0, -1.0, 1.01] {
            assert_eq!(culprit(|p| p.top_p = bad), "top_p");
        }
        for bad in [f32::NAN, -0.1, 1.01] {
            assert_eq!(culprit(|p| p.min_p = bad), "min_p");
        }
        for bad in [f32::NAN, 0.0, -1.0, f32::INFINITY] {
            assert_eq!(culprit(|p| p.repetition_penalty = bad), "repetition_penalty");
        }
        assert_eq!(culprit(|p| p.presence_penalty = f32::NAN), "presence_penalty");
        assert_eq!(culprit(|p| p.frequency_penalty = f32::NEG_INFINITY), "frequency_penalty");
        for bad in [0, MAX_SEQUENCES + 1, 1 << 31] {
            assert_eq!(culprit(|p| p.n = bad), "n");
        }
        assert_eq!(culprit(|p| p.max_tokens = 0), "max_tokens");
        assert_eq!(culprit(|p| (p.min_tokens, p.max_tokens) = (4, 3)), "min_tokens");
        assert_eq!(culprit(|p| p.logprobs = Some(MAX_LOGPROBS + 1)), "logprobs");
    }

    #[test]
    fn lists_are_bounded_and_ids_checked() {
        let bias = |token, bias| vec![LogitBias { token, bias }];
        assert_eq!(culprit(|p| p.logit_bias = bias(100, 0.0)), "logit_bias");
        assert_eq!(culprit(|p| p.logit_bias = bias(0, f32::NAN)), "logit_bias");
        assert_eq!(culprit(|p| p.logit_bias = bias(0, f32::INFINITY)), "logit_bias");
        assert_eq!(culprit(|p| p.logit_bias = bias(0, 0.0).repeat(MAX_BIASES + 1)), "logit_bias");
        assert_eq!(culprit(|p| p.stop_strings = vec![String::new()]), "stop_strings");
        assert_eq!(culprit(|p| p.stop_strings = vec!["x".repeat(MAX_STOP_LENGTH + 1)]), "stop_strings");
        assert_eq!(culprit(|p| p.stop_strings = vec!["x".into(); MAX_STOPS + 1]), "stop_strings");
        assert_eq!(culprit(|p| p.stop_sequences = vec![vec![]]), "stop_sequences");
        assert_eq!(culprit(|p| p.stop_sequences = vec![vec![1, 100]]), "stop_sequences");
    }
}
