//! Each kernel against an f64 reference, and against itself in other batches, on every instruction set of this machine.

mod attention;
mod int8;
mod matmul;
mod refusals;
mod rowwise;

use super::pack::to_bf16;
use super::{CpuConfig, CpuDevice, Isa};
use crate::backend::{Batch, BatchRow, Bindings, Device, Region};
use crate::engine::{
    Granularity, KvGroup, Limits, ModelInfo, PANEL, Packing, Plan, Precision, Rows, ScaleSpec, Slot, Step, Target,
    Value, View, WeightSpec,
};
use crate::error::Result;
use crate::types::{DType, Op, e4m3, f16};

/// Seeded numbers, roughly normal.
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn new(seed: u64) -> Self {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % end
    }

    fn normal(&mut self) -> f32 {
        (0..4).map(|_| self.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0).sum()
    }

    pub(super) fn vec(&mut self, length: usize) -> Vec<f32> {
        (0..length).map(|_| self.normal()).collect()
    }
}

/// The nearest value of a type.
pub(super) fn round(x: f32, dtype: DType) -> f32 {
    match dtype {
        DType::BF16 => f32::from_bits(to_bf16(x) << 16),
        DType::F16 => f16::decode(f16::encode(x)),
        DType::E4M3 => e4m3::decode(e4m3::encode(x)),
        _ => x,
    }
}

fn half_bits(x: f32, dtype: DType) -> u32 {
    match dtype {
        DType::F16 => u32::from(f16::encode(x)),
        _ => to_bf16(x),
    }
}

/// Every instruction set, with a word on those that cannot be tested here.
pub(super) fn each_isa(mut test: impl FnMut(Isa)) {
    for isa in Isa::ALL {
        if isa.compiled().is_some() {
            test(isa);
        } else {
            eprintln!("skipped: this processor has no {isa}");
        }
    }
}

pub(super) fn device(isa: Isa, threads: usize) -> CpuDevice {
    CpuDevice::new(CpuConfig { threads, isa: Some(isa) }).unwrap()
}

/// A plan of one step with all its memory.
#[derive(Clone)]
pub(super) struct Case {
    pub plan: Plan,
    pub limits: Limits,
    /// By slot; every value has its own.
    pub slots: Vec<Vec<f32>>,
    /// By weight, as 4-byte words.
    pub weights: Vec<Vec<u32>>,
    /// By KV group.
    pub pools: Vec<Vec<u32>>,
}

impl Case {
    pub(super) fn new(op: Op) -> Self {
        let model = ModelInfo {
            architecture: "test".into(),
            vocab_size: 1,
            hidden_size: 1,
            layers: 1,
            max_positions: 1,
            eos_token_ids: vec![],
            bos_token_id: None,
        };
        let step =
            Step { name: "the step".into(), op, inputs: vec![], weights: vec![], outputs: vec![], fused: vec![] };
        let plan = Plan {
            target: Target::Cpu,
            precision: Precision::F32,
            invariant: false,
            model,
            values: vec![],
            slots: vec![],
            weights: vec![],
            kv_groups: vec![],
            steps: vec![step],
            outputs: vec![],
        };
        let limits = Limits { tokens: 0, logit_rows: 0, rows: 0, kv_blocks: 0 };
        Case { plan, limits, slots: vec![], weights: vec![], pools: vec![] }
    }

    fn value(&mut self, rows: Rows, columns: usize, data: Vec<f32>) -> usize {
        let slot = self.slots.len();
        match rows {
            Rows::Tokens => self.limits.tokens = self.limits.tokens.max(data.len() / columns),
            Rows::LogitRows => self.limits.logit_rows = self.limits.logit_rows.max(data.len() / columns),
        }
        self.plan.slots.push(Slot { bytes_per_token: 4 * columns, bytes_per_logit_row: 4 * columns });
        self.plan.values.push(Value { name: format!("value {slot}"), rows, columns, slot, dtype: DType::F32 });
        self.slots.push(data);
        slot
    }

