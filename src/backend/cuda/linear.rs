//! Which kernel computes a linear layer, and how it is called.

use super::call::{Arg, Call, Count, Grid, Shared};
use super::driver::MapElement;
use super::kernel::KernelSpec;
use super::rowwise::{element, float};
use super::target::CudaTarget;
use super::work::{Linear, Operand};
use crate::engine::{Plan, Rows, WeightSpec};
use crate::types::{Activation, DType};

/// Elements of `x` that a streaming block keeps in shared memory; more of them travel beside the weights.
const X_RESIDENT: usize = 16 << 10;
/// Shared memory that a block loses to the system.
const RESERVED: usize = 2 << 10;
/// Most rows that the streaming kernel takes.
pub(super) const MOST_STREAMED: usize = 16;

/// How a layer is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tactic {
    /// Any shape, slowly.
    Generic,
    /// Few rows: weights stream through shared memory once.
    Gemv { rows: usize, tiles: usize, chunk: usize, stages: usize, streams_x: bool },
    /// Tensor cores by `mma.sync`, on every arch.
    Mma { tile_rows: usize, tile_columns: usize, stages: usize },
    /// Tensor cores by `wgmma`, operands by the copy engine; `stream_k` shares the work by pieces of K.
    Wgmma { tile_rows: usize, tile_columns: usize, stages: usize, stream_k: bool },
}

/// Whether the tensor-core kernels can read such an operand and such a weight.
pub(super) fn is_aligned(x: &Operand, n: usize, e4m3: bool) -> bool {
    x.columns.is_multiple_of(if e4m3 { 128 } else { 64 })
        && n.is_multiple_of(8)
        && x.stride.is_multiple_of(16)
        && x.start.is_multiple_of(16)
}

/// Numbers by which kernels know an activation.
pub(super) fn activation_number(activation: Option<Activation>) -> u32 {
    match activation {
        None => 0,
        Some(Activation::Silu) => 1,
        Some(Activation::Gelu) => 2,
        Some(Activation::GeluTanh) => 3,
        Some(Activation::Relu) => 4,
    }
}

/// A layer with its shape at hand.
pub(super) struct Layer<'a> {
    linear: &'a Linear,
    weight: &'a WeightSpec,
    n: usize,
    k: usize,
    half: DType,
}

impl<'a> Layer<'a> {
    pub(super) fn new(plan: &'a Plan, linear: &'a Linear, half: DType) -> Self {
        let weight = &plan.weights[linear.weights[0]];
        Self { linear, weight, n: linear.out.columns, k: linear.x.columns, half }
    }

    fn gated(&self) -> bool {
        self.linear.weights.len() == 2
    }

    fn is_e4m3(&self) -> bool {
        self.weight.dtype == DType::E4M3
    }

    /// The default tactic for at most `rows` rows.
    pub(super) fn tactic(&self, target: &CudaTarget, rows: usize) -> Tactic {
        if !is_aligned(&self.linear.x, self.n, self.is_e4m3()) {
            return Tactic::Generic;
        }
        let mixed = self.is_e4m3() && self.linear.x_scale.is_none();
        let hopper = target.arch.has_wgmma() && !mixed && !target.invariant;
        if self.linear.x_scale.is_some() {
            return self.wgmma(rows);
        }
        if rows <= MOST_STREAMED && !target.invariant {
            return self.gemv(target, rows.next_power_of_two());
        }
        if hopper { self.wgmma(rows) } else { mma(rows, target.invariant) }
    }

    /// As many stages as let exactly two blocks share a multiprocessor.
    fn gemv(&self, target: &CudaTarget, rows: usize) -> Tactic {
        let streams_x = self.linear.norm.is_none() && rows * self.k > X_RESIDENT;
        let (tiles, chunk) = (1, 1024);
        let room = target.shared_bytes / 2 - RESERVED;
        let stages = (2..=6).rev().find(|stages| self.gemv_shared(rows, tiles, chunk, *stages, streams_x) <= room);
        match stages {
            Some(stages) => Tactic::Gemv { rows, tiles, chunk, stages, streams_x },
            None => mma(rows, false),
        }
    }

