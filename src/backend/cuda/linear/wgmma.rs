//! `kernels/linear/sm90_gemm.cu`: Hopper's warpgroups.

use serde::{Deserialize, Serialize};

use super::Layer;
use crate::backend::cuda::call::{Arg, Call, Grid, Shared};
use crate::backend::cuda::driver::MapElement;
use crate::backend::cuda::target::CudaTarget;
use crate::types::DType;

/// The kernel's tuning macros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::backend::cuda) struct Wgmma {
    bm: usize,
    bn: usize,
    stages: usize,
    /// Blocks that share a tile's K.
    split: usize,
    /// Blocks that share an operand.
    cluster: usize,
    /// They share tokens, else weights.
    share_x: bool,
}

/// How many tactics are worth a measurement.
const MOST_MEASURED: usize = 14;
const MOST_STAGES: usize = 12;

impl Wgmma {
    fn shared(&self) -> usize {
        self.stages * ((self.bm + self.bn) * 128 + 16) + 1024
    }

    /// Blocks of a cluster along the tokens, which share weights.
    fn tall(&self) -> usize {
        if self.share_x { 1 } else { self.cluster }
    }

    /// And along the outputs, which share tokens.
    fn wide(&self) -> usize {
        if self.share_x { self.cluster } else { 1 }
    }

    /// With as many stages as fit.
    fn deepest(bm: usize, bn: usize, split: usize, cluster: usize, share_x: bool, most: usize) -> Self {
        let form = |stages| Self { bm, bn, stages, split, cluster, share_x };
        let fits = (1..=MOST_STAGES).rev().map(form).find(|form| form.shared() <= most);
        fits.unwrap_or(form(1))
    }
}

