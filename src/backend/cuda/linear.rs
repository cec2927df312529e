//! Which kernel computes a linear layer, and how it is called.

use super::call::{Arg, Call, Count, Grid, Shared};
use super::driver::{Arch, MapElement};
use super::kernel::KernelSpec;
use super::work::{Linear, Operand};
use super::target::CudaTarget;
use crate::engine::{Plan, Rows, WeightSpec};
use crate::types::{Activation, DType};

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
    /// Tensor cores by `wgmma`, operands by the copy engine.
    Wgmma { tile_rows: usize, tile_columns: usize, stages: usize, split: usize },
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
}

impl<'a> Layer<'a> {
    pub(super) fn new(plan: &'a Plan, linear: &'a Linear) -> Self {
        let weight = &plan.weights[linear.weights[0]];
        Self { linear, weight, n: linear.out.columns, k: linear.x.columns }
    }

    fn gated(&self) -> bool {
        self.linear.weights.len() == 2
    }

    fn is_e4m3(&self) -> bool {
        self.weight.dtype == DType::E4M3
    }

    /// Whether the tensor-core kernels can read the operands.
    fn is_aligned(&self) -> bool {
        let x = &self.linear.x;
        self.k.is_multiple_of(if self.is_e4m3() { 128 } else { 64 })
            && self.n.is_multiple_of(8)
            && x.stride.is_multiple_of(16)
            && x.start.is_multiple_of(16)
    }

    /// The default tactic for at most `rows` rows.
    pub(super) fn tactic(&self, target: &CudaTarget, rows: usize) -> Tactic {
        if !self.is_aligned() {
            return Tactic::Generic;
        }
        if rows <= MOST_STREAMED && !target.invariant {
            return self.gemv(target, rows.next_power_of_two());
        }
        let mixed = self.is_e4m3() && self.linear.x_scale.is_none();
        match target.arch.has_wgmma() && !mixed && !target.invariant {
            true => self.wgmma(rows),
            false => mma(rows, target.invariant),
        }
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
            Tactic::Mma { tile_rows, tile_columns, stages } => self.mma(target, count, tile_rows, tile_columns, stages),
            Tactic::Wgmma { tile_rows, tile_columns, stages, split } => {
                self.wgmma_call(target, count, tile_rows, tile_columns, stages, split)
            }
        }
    }
}
