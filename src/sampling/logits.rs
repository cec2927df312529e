//! Changes to a row of logits that depend on what was said before: penalties, bias, bans.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::error::Result;
use crate::runtime::{Adjustment, Change, SampleRow};
use crate::sampling::SamplingParams;
use crate::types::heap;

/// What one sequence has said, kept as the changes that it makes to the next row of logits.
#[derive(Debug)]
pub(super) struct History {
    params: Arc<SamplingParams>,
    /// Ascending by token, those of one token in the order in which they apply. Tokens are noted as seen only when a
    /// penalty needs them, and bans leave once enough was said.
    adjustments: Vec<Adjustment>,
    generated: u32,
}

impl History {
    /// Takes the memory of all changes that the sequence can ever make.
    pub(super) fn new(params: Arc<SamplingParams>, prompt: &[u32], eos: &[u32]) -> Result<Self> {
        let seen = if params.repetition_penalty == 1.0 { &[] } else { prompt };
        let mut history = Self { params, adjustments: Vec::new(), generated: 0 };
        let generated = if history.penalises() { history.params.max_tokens as usize } else { 0 };
        let most = seen.len() + history.params.logit_bias.len() + eos.len() + generated;
        history.adjustments = heap::vector(most, "changes to logits")?;
        let seen = seen.iter().map(|&token| Adjustment { token, change: Change::Seen { generated: 0 } });
        let biases =
            history.params.logit_bias.iter().map(|b| Adjustment { token: b.token, change: Change::Bias(b.bias) });
        let banned = eos.iter().filter(|_| history.params.min_tokens > 0);
        let bans = banned.map(|&token| Adjustment { token, change: Change::Ban });
        history.adjustments.extend(seen);
        history.adjustments.sort_unstable_by_key(|adjustment| adjustment.token);
        history.adjustments.dedup();
        history.adjustments.extend(biases.chain(bans));
        // A stable sort would take memory; biases of one token add up in any order, so that theirs need only be fixed.
        history.adjustments.sort_unstable_by(in_order);
        Ok(history)
    }

    /// Tokens generated so far.
    pub(super) fn generated(&self) -> u32 {
        self.generated
    }

    /// The changes to the next row.
    pub(super) fn adjustments(&self) -> &[Adjustment] {
        &self.adjustments
    }

    /// Appends the changes to a row: the next one or, with `ahead`, the one after it.
    pub(super) fn append_to(&self, adjustments: &mut Vec<Adjustment>, ahead: bool) {
        let bans = self.generated + u32::from(ahead) < self.params.min_tokens;
        adjustments.extend(self.adjustments.iter().filter(|a| bans || a.change != Change::Ban));
    }

    /// Adds a generated token.
    pub(super) fn record(&mut self, token: u32) {
        self.generated += 1;
        if self.generated == self.params.min_tokens {
            self.adjustments.retain(|adjustment| adjustment.change != Change::Ban);
        }
        if self.penalises() {
            self.note_generated(token);
        }
    }

    /// Whether it matters which tokens were generated.
    pub(super) fn penalises(&self) -> bool {
        let p = &self.params;
        p.repetition_penalty != 1.0 || p.presence_penalty != 0.0 || p.frequency_penalty != 0.0
    }

    fn note_generated(&mut self, token: u32) {
        let at = self.adjustments.partition_point(|adjustment| adjustment.token < token);
        match self.adjustments.get_mut(at) {
            Some(Adjustment { token: found, change: Change::Seen { generated } }) if *found == token => *generated += 1,
            _ => self.adjustments.insert(at, Adjustment { token, change: Change::Seen { generated: 1 } }),
        }
    }
}

/// By token, and those of one token as they apply.
fn in_order(a: &Adjustment, b: &Adjustment) -> Ordering {
    let rank = |change: &Change| match *change {
        Change::Seen { .. } => (0, 0.0),
        Change::Bias(bias) => (1, bias),
        Change::Ban => (2, 0.0),
    };
    let ((rank_a, bias_a), (rank_b, bias_b)) = (rank(&a.change), rank(&b.change));
    a.token.cmp(&b.token).then(rank_a.cmp(&rank_b)).then(bias_a.total_cmp(&bias_b))
}

/// Changes a row of logits in place; `last` counts as one more generated token. Values stay below +inf, so that extreme
/// penalties cannot make the row meaningless.
pub(super) fn adjust(logits: &mut [f32], row: &SampleRow, adjustments: &[Adjustment], last: Option<u32>) {
    let is_noted = |token: u32| {
        let at = adjustments.partition_point(|adjustment| adjustment.token < token);
        adjustments.get(at).is_some_and(|a| a.token == token && matches!(a.change, Change::Seen { .. }))
    };
    if let Some(token) = last.filter(|token| !is_noted(*token)) {
        change(logits, token, |logit| penalise(logit, row, 1));
    }
    for &Adjustment { token, change: by } in adjustments {
        change(logits, token, |logit| match by {
            Change::Seen { generated } => penalise(logit, row, generated + u32::from(last == Some(token))),
            Change::Bias(bias) => logit + bias,
            Change::Ban => f32::NEG_INFINITY,
        });
    }
}