impl Layer<'_> {
    /// The default, which a sweep on an H100 found: narrow tiles and split sums while weights are what is waited for, then wide
    /// tiles in clusters that share them. After it those that a model of the kernel deems the fastest.
    pub(super) fn wgmmas(&self, target: &CudaTarget, rows: usize) -> Vec<Wgmma> {
        let default = self.default_wgmma(target, rows);
        let mut others = self.all_wgmmas(target, rows);
        others.retain(|other| *other != default);
        others.sort_by_cached_key(|other| self.cycles(target, other, rows));
        others.truncate(MOST_MEASURED);
        [default].into_iter().chain(others).collect()
    }

    fn default_wgmma(&self, target: &CudaTarget, rows: usize) -> Wgmma {
        let columns = self.matrices() * self.n;
        // Where the tiles alone would leave multiprocessors idle.
        let split =
            |tile: usize| (target.multiprocessors / columns.div_ceil(tile)).clamp(1, 4).min(self.k.div_ceil(512));
        let wide = columns >= 64 * target.multiprocessors;
        // The scales of blocks take the registers that wider tiles need.
        let narrow = self.has_block_scales();
        let (bm, bn, stages, split, cluster) = match rows {
            0..=64 if wide && narrow => (64, 128, 8, 1, 1),
            65..=128 if wide && narrow => (128, 128, 6, 1, 1),
            129.. if narrow => (128, 128, 6, 1, 2),
            0..=64 if wide => (64, 256, 5, 1, 1),
            0..=64 => (64, 64, 12, split(64), 1),
            65..=128 if wide => (128, 256, 4, 1, 1),
            65..=128 => (128, 64, 9, split(64), 1),
            129..=512 if !wide => (128, 128, 6, 1, 2),
            _ => (128, 256, 4, 1, 2),
        };
        Wgmma { bm, bn, stages, split, cluster, share_x: false }
    }

    /// Every form that the kernel has for this layer.
    fn all_wgmmas(&self, target: &CudaTarget, rows: usize) -> Vec<Wgmma> {
        let most = target.shared_of_blocks(1);
        let mut all = Vec::new();
        let heights: &[usize] = if rows <= 64 { &[64] } else { &[64, 128] };
        for &bm in heights {
            for bn in (32..=256).step_by(32) {
                for split in 1..=4 {
                    for (cluster, share_x) in [(1, false), (2, false), (2, true), (4, false), (4, true)] {
                        let form = Wgmma::deepest(bm, bn, split, cluster, share_x, most);
                        if self.has_wgmma(&form, rows) {
                            all.push(form);
                        }
                    }
                }
            }
        }
        all
    }

    /// What the kernel's source says of its macros, and that no block of a cluster or part of a sum is idle.
    fn has_wgmma(&self, form: &Wgmma, rows: usize) -> bool {
        let weight_rows = form.bn / self.matrices();
        let halves = form.bm == 64 && self.matrices() == 2;
        (!halves || form.bn.is_multiple_of(64))
            && (!self.has_block_scales() || matches!(form.bn, 32 | 64 | 128))
            && form.bm.is_multiple_of(8 * form.wide())
            && weight_rows.is_multiple_of(8 * form.tall())
            && self.k >= 512 * form.split
            && form.stages >= 3
            && self.column_tiles(form.bn) >= form.wide()
            && rows.div_ceil(form.bm) >= form.tall()
    }

    /// Cycles by a model: tiles run in waves; in each step of 128 bytes of K a block copies its operands from L2 and multiplies
    /// them, whichever takes longer; and the weights come from memory once. Measured rates of an H100, rounded.
    fn cycles(&self, target: &CudaTarget, form: &Wgmma, rows: usize) -> usize {
        const FROM_L2: usize = 48;
        const FROM_MEMORY: usize = 13;
        const MULTIPLIED: usize = 32;
        let bytes = if self.is_e4m3() { 1 } else { 2 };
        let (tiles, blocks) = (self.wgmma_tiles(form, rows), target.multiprocessors / form.cluster * form.cluster);
        let waves = tiles.div_ceil(blocks);
        let steps = (self.k * bytes).div_ceil(128).div_ceil(form.split);
        let copied = form.bm / form.wide() + form.bn / form.tall();
        let step = (copied * 128 / FROM_L2).max(form.bm * form.bn / MULTIPLIED);
        let out = form.bm * form.bn * if form.split > 1 { 24 } else { 8 } / FROM_L2;
        let weights = self.matrices() * self.n * self.k * bytes / (tiles.min(blocks) * FROM_MEMORY);
        (waves * (steps * step + out)).max(weights)
    }

    /// Tiles with their parts of K for so many rows.
    fn wgmma_tiles(&self, form: &Wgmma, rows: usize) -> usize {
        let tiles = rows.div_ceil(form.bm).next_multiple_of(form.tall());
        tiles * self.column_tiles(form.bn).next_multiple_of(form.wide()) * form.split
    }

    pub(super) fn wgmma_call(&self, target: &CudaTarget, wgmma: Wgmma, most: usize) -> Call {
        let Wgmma { bm, bn, stages, split, cluster, share_x } = wgmma;
        let grid = Grid::Persistent {
            per: bm as u32,
            cluster: wgmma.tall() as u32,
            tiles: (self.column_tiles(bn).next_multiple_of(wgmma.wide()) * split) as u32,
            most: (target.present / cluster * cluster) as u32,
        };
        let spec = self
            .spec("linear/sm90_gemm.cu")
            .define("BM", bm)
            .define("BN", bn)
            .define("STAGES", stages)
            .define("SPLIT_K", split)
            .define("CLUSTER", cluster)
            .define_if(share_x, "SHARE_X", 1)
            .define_if(self.is_e4m3(), "E4M3", 1);
        let tiles = self.wgmma_tiles(&wgmma, most);
        let mut call = Call::new(spec, 384, grid, self.count(), self.wgmma_args(&wgmma)).shared(wgmma.shared() as u32);
        call.cluster = cluster as u32;
        match split {
            1 => call,
            _ => call.split(tiles * bm * bn * 4, tiles / split * 8),
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
        let box_rows = wgmma.bn / self.matrices() / wgmma.tall();
        // The kernel wants a second map even where it has no second matrix.
        let weight = |index: usize| {
            let of = *linear.weights.get(index).unwrap_or(&linear.weights[0]);
            Arg::WeightMap { of, element, box_rows, box_columns }
        };
        vec![
            Arg::BufferMap { of: linear.x, element, box_rows: wgmma.bm / wgmma.wide(), box_columns },
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
