//! `kernels/linear/sm90_gemm.cu`: Hopper's warpgroups.

use super::{Layer, Tactic};
use crate::backend::cuda::call::{Arg, Call, Grid, Shared};
use crate::backend::cuda::driver::MapElement;
use crate::backend::cuda::target::CudaTarget;
use crate::types::DType;

/// The kernel's tuning macros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend::cuda) struct Wgmma {
    bm: usize,
    bn: usize,
    stages: usize,
    /// Blocks that share a tile's K.
    split: usize,
    /// Blocks that share weights.
    cluster: usize,
}

impl Layer<'_> {
    /// What a sweep on an H100 found: narrow tiles and split sums while weights are what is waited for, then wide tiles in
    /// clusters that share them.
    pub(super) fn wgmma(&self, target: &CudaTarget, rows: usize) -> Tactic {
        let columns = self.matrices() * self.n;
        // Where the tiles alone would leave multiprocessors idle.
        let split =
            |tile: usize| (target.multiprocessors / columns.div_ceil(tile)).clamp(1, 4).min(self.k.div_ceil(512));
        let wide = columns >= 64 * target.multiprocessors;
        let (bm, bn, stages, split, cluster) = match rows {
            0..=64 if wide => (64, 128, 8, 1, 1),
            0..=64 => (64, 64, 12, split(64), 1),
            65..=128 if wide => (128, 256, 4, 1, 1),
            65..=128 => (128, 64, 9, split(64), 1),
            129..=512 if !wide => (128, 128, 6, 1, 2),
            _ => (128, 256, 4, 1, 2),
        };
        Tactic::Wgmma(Wgmma { bm, bn, stages, split, cluster })
    }

    pub(super) fn wgmma_call(&self, target: &CudaTarget, wgmma: Wgmma, most: usize) -> Call {
        let Wgmma { bm, bn, stages, split, cluster } = wgmma;
        let column_tiles = self.column_tiles(bn);
        let grid = Grid::Persistent {
            per: bm as u32,
            cluster: cluster as u32,
            tiles: (column_tiles * split) as u32,
            most: (target.present / cluster * cluster) as u32,
        };
        let spec = self
            .spec("linear/sm90_gemm.cu")
            .define("BM", bm)
            .define("BN", bn)
            .define("STAGES", stages)
            .define("SPLIT_K", split)
            .define("CLUSTER", cluster)
            .define_if(self.is_e4m3(), "E4M3", 1);
        let shared = stages * ((bm + bn) * 128 + 16) + 1024;
        let mut call = Call::new(spec, 384, grid, self.count(), self.wgmma_args(&wgmma)).shared(shared as u32);
        call.cluster = cluster as u32;
        let tiles = most.div_ceil(bm).next_multiple_of(cluster) * column_tiles;
        match split {
            1 => call,
            _ => call.split(tiles * split * bm * bn * 4, tiles * 8),
        }
    }

    fn wgmma_args(&self, wgmma: &Wgmma) -> Vec<Arg> {
        let linear = self.linear;
        // Boxes are 128 bytes wide.
        let (element, box_columns) = match (self.is_e4m3(), self.half) {
            (true, _) => (MapElement::Byte, 128),
            (false, DType::F16) => (MapElement::Half, 64),
            (false, _) => (MapElement::Bf16, 64),
        };
        let box_rows = wgmma.bn / self.matrices() / wgmma.cluster;
        // The kernel wants a second map even where it has no second matrix.
        let weight = |index: usize| {
            let of = *linear.weights.get(index).unwrap_or(&linear.weights[0]);
            Arg::WeightMap { of, element, box_rows, box_columns }
        };
        vec![
            Arg::BufferMap { of: linear.x, element, box_rows: wgmma.bm, box_columns },
            weight(0),
            weight(1),
            Arg::Buffer(linear.out),
            self.scale_arg(0),
            self.scale_arg(1),
            linear.x_scale.map_or(Arg::Null, Arg::Buffer),
            self.bias_arg(0),
            self.bias_arg(1),
            self.residual_arg(),
            Arg::Shared(Shared::Partial),
            Arg::Shared(Shared::Counters),
            Arg::Count(self.count()),
        ]
    }
}
