//! What the test model says of a request that is alone, computed from plain tokens.

use std::sync::Arc;

use crate::executor::FinishReason;
use crate::executor::seeded::random::mix;
use crate::sampling::{Sampler, SamplingParams, Scratch};

pub(super) const VOCAB: usize = 24;
pub(super) const EOS: u32 = 23;
/// A token whose cache content is NaN.
pub(super) const POISON: u32 = 22;

pub(super) fn first_seen(position: usize, window: Option<usize>) -> usize {
    window.map_or(0, |w| (position + 1).saturating_sub(w))
}

pub(super) const NAN_CELL: u64 = u64::MAX;

/// The cache content of a token. As in a model of several layers it depends on what the token sees `before` it, and with
/// that on everything before.
pub(super) fn cell(token: u32, position: usize, group: usize, before: Option<u64>) -> u64 {
    match before.filter(|_| token != POISON) {
        Some(before) => mix(before ^ mix(u64::from(token) << 40 | (position as u64) << 8 | group as u64 | 1 << 7)) >> 1,
        None => NAN_CELL,
    }
}

/// `None` is NaN and stays so.
pub(super) fn fold(state: u64, cell: u64) -> Option<u64> {
    (cell != NAN_CELL).then(|| mix(state.rotate_left(5) ^ cell))
}

pub(super) fn logits_of(state: Option<u64>) -> impl Iterator<Item = f32> {
    (0..VOCAB as u64).map(move |v| match state {
        Some(state) => (mix(state ^ v << 32) % 1024) as f32 / 128.0,
        None => f32::NAN,
    })
}

/// The cache that tokens leave when they are alone.
#[derive(Debug, Clone)]
pub(super) struct Cells {
    windows: Vec<Option<usize>>,
    /// By position and group.
    cells: Vec<u64>,
}

impl Cells {
    pub(super) fn new(windows: &[Option<usize>], tokens: &[u32]) -> Self {
        let mut cells = Self { windows: windows.to_vec(), cells: Vec::new() };
        tokens.iter().for_each(|token| cells.push(*token));
        cells
    }

    pub(super) fn len(&self) -> usize {
        self.cells.len() / self.windows.len()
    }

    pub(super) fn push(&mut self, token: u32) {
        let position = self.len();
        let before = self.seen(position, position);
        self.cells.extend((0..self.windows.len()).map(|group| cell(token, position, group, before)));
    }

    pub(super) fn at(&self, position: usize, group: usize) -> u64 {
        self.cells[position * self.windows.len() + group]
    }

    /// The logits after the last token.
    pub(super) fn logits(&self) -> impl Iterator<Item = f32> + use<> {
        logits_of(self.seen(self.len() - 1, self.len()))
    }

    /// What a token at `position` sees of the positions before `end`.
    fn seen(&self, position: usize, end: usize) -> Option<u64> {
        let seen = self.windows.iter().enumerate().flat_map(|(group, window)| {
            (first_seen(position, *window)..end).map(move |position| self.at(position, group))
        });
        { seen }.try_fold(0, fold)
    }
}

/// The logits after `tokens`, from the tokens themselves.
pub(super) fn expected_logits(tokens: &[u32], windows: &[Option<usize>]) -> Vec<f32> {
    Cells::new(windows, tokens).logits().collect()
}

/// All that one sequence says when it runs alone.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Speech {
    pub(super) tokens: Vec<u32>,
    /// `Error` when its logits became NaN.
    pub(super) finish: FinishReason,
}

/// The output of one sequence that runs alone, without regard to stop strings.
pub(super) fn speech(prompt: &[u32], params: &SamplingParams, sequence: u32, windows: &[Option<usize>]) -> Speech {
    let mut sampler = Sampler::new(Arc::new(params.clone()), sequence, prompt, &[EOS]).expect("memory");
    let (mut cells, mut tokens, mut scratch) = (Cells::new(windows, prompt), Vec::new(), Scratch::default());
    for generated in 1..=params.max_tokens {
        let logits: Vec<f32> = cells.logits().collect();
        let Ok(sampled) = sampler.sample(&logits, &mut scratch) else {
            return Speech { tokens, finish: FinishReason::Error };
        };
        cells.push(sampled.token);
        tokens.push(sampled.token);
        let armed = generated >= params.min_tokens;
        if armed && sampled.token == EOS && !params.ignore_eos {
            return Speech { tokens, finish: FinishReason::Eos };
        }
        if armed && params.stop_sequences.iter().any(|stop| tokens.ends_with(stop)) {
            return Speech { tokens, finish: FinishReason::Stop };
        }
    }
    Speech { tokens, finish: FinishReason::Length }
}

/// The tokens of [`speech`]. `None` if its logits become NaN.
pub(super) fn expected(
    prompt: &[u32],
    params: &SamplingParams,
    sequence: u32,
    windows: &[Option<usize>],
) -> Option<Vec<u32>> {
    let Speech { tokens, finish } = speech(prompt, params, sequence, windows);
    (finish != FinishReason::Error).then_some(tokens)
}