    /// An input of `columns` columns, as a view amid a wider value whose other columns are NaN.
    pub(super) fn input(mut self, columns: usize, data: &[f32]) -> Self {
        let (before, after) = (3, 5);
        let width = before + columns + after;
        let mut wide = vec![f32::NAN; data.len() / columns * width];
        for (wide, row) in std::iter::zip(wide.chunks_mut(width), data.chunks(columns)) {
            wide[before..before + columns].copy_from_slice(row);
        }
        let value = self.value(Rows::Tokens, width, wide);
        self.plan.steps[0].inputs.push(View { value, start: before, columns });
        self
    }

    /// An output, poisoned with NaN.
    pub(super) fn output(mut self, rows: Rows, count: usize, columns: usize) -> Self {
        let value = self.value(rows, columns, vec![f32::NAN; count * columns]);
        self.plan.steps[0].outputs.push(View { value, start: 0, columns });
        self
    }

    fn weight(mut self, shape: Vec<usize>, dtype: DType, packing: Packing, words: Vec<u32>) -> Self {
        self.plan.steps[0].weights.push(self.weights.len());
        let name = format!("weight {}", self.weights.len());
        let bytes = 4 * words.len() as u64;
        self.plan.weights.push(WeightSpec {
            name,
            dtype,
            shape,
            packing,
            scale: None,
            offset: 0,
            bytes,
            checksum: String::new(),
        });
        self.weights.push(words);
        self
    }

    pub(super) fn vector(self, data: &[f32]) -> Self {
        self.weight(vec![data.len()], DType::F32, Packing::RowMajor, data.iter().map(|x| x.to_bits()).collect())
    }

    pub(super) fn matrix(self, data: &[f32], columns: usize, dtype: DType, packing: Packing) -> Self {
        let shape = vec![data.len() / columns, columns];
        let words = match packing {
            Packing::RowMajor => row_major(data, dtype),
            Packing::Panels => panels(data, columns, dtype),
        };
        self.weight(shape, dtype, packing, words)
    }

    /// An e4m3 matrix in panels with its scales.
    pub(super) fn quantized(self, codes: &[u8], columns: usize, granularity: Granularity, scales: &[f32]) -> Self {
        self.scaled(DType::E4M3, codes, columns, granularity, scales)
    }

    /// An i8 matrix in panels with a scale for each row.
    pub(super) fn int8(self, codes: &[i8], columns: usize, scales: &[f32]) -> Self {
        let bytes: Vec<u8> = codes.iter().map(|code| (i16::from(*code) + 128) as u8).collect();
        self.scaled(DType::I8, &bytes, columns, Granularity::Row, scales)
    }

    fn scaled(mut self, dtype: DType, codes: &[u8], columns: usize, granularity: Granularity, scales: &[f32]) -> Self {
        let rows = codes.len() / columns;
        let padded = columns.next_multiple_of(4);
        let mut bytes = vec![0; rows.next_multiple_of(PANEL) * padded];
        for (index, code) in codes.iter().enumerate() {
            let (row, column) = (index / columns, index % columns);
            bytes[(row / PANEL * padded + column / 4 * 4) * PANEL + row % PANEL * 4 + column % 4] = *code;
        }
        let words = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        self = self.weight(vec![rows, columns], dtype, Packing::Panels, words);
        let index = self.weights.len();
        self.plan.weights[index - 1].scale = Some(ScaleSpec { weight: index, granularity });
        let words = scales.iter().map(|x| x.to_bits()).collect();
        self = self.weight(granularity.scale_shape(rows, columns), DType::F32, Packing::RowMajor, words);
        self.plan.steps[0].weights.pop();
        self
    }

    /// A KV group of `layers` layers whose pool is all NaN.
    pub(super) fn kv(mut self, group: KvGroup, blocks: usize) -> Self {
        self.limits.kv_blocks = blocks;
        self.pools.push(vec![u32::MAX; group.block_bytes() * blocks / 4]);
        self.plan.kv_groups.push(group);
        self
    }