    /// Shared memory of the streaming kernel, as its source lays it out.
    fn gemv_shared(&self, rows: usize, tiles: usize, chunk: usize, stages: usize, streams_x: bool) -> usize {
        let (weight_bytes, x_pad) = if self.is_e4m3() { (1, 16) } else { (2, 64) };
        let x_columns = if streams_x { chunk / weight_bytes } else { self.k };
        let x = rows * (2 * x_columns + x_pad);
        let stage = 16 * tiles * (chunk + 64) + if streams_x { x } else { 0 };
        let parts = 8 * rows * 16 * tiles * 4;
        stages * stage + if streams_x { 0 } else { x } + parts + 3 * stages * 8
    }

    /// The call of a tactic.
    pub(super) fn call(&self, target: &CudaTarget, tactic: Tactic) -> Call {
        let count = match self.linear.out.rows {
            Rows::Tokens => Count::Tokens,
            Rows::LogitRows => Count::LogitRows,
        };
        match tactic {
            Tactic::Generic => self.plain(target, "linear/generic.cu", count, self.generic_grid(), 256, 0),
            Tactic::Gemv { rows, tiles, chunk, stages, streams_x } => {
                let outputs = if self.gated() { 8 } else { 16 } * tiles;
                let blocks = self.n.div_ceil(outputs).min(2 * target.multiprocessors);
                let shared = self.gemv_shared(rows, tiles, chunk, stages, streams_x);
                let mut call =
                    self.plain(target, "linear/gemv.cu", count, Grid::Fixed([blocks as u32, 1, 1]), 288, shared as u32);
                call.spec = call
                    .spec
                    .define("ROWS", rows)
                    .define("TILES", tiles)
                    .define("CHUNK", chunk)
                    .define("STAGES", stages)
                    .define_if(streams_x, "X_STREAM", "");
                call
            }
            Tactic::Wgmma { tile_rows, tile_columns, stages, stream_k } => {
                self.wgmma_call(target, count, [tile_rows, tile_columns, stages], stream_k)
            }
            Tactic::Mma { tile_rows, tile_columns, stages } => self.mma(target, count, tile_rows, tile_columns, stages),
        }
    }

    fn generic_grid(&self) -> Grid {
        Grid::Y { x: self.n.div_ceil(8) as u32, per: 1 }
    }

    fn mma(&self, target: &CudaTarget, count: Count, rows: usize, columns: usize, stages: usize) -> Call {
        let outputs = if self.gated() { columns / 2 } else { columns };
        let (warps_m, warps_n) = if rows * columns >= 128 * 128 { (2, 4) } else { (2, 2) };
        let grid = Grid::Y { x: self.n.div_ceil(outputs) as u32, per: rows as u32 };
        let shared = stages * (rows * 128 + columns * if self.is_e4m3() { 80 } else { 128 });
        let block = 32 * warps_m * warps_n;
        let mut call = self.plain(target, "linear/mma_gemm.cu", count, grid, block, shared as u32);
        call.spec = call
            .spec
            .define("BM", rows)
            .define("BN", columns)
            .define("STAGES", stages)
            .define("WARPS_M", warps_m)
            .define("WARPS_N", warps_n);
        call
    }

    /// Few rows are bound by reading weights: all multiprocessors share every piece of them.
    fn wgmma(&self, rows: usize) -> Tactic {
        let (tile_rows, tile_columns, stages) = match (rows, self.is_e4m3()) {
            (0..=64, _) => (64, 128, 8),
            (65..=128, _) | (_, true) => (128, 128, 6),
            _ => (128, 256, 4),
        };
        Tactic::Wgmma { tile_rows, tile_columns, stages, stream_k: rows <= 512 }
    }

