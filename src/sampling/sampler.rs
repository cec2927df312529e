//! Chooses one token from a row of logits.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::runtime::{Adjustment, SampleFault, SampleRow};
use crate::sampling::logits::{History, adjust};
use crate::sampling::{MAX_LOGPROBS, SamplingParams, TokenInfo, TokenLogprob, rng};
use crate::types::heap;

/// A token that may be chosen.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    logit: f32,
    token: u32,
    /// Proportional to the probability; 1 for the most likely token.
    weight: f64,
}

/// Memory that sampling works in; one serves all samplers of a thread.
#[derive(Debug, Default)]
pub struct Scratch {
    logits: Vec<f32>,
    candidates: Vec<Candidate>,
    order: Vec<u32>,
    top: Vec<TokenLogprob>,
}

impl Scratch {
    /// Room for rows of `vocab_size`, so that no later call allocates.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn new(vocab_size: usize) -> Result<Self> {
        let what = "scratch memory of the sampler";
        Ok(Self {
            logits: heap::vector(vocab_size, what)?,
            candidates: heap::vector(vocab_size, what)?,
            order: heap::vector(vocab_size, what)?,
            top: heap::vector(vocab_size.min(MAX_LOGPROBS as usize), what)?,
        })
    }
}

/// A chosen token.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled<'a> {
    pub token: u32,
    /// Set when log-probabilities were asked for.
    pub info: Option<TokenInfo<'a>>,
}

/// Samples one sequence of a request. Token `i` depends on its logits, the parameters, the sequence's history and
/// `(seed, sequence, i)` alone.
#[derive(Debug)]
pub struct Sampler {
    params: Arc<SamplingParams>,
    sequence: u32,
    history: History,
}

impl Sampler {
    /// A sampler for validated parameters; `sequence` is the index among the request's sequences.
    ///
    /// # Errors
    /// `OutOfMemory`: all that it will ever need is taken here.
    pub fn new(params: Arc<SamplingParams>, sequence: u32, prompt: &[u32], eos: &[u32]) -> Result<Self> {
        let history = History::new(params.clone(), prompt, eos)?;
        Ok(Self { params, sequence, history })
    }

    /// Chooses the next token from a row of `vocab_size` logits and adds it to the history.
    ///
    /// # Errors
    /// `Numeric` when the row holds NaN or +inf (no distribution follows from it), or no token that may be chosen.
    pub fn sample<'s>(&mut self, logits: &[f32], scratch: &'s mut Scratch) -> Result<Sampled<'s>> {
        let token = draw(&self.bare_row(false), self.history.adjustments(), None, logits, scratch);
        self.accept(token, logits, scratch)
    }

    /// What a device needs to choose the next token from logit row `row` with sample slot `slot`; with `ahead` the token
    /// after the next one, which is in that slot. Its changes to the logits are appended to `adjustments`.
    pub fn row(&self, row: u32, slot: u32, ahead: bool, adjustments: &mut Vec<Adjustment>) -> SampleRow {
        let first = adjustments.len();
        self.history.append_to(adjustments, ahead);
        let count = adjustments.len() - first;
        let (first_adjustment, adjustments) = (first as u32, count as u32);
        SampleRow { row, slot, first_adjustment, adjustments, ..self.bare_row(ahead) }
    }

    /// The most adjustments that [`row`](Self::row) appends.
    #[must_use]
    pub fn adjustments(&self) -> usize {
        self.history.adjustments().len()
    }

    /// Adds what a device chose from `row` to the history. `logits` is the row as the model gave it, or empty when no
    /// log-probabilities were asked for.
    ///
    /// # Errors
    /// `Numeric` when there is no token.
    pub fn accept<'s>(
        &mut self,
        token: Result<u32, SampleFault>,
        logits: &[f32],
        scratch: &'s mut Scratch,
    ) -> Result<Sampled<'s>> {
        let token = token.map_err(numeric)?;
        let info = match self.params.logprobs {
            None => None,
            Some(top) => {
                let max = largest(logits).map_err(numeric)?;
                Some(TokenInfo::of(logits, max, token, top as usize, &mut scratch.order, &mut scratch.top))
            }
        };
        self.history.record(token);
        Ok(Sampled { token, info })
    }

    /// A sample row without logits, slot and adjustments.
    fn bare_row(&self, ahead: bool) -> SampleRow {
        let p = &self.params;
        SampleRow {
            row: 0,
            slot: 0,
            slot_is_last: ahead && self.history.penalises(),
            keep_logits: p.logprobs.is_some(),
            temperature: p.temperature,
            top_k: p.top_k,
            top_p: p.top_p,
            min_p: p.min_p,
            repetition_penalty: p.repetition_penalty,
            presence_penalty: p.presence_penalty,
            frequency_penalty: p.frequency_penalty,
            seed: p.seed,
            sequence: self.sequence,
            position: self.history.generated() + u32::from(ahead),
            first_adjustment: 0,
            adjustments: 0,
        }
    }

    #[cfg(test)]
    pub(super) fn record(&mut self, token: u32) {
        self.history.record(token);
    }
}

