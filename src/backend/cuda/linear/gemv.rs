//! `kernels/linear/gemv.cu`: few rows, bound by reading the weights once.

use serde::{Deserialize, Serialize};

use super::Layer;
use crate::backend::cuda::call::{Call, Grid};
use crate::backend::cuda::target::CudaTarget;

/// Most rows that the kernel takes.
pub(super) const MOST_STREAMED: usize = 16;
/// Bytes of weights that a block asks for ahead: more would delay its activations.
const IN_FLIGHT: usize = 32 << 10;
const MOST_STAGES: usize = 6;
/// Consumer warps; a producer warp comes to them.
const CONSUMERS: usize = 8;

/// The kernel's tuning macros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::backend::cuda) struct Gemv {
    rows: usize,
    /// Tiles of 16 rows of the matrices in a unit.
    tiles: usize,
    /// Bytes of each row in a stage.
    chunk: usize,
    stages: usize,
    /// Activations travel beside the weights.
    streams_x: bool,
}

impl Layer<'_> {
    /// Forms that fit, by default two blocks to a multiprocessor where the activations leave room for four stages; else the
    /// activations travel too, and for sixteen rows one block with wide tiles reads them half as often.
    pub(super) fn gemvs(&self, target: &CudaTarget, rows: usize) -> Vec<Gemv> {
        let (pair, whole) = (target.shared_of_blocks(2), target.shared_of_blocks(1));
        let form = |tiles, chunk, streams_x, room| {
            let gemv = |stages| Gemv { rows, tiles, chunk, stages, streams_x };
            (1..=MOST_STAGES).rev().map(gemv).find(|gemv| self.gemv_shared(gemv) <= room)
        };
        let deep = |gemv: &Gemv| gemv.stages >= 4;
        let resident = form(1, 1024, false, pair).filter(deep);
        let default = resident.or_else(|| match self.linear.norm {
            // A norm needs all activations at once.
            Some(_) => form(1, 512, false, pair).filter(deep).or_else(|| form(1, 1024, false, whole)),
            None if rows == MOST_STREAMED => form(2, 1024, true, whole),
            None => form(1, 1024, true, pair),
        });
        let mut gemvs: Vec<Gemv> = default.into_iter().collect();
        for streams_x in [false, true] {
            for (tiles, chunk, room) in
                [(1, 1024, pair), (1, 512, pair), (1, 1024, whole), (2, 1024, whole), (2, 512, pair)]
            {
                let able = !(streams_x && self.linear.norm.is_some());
                let form = form(tiles, chunk, streams_x, room).filter(|gemv| able && gemv.stages >= 2);
                gemvs.extend(form.filter(|form| !gemvs.contains(form)));
            }
        }
        gemvs
    }

    pub(super) fn gemv_call(&self, target: &CudaTarget, gemv: Gemv) -> Call {
        let shared = self.gemv_shared(&gemv);
        let resident = if shared <= target.shared_of_blocks(2) { 2 } else { 1 };
        let blocks = self.column_tiles(16 * gemv.tiles).min(resident * target.present);
        let limit = (IN_FLIGHT / (16 * gemv.tiles * gemv.chunk)).max(if gemv.tiles == 2 { 3 } else { 1 });
        let spec = self
            .spec("linear/gemv.cu")
            .define("ROWS", gemv.rows)
            .define("TILES", gemv.tiles)
            .define("CHUNK", gemv.chunk)
            .define("STAGES", gemv.stages)
            .define("LIMIT", limit.min(gemv.stages))
            .define_if(gemv.streams_x, "X_STREAM", "");
        self.plain(spec, Grid::Fixed([blocks as u32, 1, 1]), 32 * (CONSUMERS + 1), shared)
    }

    /// Shared memory, as the kernel's source lays it out.
    fn gemv_shared(&self, gemv: &Gemv) -> usize {
        let (weight_bytes, x_pad) = if self.is_e4m3() { (1, 16) } else { (2, 64) };
        let x_columns = if gemv.streams_x { gemv.chunk / weight_bytes } else { self.k };
        let x = gemv.rows * (2 * x_columns + x_pad);
        let (beside, once) = if gemv.streams_x { (x, 0) } else { (0, x) };
        let stage = 16 * gemv.tiles * (gemv.chunk + 64) + beside + 3 * 8;
        let parts = CONSUMERS * gemv.rows * 16 * gemv.tiles * 4;
        gemv.stages * stage + once + parts
    }
}
