//! A model for tests whose logits are a hash of what its cache holds where the block tables point: a wrong table, a
//! stale block or a wrong position changes the output.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::engine::{Limits, ModelInfo};
use crate::error::{Error, Result};
use crate::executor::alone::{EOS, POISON, VOCAB, cell, first_seen, fold, logits_of};
use crate::executor::{ExecutorConfig, ExecutorParts, RequestId};
use crate::kv::GroupSpec;
use crate::runtime::{Batch, BatchRow, Forward, SampleFault, StepOutput, StepTime};
use crate::sampling::{Scratch, draw};
use crate::text::Tokenizer;

/// What a test model does wrong, by number of the launch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    pub(super) error_at: Option<usize>,
    pub(super) lost_at: Option<usize>,
    pub(super) panic_at: Option<usize>,
    /// They turn up when the step is collected.
    pub(super) late: bool,
}

impl Faults {
    fn of(&self, call: usize) -> Result<()> {
        assert!(Some(call) != self.panic_at, "the model panics at call {call}");
        if Some(call) == self.error_at {
            return Err(Error::internal("model", "fails at this call"));
        }
        if Some(call) == self.lost_at {
            return Err(Error::DeviceLost { what: "fake".into(), why: "it fell off at this call".into() });
        }
        Ok(())
    }
}

/// What every step of a test model says of its time.
pub(super) const STEP_TIME: StepTime = StepTime { device: Duration::from_millis(5), idle: Duration::from_millis(1) };

/// What a step of a test model gives.
#[derive(Debug, Clone, Default)]
pub(super) struct Given {
    call: usize,
    sampled: Vec<Result<u32, SampleFault>>,
    logits: Vec<f32>,
}

/// Cache content by group, block and token of the block. A test may look at it while the executor owns the model.
pub(super) type Memory = Arc<Mutex<Vec<Vec<u64>>>>;

/// By group and slot: the row that wrote it in this step.
type Written = Vec<Vec<Option<usize>>>;

#[derive(Debug)]
pub(super) struct Fake {
    pub(super) limits: Limits,
    pub(super) block_tokens: usize,
    pub(super) windows: Vec<Option<usize>>,
    pub(super) faults: Faults,
    /// Time that a step takes.
    pub(super) delay: Duration,
    pub(super) calls: usize,
    pub(super) memory: Memory,
    /// Steps that may be in flight, and the most adjustments if it samples.
    pub(super) depth: usize,
    pub(super) sampling: Option<usize>,
    pub(super) slots: Vec<u32>,
    /// Launched and not collected.
    pub(super) flights: VecDeque<Given>,
    pub(super) given: Given,
}

impl Fake {
    pub(super) fn new(limits: Limits, block_tokens: usize, windows: &[Option<usize>]) -> Self {
        Self {
            limits,
            block_tokens,
            windows: windows.to_vec(),
            faults: Faults::default(),
            delay: Duration::ZERO,
            calls: 0,
            memory: Arc::new(Mutex::new(vec![vec![0; limits.kv_blocks * block_tokens]; windows.len()])),
            depth: 1,
            sampling: None,
            slots: vec![0; limits.rows],
            flights: VecDeque::new(),
            given: Given::default(),
        }
    }