    fn wgmma_call(
        &self,
        target: &CudaTarget,
        count: Count,
        [rows, columns, stages]: [usize; 3],
        stream_k: bool,
    ) -> Call {
        let linear = self.linear;
        let outputs = if self.gated() { columns / 2 } else { columns };
        let (column_tiles, pieces) = (self.n.div_ceil(outputs), self.k.div_ceil(if self.is_e4m3() { 128 } else { 64 }));
        let blocks = target.multiprocessors.min(if stream_k { column_tiles * pieces } else { usize::MAX }) as u32;
        let grid = match stream_k {
            true => Grid::Fixed([blocks, 1, 1]),
            false => Grid::Persistent { per: rows as u32, tiles: column_tiles as u32, most: blocks },
        };
        let element = match (self.is_e4m3(), self.half) {
            (true, _) => MapElement::Byte,
            (false, DType::F16) => MapElement::Half,
            (false, _) => MapElement::Bf16,
        };
        let box_columns = if self.is_e4m3() { 128 } else { 64 };
        let box_rows = columns / if rows == 64 { 2 } else { 1 } / linear.weights.len();
        let weight = |index: usize| {
            let of = *linear.weights.get(index).unwrap_or(&linear.weights[0]);
            Arg::WeightMap { of, element, box_rows, box_columns }
        };
        let scale = |index: usize| match linear.weights.get(index) {
            Some(weight) if self.is_e4m3() => Arg::Scale(*weight),
            _ => Arg::Null,
        };
        let bias = |index: usize| linear.biases.get(index).map_or(Arg::Null, |bias| Arg::Weight(*bias));
        let args = vec![
            Arg::BufferMap { of: linear.x, element, box_rows: rows, box_columns },
            weight(0),
            weight(1),
            Arg::Buffer(linear.out),
            scale(0),
            scale(1),
            linear.x_scale.map_or(Arg::Null, Arg::Buffer),
            bias(0),
            bias(1),
            linear.residual.map_or(Arg::Null, Arg::Buffer),
            Arg::Shared(Shared::Partial),
            Arg::Shared(Shared::Counters),
            Arg::Count(count),
        ];
        let spec = self
            .spec("linear/sm90_gemm.cu")
            .define("BM", rows)
            .define("BN", columns)
            .define("STAGES", stages)
            .define_if(self.is_e4m3(), "E4M3", "")
            .define_if(stream_k, "STREAM_K", "");
        let shared = stages * ((rows + columns) * 128 + 16) + 1024;
        let call = Call::new(spec, 384, grid, count, args).shared(shared as u32);
        match stream_k {
            // At most 512 rows share tiles.
            true => call.split(blocks as usize * 2 * rows * columns * 4, 2 * column_tiles * 512usize.div_ceil(rows)),
            false => call,
        }
    }

    /// A call of a kernel with the arguments that all but the wgmma kernel share.
    fn plain(&self, _: &CudaTarget, source: &'static str, count: Count, grid: Grid, block: u32, shared: u32) -> Call {
        let linear = self.linear;
        let weight = |index: usize| linear.weights.get(index).map_or(Arg::Null, |weight| Arg::Weight(*weight));
        let scale = |index: usize| match linear.weights.get(index) {
            Some(weight) if self.is_e4m3() => Arg::Scale(*weight),
            _ => Arg::Null,
        };
        let bias = |index: usize| linear.biases.get(index).map_or(Arg::Null, |bias| Arg::Weight(*bias));
        let args = vec![
            Arg::Buffer(linear.out),
            Arg::Buffer(linear.x),
            weight(0),
            weight(1),
            scale(0),
            scale(1),
            bias(0),
            bias(1),
            linear.residual.map_or(Arg::Null, Arg::Buffer),
            linear.norm.map_or(Arg::Null, |norm| Arg::Weight(norm.gain)),
            Arg::Count(count),
            Arg::U32(linear.x.stride as u32),
        ];
        Call::new(self.spec(source), block, grid, count, args).shared(shared)
    }

    fn spec(&self, source: &'static str) -> KernelSpec {
        let linear = self.linear;
        element(KernelSpec::new(source, "linear"), self.half)
            .define("N", self.n)
            .define("K", self.k)
            .define("ACTIVATION", activation_number(linear.activation))
            .define_if(self.is_e4m3(), "WEIGHT_E4M3", "")
            .define_if(linear.out.dtype == DType::F32, "OUTPUT_F32", "")
            .define_if(!linear.biases.is_empty(), "BIAS", "")
            .define_if(self.gated(), "GATED", "")
            .define_if(linear.residual.is_some(), "RESIDUAL", "")
            .define_if(linear.norm.is_some(), "NORM", "")
            .define_if(linear.norm.is_some(), "NORM_EPS", linear.norm.map_or(String::new(), |norm| float(norm.eps)))
    }
}

/// Tiles of the portable kernel by row count; one tile for all rows where the order of sums must not change.
fn mma(rows: usize, invariant: bool) -> Tactic {
    match rows {
        65.. if !invariant => Tactic::Mma { tile_rows: 128, tile_columns: 128, stages: 3 },
        _ => Tactic::Mma { tile_rows: 64, tile_columns: 64, stages: 4 },
    }
}
