//! What the test model says of a request that is alone, computed from plain tokens.

use std::sync::Arc;

use crate::sampling::{Sampler, SamplingParams, Scratch};

pub(super) const VOCAB: usize = 24;
pub(super) const EOS: u32 = 23;
/// A token whose cache content is NaN.
pub(super) const POISON: u32 = 22;

pub(super) fn first_seen(position: usize, window: Option<usize>) -> usize {
    window.map_or(0, |w| (position + 1).saturating_sub(w))
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

pub(super) const NAN_CELL: u64 = u64::MAX;

pub(super) fn cell(token: u32, position: usize, group: usize) -> u64 {
    if token == POISON {
        return NAN_CELL;
    }
    mix(u64::from(token) << 40 | (position as u64) << 8 | group as u64 | 1) >> 1
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

/// The logits after `tokens`, from the tokens themselves.
pub(super) fn expected_logits(tokens: &[u32], windows: &[Option<usize>]) -> Vec<f32> {
    let last = tokens.len() - 1;
    let seen = windows.iter().enumerate().flat_map(|(group, w)| {
        (first_seen(last, *w)..=last).map(move |position| cell(tokens[position], position, group))
    });
    logits_of({ seen }.try_fold(0, fold)).collect()
}

/// The output of one sequence that runs alone: tokens only, without stops. `None` if its logits become NaN.
pub(super) fn expected(
    prompt: &[u32],
    params: &SamplingParams,
    sequence: u32,
    windows: &[Option<usize>],
) -> Option<Vec<u32>> {
    let mut sampler = Sampler::new(Arc::new(params.clone()), sequence, prompt, &[EOS]).unwrap();
    let (mut tokens, mut scratch) = (prompt.to_vec(), Scratch::default());
    for generated in 1..=params.max_tokens {
        let sampled = sampler.sample(&expected_logits(&tokens, windows), &mut scratch).ok()?;
        tokens.push(sampled.token);
        if sampled.token == EOS && generated >= params.min_tokens && !params.ignore_eos {
            break;
        }
    }
    Some(tokens.split_off(prompt.len()))
}
