//! Changes to a row of logits that depend on what was said before: penalties, bias, bans.

use std::collections::HashMap;
use std::sync::Arc;

use crate::sampling::SamplingParams;

/// The logits processors of one sequence, with the history that they look at.
#[derive(Debug)]
pub(super) struct Processors {
    params: Arc<SamplingParams>,
    /// Tokens of prompt and output, and how often each was generated; kept only when a penalty needs them.
    seen: HashMap<u32, u32>,
    eos: Vec<u32>,
    generated: u32,
}

impl Processors {
    pub(super) fn new(params: Arc<SamplingParams>, prompt: &[u32], eos: &[u32]) -> Self {
        let repeats = params.repetition_penalty != 1.0;
        let seen = prompt.iter().filter(|_| repeats).map(|&token| (token, 0)).collect();
        let eos = eos.iter().copied().filter(|_| params.min_tokens > 0).collect();
        Self { params, seen, eos, generated: 0 }
    }

    /// Tokens generated so far.
    pub(super) fn generated(&self) -> u32 {
        self.generated
    }

    /// Whether [`Self::apply`] would change anything.
    pub(super) fn active(&self) -> bool {
        self.penalises() || !self.params.logit_bias.is_empty() || self.bans_eos()
    }

    /// Changes a row in place. Values stay below +inf, so that extreme penalties cannot make the row meaningless.
    pub(super) fn apply(&self, logits: &mut [f32]) {
        for (&token, &generated) in &self.seen {
            change(logits, token, |logit| self.penalise(logit, generated));
        }
        for entry in &self.params.logit_bias {
            change(logits, entry.token, |logit| logit + entry.bias);
        }
        if self.bans_eos() {
            for &token in &self.eos {
                change(logits, token, |_| f32::NEG_INFINITY);
            }
        }
    }

    /// Adds a generated token to the history.
    pub(super) fn record(&mut self, token: u32) {
        self.generated += 1;
        if self.penalises() {
            *self.seen.entry(token).or_default() += 1;
        }
    }

    fn penalise(&self, logit: f32, generated: u32) -> f32 {
        let p = &self.params;
        let repeated = if logit > 0.0 { logit / p.repetition_penalty } else { logit * p.repetition_penalty };
        if generated == 0 {
            return repeated;
        }
        repeated - p.presence_penalty - p.frequency_penalty * generated as f32
    }

    fn penalises(&self) -> bool {
        let p = &self.params;
        p.repetition_penalty != 1.0 || p.presence_penalty != 0.0 || p.frequency_penalty != 0.0
    }

    fn bans_eos(&self) -> bool {
        self.generated < self.params.min_tokens
    }
}

/// Changes one logit; a token that is already banned stays so, and an id beyond the row is not there to be changed.
fn change(logits: &mut [f32], token: u32, by: impl FnOnce(f32) -> f32) {
    if let Some(logit) = logits.get_mut(token as usize).filter(|l| **l != f32::NEG_INFINITY) {
        *logit = by(*logit).min(f32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::LogitBias;

    fn processors(change: impl FnOnce(&mut SamplingParams), prompt: &[u32], output: &[u32]) -> Processors {
        let mut params = SamplingParams::default();
        change(&mut params);
        let mut processors = Processors::new(Arc::new(params), prompt, &[3, 900]);
        output.iter().for_each(|&t| processors.record(t));
        processors
    }

    fn applied(processors: &Processors) -> Vec<f32> {
        let mut row = vec![1.0, -1.0, 2.0, 4.0];
        processors.apply(&mut row);
        row
    }

    #[test]
    fn nothing_is_active_by_default() {
        assert!(!processors(|_| {}, &[0, 1], &[2]).active());
    }

    #[test]
    fn repetition_covers_prompt_and_output() {
        let p = processors(|p| p.repetition_penalty = 2.0, &[0, 1], &[2, 2]);
        assert_eq!(applied(&p), [0.5, -2.0, 1.0, 4.0]);
    }

    #[test]
    fn presence_and_frequency_cover_output_only() {
        let p = processors(|p| (p.presence_penalty, p.frequency_penalty) = (0.5, 0.25), &[0], &[2, 2, 1]);
        assert_eq!(applied(&p), [1.0, -1.75, 1.0, 4.0]);
    }

    #[test]
    fn repetition_leaves_unseen_and_presence_leaves_prompt() {
        let p = processors(|p| (p.repetition_penalty, p.presence_penalty) = (2.0, 1.0), &[0], &[2]);
        assert_eq!(applied(&p), [0.5, -1.0, 0.0, 4.0]);
    }

    #[test]
    fn biases_add_up_and_ban() {
        let bias = |token, bias| LogitBias { token, bias };
        let p = processors(|p| p.logit_bias = vec![bias(0, 1.0), bias(0, 1.5), bias(1, f32::NEG_INFINITY)], &[], &[]);
        assert_eq!(applied(&p), [3.5, f32::NEG_INFINITY, 2.0, 4.0]);
    }

    #[test]
    fn eos_is_banned_until_min_tokens() {
        let banned = processors(|p| p.min_tokens = 2, &[], &[0]);
        assert_eq!(applied(&banned)[3], f32::NEG_INFINITY);
        assert!(!processors(|p| p.min_tokens = 2, &[], &[0, 0]).active());
    }

    #[test]
    fn extremes_stay_below_infinity() {
        let p = processors(
            |p| {
                p.repetition_penalty = f32::MIN_POSITIVE;
                p.presence_penalty = -f32::MAX;
                p.frequency_penalty = -f32::MAX;
            },
            &[],
            &[2, 2],
        );
        assert_eq!(applied(&p)[2], f32::MAX);
    }
}
