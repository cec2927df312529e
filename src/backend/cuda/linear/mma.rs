//! `kernels/linear/mma_gemm.cu`: tensor cores of every arch, and every row count of an invariant engine.

use serde::{Deserialize, Serialize};

use super::Layer;
use crate::backend::cuda::call::{Call, Grid};
use crate::backend::cuda::target::CudaTarget;

/// The kernel's tuning macros: tile of a block, tile of a warp, elements of K in a slice, slices under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::backend::cuda) struct Mma {
    bm: usize,
    bn: usize,
    wm: usize,
    wn: usize,
    bk: usize,
    stages: usize,
}

impl Mma {
    const fn new([bm, bn]: [usize; 2], [wm, wn]: [usize; 2], bk: usize, stages: usize) -> Self {
        Self { bm, bn, wm, wn, bk, stages }
    }
}

impl Layer<'_> {
    /// By default small tiles until all multiprocessors have work, then such as share more. Every tile gives the same bits.
    pub(super) fn mmas(&self, target: &CudaTarget, rows: usize) -> Vec<Mma> {
        const FEW: Mma = Mma::new([16, 32], [16, 16], 128, 6);
        const NARROW: Mma = Mma::new([64, 32], [32, 16], 128, 4);
        const SQUARE: Mma = Mma::new([64, 64], [32, 32], 128, 3);
        const HIGH: Mma = Mma::new([128, 64], [64, 32], 64, 4);
        const LARGE: Mma = Mma::new([128, 128], [64, 32], 64, 3);
        const LARGEST: Mma = Mma::new([128, 128], [64, 64], 64, 3);
        let blocks = |bm: usize, bn: usize| rows.div_ceil(bm) * self.column_tiles(bn);
        let most = target.multiprocessors;
        let default = match rows {
            0..=16 => FEW,
            17..=128 if blocks(64, 32) <= 2 * most => NARROW,
            17..=64 => SQUARE,
            65..=128 if blocks(64, 64) <= 2 * most => SQUARE,
            _ if blocks(128, 128) < 3 * most => HIGH,
            _ if rows < 2048 || self.has_block_scales() => LARGE,
            _ => LARGEST,
        };
        let others: &[Mma] = match rows {
            0..=16 => &[FEW],
            17..=64 => &[NARROW, SQUARE],
            65..=256 => &[NARROW, SQUARE, HIGH, LARGE],
            _ if self.has_block_scales() => &[HIGH, LARGE],
            _ => &[HIGH, LARGE, LARGEST],
        };
        [default].into_iter().chain(others.iter().copied().filter(|other| *other != default)).collect()
    }

    pub(super) fn mma_call(&self, mma: Mma) -> Call {
        let Mma { bm, bn, wm, wn, bk, stages } = mma;
        let grid = Grid::Persistent { per: bm as u32, cluster: 1, tiles: self.column_tiles(bn) as u32, most: u32::MAX };
        let weight_bytes = if self.is_e4m3() { 1 } else { 2 };
        let spec = self
            .spec("linear/mma_gemm.cu")
            .define("BM", bm)
            .define("BN", bn)
            .define("WM", wm)
            .define("WN", wn)
            .define("BK", bk)
            .define("STAGES", stages);
        self.plain(spec, grid, 32 * (bm / wm) * (bn / wn), stages * bk * (2 * bm + weight_bytes * bn))
    }
}