fn penalise(logit: f32, row: &SampleRow, generated: u32) -> f32 {
    let repeated = if logit > 0.0 { logit / row.repetition_penalty } else { logit * row.repetition_penalty };
    if generated == 0 {
        return repeated;
    }
    repeated - row.presence_penalty - row.frequency_penalty * generated as f32
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
    use crate::sampling::{LogitBias, Sampler};
    use proptest::prelude::*;

    fn sampler(change: impl FnOnce(&mut SamplingParams), prompt: &[u32], output: &[u32]) -> Sampler {
        let mut params = SamplingParams::default();
        change(&mut params);
        let mut sampler = Sampler::new(Arc::new(params), 0, prompt, &[3, 900]).unwrap();
        output.iter().for_each(|&token| sampler.record(token));
        sampler
    }

    /// A row of logits for the next token; with `last` for the one after it.
    fn adjusted(sampler: &Sampler, last: Option<u32>) -> Vec<f32> {
        let (mut logits, mut adjustments) = (vec![1.0, -1.0, 2.0, 4.0], Vec::new());
        let row = sampler.row(0, 0, last.is_some(), &mut adjustments);
        adjust(&mut logits, &row, &adjustments, last.filter(|_| row.slot_is_last));
        logits
    }

    fn applied(sampler: &Sampler) -> Vec<f32> {
        adjusted(sampler, None)
    }

    #[test]
    fn nothing_changes_by_default() {
        assert_eq!(sampler(|_| {}, &[0, 1], &[2]).adjustments(), 0);
    }

    #[test]
    fn repetition_covers_prompt_and_output() {
        let s = sampler(|p| p.repetition_penalty = 2.0, &[0, 1, 0], &[2, 2]);
        assert_eq!(applied(&s), [0.5, -2.0, 1.0, 4.0]);
    }

    #[test]
    fn presence_and_frequency_cover_output_only() {
        let s = sampler(|p| (p.presence_penalty, p.frequency_penalty) = (0.5, 0.25), &[0], &[2, 2, 1]);
        assert_eq!(applied(&s), [1.0, -1.75, 1.0, 4.0]);
    }

    #[test]
    fn repetition_leaves_unseen_and_presence_leaves_prompt() {
        let s = sampler(|p| (p.repetition_penalty, p.presence_penalty) = (2.0, 1.0), &[0], &[2]);
        assert_eq!(applied(&s), [0.5, -1.0, 0.0, 4.0]);
    }

    #[test]
    fn biases_add_up_and_ban() {
        let bias = |token, bias| LogitBias { token, bias };
        let s = sampler(|p| p.logit_bias = vec![bias(0, 1.0), bias(1, f32::NEG_INFINITY), bias(0, 1.5)], &[], &[]);
        assert_eq!(applied(&s), [3.5, f32::NEG_INFINITY, 2.0, 4.0]);
    }

    #[test]
    fn penalties_come_before_biases() {
        let bias = vec![LogitBias { token: 2, bias: 3.0 }];
        let s = sampler(|p| (p.repetition_penalty, p.logit_bias) = (2.0, bias), &[], &[2]);
        assert_eq!(applied(&s), [1.0, -1.0, 4.0, 4.0]);
    }

    #[test]
    fn eos_is_banned_until_min_tokens() {
        let banned = sampler(|p| p.min_tokens = 2, &[], &[0]);
        assert_eq!(applied(&banned)[3], f32::NEG_INFINITY);
        assert_eq!(adjusted(&banned, Some(0))[3], 4.0);
        assert_eq!(sampler(|p| p.min_tokens = 2, &[], &[0, 0]).adjustments(), 0);
    }

    #[test]
    fn extremes_stay_below_infinity() {
        let s = sampler(
            |p| {
                p.repetition_penalty = f32::MIN_POSITIVE;
                p.presence_penalty = -f32::MAX;
                p.frequency_penalty = -f32::MAX;
            },
            &[],
            &[2, 2],
        );
        assert_eq!(applied(&s)[2], f32::MAX);
    }

    proptest! {
        #[test]
        fn a_token_in_the_slot_counts_like_a_recorded_one(
            (repetition, presence, frequency) in (1u32..4, 0u32..3, 0u32..3),
            (prompt, output) in (prop::collection::vec(0u32..4, 0..4), prop::collection::vec(0u32..4, 0..5)),
            (last, min_tokens, biased) in (0u32..4, 0u32..6, prop::collection::vec(0u32..4, 0..3)),
        ) {
            let with = |output: &[u32]| {
                let set = |p: &mut SamplingParams| {
                    p.repetition_penalty = repetition as f32 / 2.0;
                    (p.presence_penalty, p.frequency_penalty) = (presence as f32 / 4.0, frequency as f32 / 8.0);
                    p.min_tokens = min_tokens;
                    p.logit_bias = biased.iter().map(|&token| LogitBias { token, bias: 0.5 }).collect();
                };
                sampler(set, &prompt, output)
            };
            let recorded = [&output[..], &[last]].concat();
            prop_assert_eq!(adjusted(&with(&output), Some(last)), applied(&with(&recorded)));
        }
    }
}