    /// The same model as a device that works ahead and samples, with room for so many adjustments.
    pub(super) fn ahead(self, adjustments: usize) -> Self {
        Self { depth: 2, sampling: Some(adjustments), ..self }
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

    /// Computes the row's tokens one after another.
    fn write(&self, batch: &Batch, row: usize, memory: &mut [Vec<u64>], written: &mut Written) {
        let r = batch.rows[row];
        for at in 0..r.len {
            let position = r.context + at;
            assert_eq!(batch.positions[r.start + at] as usize, position);
            let before = self.read(batch, row, position, position, memory, written);
            for (group, memory) in memory.iter_mut().enumerate() {
                let slot = self.slot(batch.table(row, group, self.windows.len()), position);
                assert_eq!(written[group][slot].replace(row), None, "a slot is written twice");
                memory[slot] = cell(batch.tokens[r.start + at], position, group, before);
            }
        }
    }

    /// What attention at `position` sees of the positions before `end`, in all groups.
    fn read(
        &self,
        batch: &Batch,
        row: usize,
        position: usize,
        end: usize,
        memory: &[Vec<u64>],
        written: &Written,
    ) -> Option<u64> {
        let mut state = 0;
        for (group, window) in self.windows.iter().enumerate() {
            let table = batch.table(row, group, self.windows.len());
            for seen in first_seen(position, *window)..end {
                let slot = self.slot(table, seen);
                let writer = written[group][slot];
                assert!(writer.is_none_or(|writer| writer == row), "a row reads what another one writes in this step");
                state = fold(state, memory[group][slot])?;
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

    fn depth(&self) -> usize {
        self.depth
    }

    fn sampling(&self) -> Option<usize> {
        self.sampling
    }

    fn launch(&mut self, batch: &Batch) -> Result<()> {
        assert!(self.flights.len() < self.depth, "too many steps in flight");
        let call = self.calls;
        self.calls += 1;
        let given = if self.faults.late { Ok(()) } else { self.faults.of(call) };
        given.map(|()| {
            let given = self.compute(batch, call);
            self.flights.push_back(given);
        })
    }

    fn collect(&mut self) -> Result<StepOutput<'_>> {
        std::thread::sleep(self.delay);
        self.given = self.flights.pop_front().expect("a step is in flight");
        if self.faults.late {
            self.faults.of(self.given.call)?;
        }
        Ok(StepOutput { sampled: &self.given.sampled, logits: &self.given.logits, time: STEP_TIME })
    }
}

impl Fake {
    /// All that a step does, when it is launched: its effects come in the order of launches then.
    fn compute(&mut self, batch: &Batch, call: usize) -> Given {
        assert!(batch.tokens.len() <= self.limits.tokens && batch.rows.len() <= self.limits.rows);
        assert!(batch.logit_rows.len() <= self.limits.logit_rows && batch.logit_rows.is_sorted());
        assert!(batch.adjustments.len() <= self.sampling.unwrap_or(0));
        let mut batch = batch.clone();
        for feed in &batch.feeds {
            batch.tokens[feed.token as usize] = self.slots[feed.slot as usize];
        }
        let rows = self.attend(&batch);
        let mut scratch = Scratch::default();
        let sampled = batch.samples.iter().map(|sample| {
            let slot = &mut self.slots[sample.slot as usize];
            let last = sample.slot_is_last.then_some(*slot);
            let token = draw(sample, batch.adjustments(sample), last, &rows[sample.row as usize], &mut scratch);
            *slot = token.unwrap_or(0);
            token
        });
        let sampled = sampled.collect();
        let logits = batch.host_rows().flat_map(|row| rows[row as usize].clone()).collect();
        Given { call, sampled, logits }
    }

    /// Writes the cache, and gives the wanted rows of logits.
    fn attend(&self, batch: &Batch) -> Vec<Vec<f32>> {
        let mut memory = self.memory.lock();
        let mut written = vec![vec![None; memory[0].len()]; memory.len()];
        (0..batch.rows.len()).for_each(|row| self.write(batch, row, &mut memory, &mut written));
        let logits = |wanted: &u32| {
            let owner = |r: &BatchRow| (r.start..r.start + r.len).contains(&(*wanted as usize));
            let row = batch.rows.iter().position(owner).expect("every logit row belongs to a row");
            let position = batch.rows[row].context + *wanted as usize - batch.rows[row].start;
            logits_of(self.read(batch, row, position, position + 1, &memory, &written)).collect()
        };
        batch.logit_rows.iter().map(logits).collect()
    }
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
