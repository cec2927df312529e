//! Which kernel computes a linear layer, and how it is called.

use super::call::{Arg, Call, Count, Grid, Shared};
use super::driver::MapElement;
use super::kernel::KernelSpec;
use super::rowwise::{element, float};
use super::target::CudaTarget;
use super::work::{Linear, Operand};
use crate::engine::{Granularity, Plan, Rows, WeightSpec};
use crate::types::{Activation, DType};

/// Bytes of weights that a block of the streaming kernel asks for ahead: more would delay its activations.
const IN_FLIGHT: usize = 32 << 10;
/// Shared memory that a block loses to the system.
const RESERVED: usize = 1 << 10;
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
    Mma {
        /// Rows and columns of a block's tile, of a warp's, elements of K in a slice, slices under way.
        tile: [usize; 6],
    },
    /// Tensor cores by `wgmma`, operands by the copy engine; `split` blocks share a tile's K, a cluster shares weights.
    Wgmma { tile_rows: usize, tile_columns: usize, stages: usize, split: usize, cluster: usize },
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

    fn has_block_scales(&self) -> bool {
        self.weight.scale.as_ref().is_some_and(|scale| scale.granularity == Granularity::Block)
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
            return self.wgmma(target, rows);
        }
        if rows <= MOST_STREAMED && !target.invariant {
            return self.gemv(target, rows.next_power_of_two());
        }
        if hopper { self.wgmma(target, rows) } else { self.mma_tactic(target, rows) }
    }

    /// Two blocks to a multiprocessor where the activations leave room for four stages; else the activations travel too, and
    /// for sixteen rows one block with wide tiles reads them half as often.
    fn gemv(&self, target: &CudaTarget, rows: usize) -> Tactic {
        let pair = target.shared_bytes / 2 - RESERVED;
        let whole = target.shared_bytes - RESERVED;
        let plan = |tiles: usize, chunk: usize, streams_x: bool, room: usize| {
            let fits = |stages: &usize| self.gemv_shared(rows, tiles, chunk, *stages, streams_x) <= room;
            let stages = (1..=6).rev().find(fits)?;
            Some(Tactic::Gemv { rows, tiles, chunk, stages, streams_x })
        };
        let deep = |tactic: &Tactic| matches!(tactic, Tactic::Gemv { stages: 4.., .. });
        let normed = self.linear.norm.is_some();
        plan(1, 1024, false, pair)
            .filter(deep)
            .or_else(|| if normed { plan(1, 512, false, pair).filter(deep) } else { None })
            .or_else(|| if normed { plan(1, 1024, false, whole) } else { None })
            .or_else(|| if rows == 16 { plan(2, 1024, true, whole) } else { plan(1, 1024, true, pair) })
            .unwrap_or_else(|| self.mma_tactic(target, rows))
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

    /// The call of a tactic for at most `most` rows.
    pub(super) fn call(&self, target: &CudaTarget, tactic: Tactic, most: usize) -> Call {
        let count = match self.linear.out.rows {
            Rows::Tokens => Count::Tokens,
            Rows::LogitRows => Count::LogitRows,
        };
        match tactic {
            Tactic::Generic => self.plain(target, "linear/generic.cu", count, self.generic_grid(), 128, 0),
            Tactic::Gemv { rows, tiles, chunk, stages, streams_x } => {
                let outputs = if self.gated() { 8 } else { 16 } * tiles;
                let shared = self.gemv_shared(rows, tiles, chunk, stages, streams_x);
                let resident = if shared <= target.shared_bytes / 2 - RESERVED { 2 } else { 1 };
                let blocks = self.n.div_ceil(outputs).min(resident * target.multiprocessors);
                let limit = (IN_FLIGHT / (16 * tiles * chunk)).max(if tiles == 2 { 3 } else { 1 }).min(stages);
                let mut call =
                    self.plain(target, "linear/gemv.cu", count, Grid::Fixed([blocks as u32, 1, 1]), 288, shared as u32);
                call.spec = call
                    .spec
                    .define("ROWS", rows)
                    .define("TILES", tiles)
                    .define("CHUNK", chunk)
                    .define("STAGES", stages)
                    .define("LIMIT", limit)
                    .define_if(streams_x, "X_STREAM", "");
                call
            }
            Tactic::Wgmma { tile_rows, tile_columns, stages, split, cluster } => {
                self.wgmma_call(target, count, most, [tile_rows, tile_columns, stages, split, cluster])
            }
            Tactic::Mma { tile } => self.mma(target, count, tile),
        }
    }

    fn generic_grid(&self) -> Grid {
        Grid::Y { x: self.n.div_ceil(16) as u32, per: 4 }
    }

    /// The portable kernel's tile: small ones until all multiprocessors have work, then such as share more. In an invariant
    /// engine every tile gives the same bits.
    fn mma_tactic(&self, target: &CudaTarget, rows: usize) -> Tactic {
        let blocks = |tile_rows: usize, columns: usize| {
            let outputs = if self.gated() { columns / 2 } else { columns };
            rows.div_ceil(tile_rows) * self.n.div_ceil(outputs)
        };
        let (most, blocked) = (target.multiprocessors, self.has_block_scales());
        let tile = match rows {
            0..=16 => [16, 32, 16, 16, 128, 6],
            17..=128 if blocks(64, 32) <= 2 * most => [64, 32, 32, 16, 128, 4],
            17..=64 => [64, 64, 32, 32, 128, 3],
            65..=128 if blocks(64, 64) <= 2 * most => [64, 64, 32, 32, 128, 3],
            _ if blocks(128, 128) < 3 * most => [128, 64, 64, 32, 64, 4],
            _ if rows < 2048 || blocked => [128, 128, 64, 32, 64, 3],
            _ => [128, 128, 64, 64, 64, 3],
        };
        Tactic::Mma { tile }
    }

    fn mma(&self, target: &CudaTarget, count: Count, [rows, columns, wm, wn, bk, stages]: [usize; 6]) -> Call {
        let outputs = if self.gated() { columns / 2 } else { columns };
        let tiles = self.n.div_ceil(outputs) as u32;
        let grid = Grid::Persistent { per: rows as u32, cluster: 1, tiles, most: u32::MAX };
        let shared = stages * bk * (2 * rows + if self.is_e4m3() { 1 } else { 2 } * columns);
        let block = 32 * (rows / wm) * (columns / wn);
        let mut call = self.plain(target, "linear/mma_gemm.cu", count, grid, block as u32, shared as u32);
        call.spec = call
            .spec
            .define("BM", rows)
            .define("BN", columns)
            .define("WM", wm)
            .define("WN", wn)
            .define("BK", bk)
            .define("STAGES", stages);
        call
    }

    /// What a sweep on an H100 found: narrow tiles and split sums while weights are what is waited for, then wide tiles in
    /// clusters that share them.
    fn wgmma(&self, target: &CudaTarget, rows: usize) -> Tactic {
        let columns = if self.gated() { 2 * self.n } else { self.n };
        // Blocks that share one tile's K, where the tiles alone would leave multiprocessors idle.
        let split =
            |tile: usize| (target.multiprocessors / columns.div_ceil(tile)).clamp(1, 4).min(self.k.div_ceil(512));
        let wide = columns >= 64 * target.multiprocessors;
        let (tile_rows, tile_columns, stages, split, cluster) = match rows {
            0..=64 if wide => (64, 128, 8, 1, 1),
            0..=64 => (64, 64, 12, split(64), 1),
            65..=128 if wide => (128, 256, 4, 1, 1),
            65..=128 => (128, 64, 9, split(64), 1),
            129..=512 if !wide => (128, 128, 6, 1, 2),
            _ => (128, 256, 4, 1, 2),
        };
        Tactic::Wgmma { tile_rows, tile_columns, stages, split, cluster }
    }

    fn wgmma_call(&self, target: &CudaTarget, count: Count, most: usize, tactic: [usize; 5]) -> Call {
        let [rows, columns, stages, split, cluster] = tactic;
        let linear = self.linear;
        let outputs = if self.gated() { columns / 2 } else { columns };
        let column_tiles = self.n.div_ceil(outputs);
        let grid = Grid::Persistent {
            per: rows as u32,
            cluster: cluster as u32,
            tiles: (column_tiles * split) as u32,
            most: (target.multiprocessors / cluster * cluster) as u32,
        };
        let element = match (self.is_e4m3(), self.half) {
            (true, _) => MapElement::Byte,
            (false, DType::F16) => MapElement::Half,
            (false, _) => MapElement::Bf16,
        };
        let box_columns = if self.is_e4m3() { 128 } else { 64 };
        let weight = |index: usize| {
            let of = *linear.weights.get(index).unwrap_or(&linear.weights[0]);
            Arg::WeightMap { of, element, box_rows: outputs / cluster, box_columns }
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
            .define("SPLIT_K", split)
            .define("CLUSTER", cluster)
            .define_if(self.is_e4m3(), "E4M3", 1);
        let shared = stages * ((rows + columns) * 128 + 16) + 1024;
        let mut call = Call::new(spec, 384, grid, count, args).shared(shared as u32);
        call.cluster = cluster as u32;
        let tiles = most.div_ceil(rows).next_multiple_of(cluster) * column_tiles;
        match split {
            1 => call,
            _ => call.split(tiles * split * rows * columns * 4, tiles * 8),
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
            .define_if(self.has_block_scales(), "SCALE_BLOCK", "")
            .define_if(linear.out.dtype == DType::F32, "OUTPUT_F32", "")
            .define_if(!linear.biases.is_empty(), "BIAS", "")
            .define_if(self.gated(), "GATED", "")
            .define_if(linear.residual.is_some(), "RESIDUAL", "")
            .define_if(linear.norm.is_some(), "NORM", "")
            .define_if(linear.norm.is_some(), "NORM_EPS", linear.norm.map_or(String::new(), |norm| float(norm.eps)))
    }
}
