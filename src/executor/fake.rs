//! A model for tests whose logits are a hash of what its cache holds where the block tables point: a wrong table, a
//! stale block or a wrong position changes the output. Beside it the same answers computed from plain tokens.

use std::collections::HashSet;
use std::sync::Arc;

use crate::engine::{Limits, ModelInfo};
use crate::error::{Error, Result};
use crate::executor::{ExecutorConfig, ExecutorParts, RequestId};
use crate::kv::GroupSpec;
use crate::runtime::{Batch, Forward, StepOutput};
use crate::sampling::{Sampler, SamplingParams, Scratch};
use crate::text::Tokenizer;

pub(super) const VOCAB: usize = 24;
pub(super) const EOS: u32 = 23;
/// A token whose cache content is NaN.
pub(super) const POISON: u32 = 22;

/// What a test model does wrong, by number of the call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    pub(super) error_at: Option<usize>,
    pub(super) panic_at: Option<usize>,
}

#[derive(Debug, Clone)]
pub(super) struct Fake {
    pub(super) limits: Limits,
    pub(super) block_tokens: usize,
    pub(super) windows: Vec<Option<usize>>,
    pub(super) faults: Faults,
    /// Time that a step takes.
    pub(super) delay: std::time::Duration,
    pub(super) calls: usize,
    /// By group, block and token of the block.
    pub(super) memory: Vec<Vec<u64>>,
    pub(super) logits: Vec<f32>,
}

impl Fake {
    pub(super) fn new(limits: Limits, block_tokens: usize, windows: &[Option<usize>]) -> Self {
        Self {
            limits,
            block_tokens,
            windows: windows.to_vec(),
            faults: Faults::default(),
            delay: std::time::Duration::ZERO,
            calls: 0,
            memory: vec![vec![0; limits.kv_blocks * block_tokens]; windows.len()],
            logits: Vec::new(),
        }
    }

    /// An executor's parts around this model.
    pub(super) fn parts(self, config: ExecutorConfig) -> ExecutorParts {
        ExecutorParts {
            kv_groups: self.windows.iter().map(|w| GroupSpec { window: *w }).collect(),
            block_tokens: self.block_tokens,
            info: ModelInfo {
                architecture: "fake".into(),
                vocab_size: VOCAB,
                hidden_size: 1,
                layers: 1,
                max_positions: 4096,
                eos_token_ids: vec![EOS],
                bos_token_id: None,
            },
            model: Box::new(self),
            tokenizer: None,
            template: None,
            config,
        }
    }

    fn slot(&self, table: &[u32], position: usize) -> usize {
        let block = table[position / self.block_tokens] as usize;
        assert!(block < self.limits.kv_blocks, "block {block} is outside the pool");
        block * self.block_tokens + position % self.block_tokens
    }

    fn write(&mut self, batch: &Batch, row: usize, written: &mut HashSet<(usize, usize)>) {
        let r = batch.rows[row];
        for group in 0..self.windows.len() {
            let table = batch.table(row, group, self.windows.len());
            for at in 0..r.len {
                let position = r.context + at;
                assert_eq!(batch.positions[r.start + at] as usize, position);
                let slot = self.slot(table, position);
                assert!(written.insert((group, slot)), "two rows write one slot");
                self.memory[group][slot] = cell(batch.tokens[r.start + at], position, group);
            }
        }
    }

    /// What attention at `position` sees, in all groups.
    fn read(&self, batch: &Batch, row: usize, position: usize) -> Option<u64> {
        let mut state = 0;
        for (group, window) in self.windows.iter().enumerate() {
            let table = batch.table(row, group, self.windows.len());
            for seen in first_seen(position, *window)..=position {
                state = fold(state, self.memory[group][self.slot(table, seen)])?;
            }
        }
        Some(state)
    }
}

impl Forward for Fake {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn memory_bytes(&self) -> u64 {
        0
    }

    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn launch(&mut self, batch: &Batch) -> Result<()> {
        let call = self.calls;
        self.calls += 1;
        std::thread::sleep(self.delay);
        assert!(Some(call) != self.faults.panic_at, "the model panics at call {call}");
        if Some(call) == self.faults.error_at {
            return Err(Error::internal("model", "fails at this call"));
        }
        assert!(batch.tokens.len() <= self.limits.tokens && batch.rows.len() <= self.limits.rows);
        assert!(batch.logit_rows.len() <= self.limits.logit_rows && batch.logit_rows.is_sorted());
        let mut written = HashSet::new();
        (0..batch.rows.len()).for_each(|row| self.write(batch, row, &mut written));
        let mut logits = Vec::new();
        for &wanted in &batch.logit_rows {
            let owner = |r: &crate::runtime::BatchRow| (r.start..r.start + r.len).contains(&(wanted as usize));
            let row = batch.rows.iter().position(owner).expect("every logit row belongs to a row");
            let position = batch.rows[row].context + wanted as usize - batch.rows[row].start;
            logits.extend(logits_of(self.read(batch, row, position)));
        }
        self.logits = logits;
        Ok(())
    }

    fn collect(&mut self) -> Result<StepOutput<'_>> {
        Ok(StepOutput { sampled: &[], logits: &self.logits })
    }
}

fn first_seen(position: usize, window: Option<usize>) -> usize {
    window.map_or(0, |w| (position + 1).saturating_sub(w))
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

const NAN_CELL: u64 = u64::MAX;

fn cell(token: u32, position: usize, group: usize) -> u64 {
    if token == POISON {
        return NAN_CELL;
    }
    mix(u64::from(token) << 40 | (position as u64) << 8 | group as u64 | 1) >> 1
}

/// `None` is NaN and stays so.
fn fold(state: u64, cell: u64) -> Option<u64> {
    (cell != NAN_CELL).then(|| mix(state.rotate_left(5) ^ cell))
}

fn logits_of(state: Option<u64>) -> impl Iterator<Item = f32> {
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
    let mut sampler = Sampler::new(Arc::new(params.clone()), sequence, prompt, &[EOS]);
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

/// Numbers test requests.
pub(super) fn id(number: usize) -> RequestId {
    RequestId(number as u64 + 1)
}

/// A byte-level tokenizer for the fake model: `a` to `t` are 0 to 19, 20 and 21 the two bytes of `é`, 23 is special.
pub(super) fn tokenizer() -> Tokenizer {
    let mut vocab: serde_json::Map<String, serde_json::Value> =
        ('a'..='t').zip(0u32..).map(|(letter, id)| (letter.to_string(), id.into())).collect();
    vocab.insert("\u{c3}".into(), 20.into());
    vocab.insert("\u{a9}".into(), 21.into());
    vocab.insert("u".into(), POISON.into());
    let byte_level = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false
    });
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": [{
            "id": EOS, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        }],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": { "type": "BPE", "vocab": vocab, "merges": [] }
    });
    Tokenizer::from_json(json.to_string().as_bytes(), None).unwrap()
}