    pub(super) fn bindings(&mut self) -> Bindings {
        fn region<T>(data: &mut [T]) -> Region {
            Region { address: data.as_mut_ptr() as usize, bytes: size_of_val(data) }
        }
        Bindings {
            weights: self.weights.iter_mut().map(|data| region(data)).collect(),
            slots: self.slots.iter_mut().map(|data| region(data)).collect(),
            kv: self.pools.iter_mut().map(|data| region(data)).collect(),
            kv_blocks: self.limits.kv_blocks,
        }
    }

    /// Runs the step; the memory stays as the step leaves it.
    pub(super) fn run(&mut self, device: &CpuDevice, batch: &Batch) -> Result<()> {
        self.limits.rows = self.limits.rows.max(batch.rows.len());
        let bindings = self.bindings();
        let mut kernel = device.prepare(&self.plan, 0, &bindings, &self.limits)?;
        // SAFETY: the memory is this case's, and nothing else runs.
        unsafe { kernel.launch(batch) }
    }

    /// The rows of output `index`.
    pub(super) fn result(&self, index: usize) -> &[f32] {
        &self.slots[self.plan.steps[0].outputs[index].value]
    }
}

fn row_major(data: &[f32], dtype: DType) -> Vec<u32> {
    match dtype {
        DType::F32 => data.iter().map(|x| x.to_bits()).collect(),
        _ => {
            let pair = |pair: &[f32]| half_bits(pair[0], dtype) | pair.get(1).map_or(0, |x| half_bits(*x, dtype) << 16);
            data.chunks(2).map(pair).collect()
        }
    }
}

fn panels(data: &[f32], k: usize, dtype: DType) -> Vec<u32> {
    let n = data.len() / k;
    let padded = k.next_multiple_of(2);
    let at = |row: usize, column: usize| if row < n && column < k { data[row * k + column] } else { 0.0 };
    let mut words = Vec::new();
    for panel in (0..n).step_by(PANEL) {
        match dtype {
            DType::F32 => {
                for column in 0..padded {
                    words.extend((panel..panel + PANEL).map(|row| at(row, column).to_bits()));
                }
            }
            _ => {
                for column in (0..padded).step_by(2) {
                    let pair = |row| half_bits(at(row, column), dtype) | half_bits(at(row, column + 1), dtype) << 16;
                    words.extend((panel..panel + PANEL).map(pair));
                }
            }
        }
    }
    words
}

/// A batch of one row of `tokens` tokens without a cache.
pub(super) fn plain_batch(tokens: usize) -> Batch {
    Batch {
        tokens: vec![0; tokens],
        positions: (0..tokens as u32).collect(),
        rows: vec![BatchRow { start: 0, len: tokens, context: 0 }],
        tables: vec![],
        table_starts: vec![0, 0],
        logit_rows: vec![],
        ..Batch::default()
    }
}

pub(super) fn assert_close(got: &[f32], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (index, (got, want)) in std::iter::zip(got, want).enumerate() {
        let error = (f64::from(*got) - want).abs();
        assert!(error <= tolerance * (1.0 + want.abs()), "{what}: element {index} is {got}, not {want}");
    }
}

pub(super) fn assert_same_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (index, (got, want)) in std::iter::zip(got, want).enumerate() {
        assert_eq!(got.to_bits(), want.to_bits(), "{what}: element {index} is {got}, not {want}");
    }
}

/// The activations' definitions.
pub(super) fn activation(f: crate::types::Activation, x: f64) -> f64 {
    use crate::types::Activation::*;
    match f {
        Silu => x / (1.0 + (-x).exp()),
        Gelu => x / 2.0 * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        GeluTanh => x / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh()),
        Relu => x.max(0.0),
    }
}

/// The series near 0, which converges everywhere, where its terms do not cancel away; else the continued fraction.
fn erf(x: f64) -> f64 {
    if x < 0.0 {
        return -erf(-x);
    }
    if x < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..100 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * 2.0 / std::f64::consts::PI.sqrt();
    }
    let fraction = (1..400).rev().fold(x, |tail, n| x + f64::from(n) / 2.0 / tail);
    1.0 - (-x * x).exp() / (std::f64::consts::PI.sqrt() * fraction)
}