/// Chooses a token from a row of logits: what every device does with a [`SampleRow`]. `last` is the token in the row's
/// slot where that [is last](SampleRow::slot_is_last).
pub fn draw(
    row: &SampleRow,
    adjustments: &[Adjustment],
    last: Option<u32>,
    logits: &[f32],
    scratch: &mut Scratch,
) -> Result<u32, SampleFault> {
    largest(logits)?;
    let logits = match (adjustments, last) {
        ([], None) => logits,
        _ => {
            scratch.logits.clear();
            scratch.logits.extend_from_slice(logits);
            adjust(&mut scratch.logits, row, adjustments, last);
            &scratch.logits
        }
    };
    if row.temperature == 0.0 {
        return most_likely(logits);
    }
    filter(logits, row, &mut scratch.candidates)?;
    Ok(pick(&scratch.candidates, rng::uniform(row.seed, row.sequence, row.position)))
}

/// The largest value of a row that a distribution follows from.
fn largest(logits: &[f32]) -> Result<f32, SampleFault> {
    let (mut max, mut broken) = (f32::NEG_INFINITY, false);
    for &logit in logits {
        broken |= logit.is_nan() | (logit == f32::INFINITY);
        max = if logit > max { logit } else { max };
    }
    if broken {
        return Err(SampleFault::NotFinite);
    }
    if max == f32::NEG_INFINITY {
        return Err(SampleFault::NothingLeft);
    }
    Ok(max)
}

fn numeric(fault: SampleFault) -> Error {
    let why = match fault {
        SampleFault::NotFinite => "a logit is NaN or +inf",
        SampleFault::NothingLeft => "no token has a finite logit, or every token is banned",
    };
    Error::Numeric { what: "logits".into(), why: why.into() }
}

fn most_likely(logits: &[f32]) -> Result<u32, SampleFault> {
    let max = largest(logits)?;
    let at = logits.iter().position(|l| *l == max).expect("the largest value is in its row");
    Ok(at as u32)
}

/// Fills `candidates` with the tokens that the filters keep, by ascending id.
fn filter(logits: &[f32], row: &SampleRow, candidates: &mut Vec<Candidate>) -> Result<(), SampleFault> {
    let max = largest(logits)?;
    candidates.clear();
    let possible = logits.iter().zip(0u32..).filter(|(logit, _)| **logit != f32::NEG_INFINITY);
    candidates.extend(possible.map(|(&logit, token)| Candidate { logit, token, weight: 0.0 }));
    keep_top_k(candidates, row.top_k as usize);
    weigh(candidates, max, row.temperature);
    keep_top_p(candidates, f64::from(row.top_p));
    candidates.retain(|c| c.weight >= f64::from(row.min_p));
    candidates.sort_unstable_by_key(|c| c.token);
    Ok(())
}

fn by_likelihood(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

fn keep_top_k(candidates: &mut Vec<Candidate>, k: usize) {
    if k > 0 && k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, by_likelihood);
        candidates.truncate(k);
    }
}

fn weigh(candidates: &mut [Candidate], max: f32, temperature: f32) {
    for c in candidates {
        c.weight = ((f64::from(c.logit) - f64::from(max)) / f64::from(temperature)).exp();
    }
}

/// Keeps the most likely candidates whose share reaches `p`. Only as many as that takes are sorted.
fn keep_top_p(candidates: &mut Vec<Candidate>, p: f64) {
    if p >= 1.0 {
        return;
    }
    let wanted = p * candidates.iter().map(|c| c.weight).sum::<f64>();
    let mut sorted = 64;
    loop {
        if sorted < candidates.len() {
            candidates.select_nth_unstable_by(sorted - 1, by_likelihood);
        }
        sorted = sorted.min(candidates.len());
        candidates[..sorted].sort_unstable_by(by_likelihood);
        if let Some(kept) = shortest_reaching(&candidates[..sorted], wanted) {
            return candidates.truncate(kept);
        }
        if sorted == candidates.len() {
            return;
        }
        sorted *= 8;
    }
}

/// Length of the shortest beginning whose weights reach `wanted`.
fn shortest_reaching(candidates: &[Candidate], wanted: f64) -> Option<usize> {
    let mut sum = 0.0;
    candidates
        .iter()
        .position(|c| {
            sum += c.weight;
            sum >= wanted
        })
        .map(|at| at + 1)
}

/// Inverse of the cumulative distribution at `uniform` in `[0, 1)`.
fn pick(candidates: &[Candidate], uniform: f64) -> u32 {
    let target = uniform * candidates.iter().map(|c| c.weight).sum::<f64>();
    let mut sum = 0.0;
    let hit = candidates.iter().find(|c| {
        sum += c.weight;
        target < sum
    });
    hit.or(candidates.last()).expect("the most likely token passes every filter").token
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
