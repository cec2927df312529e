//! Sampling on the device: the structs that its kernels read and write, and their calls.

use super::call::{Arg, Call, Count, Grid, Input, Shared};
use super::driver::Arch;
use super::kernel::KernelSpec;
use super::work::Operand;
use crate::backend::{Adjustment, Batch, Change};

/// Logits of a row that one block takes.
const SLICE: usize = 8192;
/// Bytes of a slice's finding.
const PARTIAL_BYTES: usize = 32;
/// Bytes of a slice's heads: an f32 for each thread of its block.
const HEADS_BYTES: usize = 512 * 4;
/// Dynamic shared memory of the filtering kernel.
const FILTER_BYTES: u32 = 65536;
/// Most adjustments of one step.
pub(super) const MOST_ADJUSTMENTS: usize = 1 << 16;

/// `SampleRow` of `kernels/sample/row.cuh`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(16))]
pub(super) struct Entry {
    seed: u64,
    logits: u32,
    slot: u32,
    sequence: u32,
    position: u32,
    active: u32,
    top_k: u32,
    temperature: f32,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    adjustments: u32,
    adjustment_count: u32,
    last: i32,
    unused: [u32; 3],
}

/// `Adjustment` of `kernels/sample/row.cuh`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(16))]
pub(super) struct AdjustmentEntry {
    token: u32,
    seen: u32,
    generated: u32,
    bias: f32,
}

/// What comes back for a row of logits.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(C, align(16))]
pub struct SampleResult {
    /// 0 where `status` is not 0.
    pub token: u32,
    /// 0: a token; 1: a logit is NaN or +inf; 2: no token has a finite logit.
    pub status: u32,
    /// The token's, before adjustments.
    pub logit: f32,
    /// Of the row, before adjustments.
    pub log_sum_exp: f32,
}

const _: () =
    assert!(size_of::<Entry>() == 80 && size_of::<AdjustmentEntry>() == 16 && size_of::<SampleResult>() == 16);

impl Entry {
    /// A row of logits that the device does not sample.
    const IDLE: Entry = Entry {
        seed: 0,
        logits: 0,
        slot: 0,
        sequence: 0,
        position: 0,
        active: 0,
        top_k: 0,
        temperature: 0.0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        adjustments: 0,
        adjustment_count: 0,
        last: -1,
        unused: [0; 3],
    };
}

impl AdjustmentEntry {
    fn new(adjustment: &Adjustment) -> Self {
        let Adjustment { token, change } = *adjustment;
        match change {
            Change::Seen { generated } => Self { token, seen: 1, generated, bias: 0.0 },
            Change::Bias(bias) => Self { token, seen: 0, generated: 0, bias },
            Change::Ban => Self { token, seen: 0, generated: 0, bias: f32::NEG_INFINITY },
        }
    }
}

/// Writes one entry for each of `rows` rows of logits, and the adjustments.
///
/// # Safety
/// `entries` has room for `rows`, `adjustments` for the batch's.
pub(super) unsafe fn fill(entries: *mut Entry, adjustments: *mut AdjustmentEntry, batch: &Batch, rows: usize) {
    // SAFETY: the caller's; sample rows lie within the logit rows, which are at most `rows`.
    unsafe {
        for row in 0..rows {
            entries.add(row).write(Entry::IDLE);
        }
        for sample in &batch.samples {
            entries.add(sample.row as usize).write(Entry {
                seed: sample.seed,
                logits: sample.row,
                slot: sample.slot,
                sequence: sample.sequence,
                position: sample.position,
                active: 1,
                top_k: sample.top_k,
                temperature: sample.temperature,
                top_p: sample.top_p,
                min_p: sample.min_p,
                repetition_penalty: sample.repetition_penalty,
                presence_penalty: sample.presence_penalty,
                frequency_penalty: sample.frequency_penalty,
                adjustments: sample.first_adjustment,
                adjustment_count: sample.adjustments,
                last: if sample.slot_is_last { sample.slot as i32 } else { -1 },
                unused: [0; 3],
            });
        }
        for (index, adjustment) in batch.adjustments.iter().enumerate() {
            adjustments.add(index).write(AdjustmentEntry::new(adjustment));
        }
    }
}

/// Whether a row needs the second kernel.
pub(super) fn is_filtered(batch: &Batch, vocab: usize) -> bool {
    batch.samples.iter().any(|sample| {
        let top_k = sample.top_k > 0 && (sample.top_k as usize) < vocab;
        sample.temperature > 0.0 && (top_k || sample.top_p < 1.0 || sample.min_p > 0.0)
    })
}

/// Blocks that search a row together, for steps of about as many rows: while multiprocessors would have no work otherwise.
fn blocks(arch: Arch, rows: usize) -> u32 {
    match rows {
        _ if !arch.is_hopper_or_later() => 1,
        0..=16 => 8,
        17..=32 => 4,
        33..=64 => 2,
        _ => 1,
    }
}

/// The kernel that finishes plain rows, and the one that finishes filtered ones; chosen for `rows`.
pub(super) fn calls(logits: Operand, arch: Arch, rows: usize) -> [Call; 2] {
    let vocab = logits.columns;
    let args = vec![
        Arg::Shared(Shared::Results),
        Arg::Shared(Shared::Sampled),
        Arg::Buffer(logits),
        Arg::Input(Input::Samples),
        Arg::Input(Input::Adjustments),
        Arg::Shared(Shared::Processed),
        Arg::Shared(Shared::Slices),
        Arg::Shared(Shared::Arrived),
        Arg::Count(Count::LogitRows),
    ];
    let slices = vocab.div_ceil(SLICE) as u32;
    let spec = |source, entry| KernelSpec::new(source, entry).define("VOCAB", vocab);
    let sample = spec("sample/sample.cu", "sample");
    let blocks = blocks(arch, rows);
    let filter = spec("sample/filter.cu", "filter").define("BLOCKS", blocks);
    [
        Call::new(sample, 512, Grid::Y { x: slices, per: 1 }, Count::LogitRows, args.clone()),
        Call::new(filter, 1024, Grid::Rows { x: blocks }, Count::LogitRows, args).shared(FILTER_BYTES),
    ]
}

/// Memory that sampling keeps on the device, for `rows` rows of logits and `slots` sequences.
pub(super) fn memory(vocab: usize, rows: usize, slots: usize) -> [(Shared, usize); 5] {
    [
        (Shared::Results, rows * size_of::<SampleResult>()),
        (Shared::Sampled, slots * 4),
        (Shared::Processed, rows * vocab * 4),
        (Shared::Slices, rows * vocab.div_ceil(SLICE) * (PARTIAL_BYTES + HEADS_BYTES)),
        (Shared::Arrived, rows * 4),
    ]
}
