//! How the rows of a step and the panels of a weight are cut into work.

use std::ops::Range;

use super::compiled::{Activations, Products};
use super::panels::Panels;
use super::quantize::RowScale;
use super::team::{Areas, Need};
use crate::engine::PANEL;

/// Rows packed at once; longer steps go in several passes.
pub(super) const PASS_ROWS: usize = 768;
/// Rows that a task of a sweep takes, about.
const BLOCK_ROWS: usize = 256;
/// Words of k that a sweep takes at a time: a panel's block is 32 KiB.
pub(super) const BLOCK_WORDS: usize = 256;
/// Panels that a task of a sweep takes at most.
const SWEEP_PANELS: usize = 4;

/// Scratch for products of `rows` rows with `factors` weights of inner dimension `k`.
pub(super) fn need(products: &Products, rows: usize, k: usize, factors: usize) -> Need {
    let block_rows = rows.min(BLOCK_ROWS) + 2 * products.sweep.len();
    let sums = factors * SWEEP_PANELS * block_rows * PANEL;
    let row = products.activations.words(k).saturating_mul(4).saturating_add(size_of::<RowScale>());
    Need { shared: rows.min(PASS_ROWS).saturating_mul(row), lane: (sums + BLOCK_WORDS * PANEL) * 4 }
}

/// Up to [`PASS_ROWS`] rows, and how the work on them is cut.
pub(super) struct Pass {
    pub areas: Areas,
    pub products: &'static Products,
    /// First row and number of rows.
    pub start: usize,
    pub rows: usize,
    /// The rows are cut into so many tiles of nearly equal height.
    pub tiles: usize,
    /// Packed activations.
    pub activations: usize,
    pub words: usize,
    /// Words of k at a time, panels at a time, tiles at a time.
    pub block_words: usize,
    pub unit_panels: usize,
    pub unit_tiles: usize,
}

impl Pass {
    /// For some rows, which begin at `first` in the input, on so many lanes.
    pub(super) fn new(
        products: &'static Products,
        panels: &Panels,
        lanes: usize,
        areas: Areas,
        first: *const f32,
        rows: Range<usize>,
    ) -> Self {
        let (start, rows) = (rows.start, rows.len());
        let words = products.activations.words(panels.k);
        let tiles = rows.div_ceil(products.sweep.len());
        let in_place = rows == 1 && products.activations == Activations::F32;
        let activations = if in_place { first as usize } else { areas.shared() as usize };
        let (block_words, unit_panels, unit_tiles) = if tiles == 1 && !products.streams.is_empty() {
            // Wide units hide the latency of the additions, but every lane must get some.
            let wide = products.streams[rows - 1].panels;
            let enough = panels.count() >= 2 * wide * lanes;
            (words, if enough { wide } else { 1 }, 1)
        } else {
            let unit_tiles = tiles.div_ceil(rows.div_ceil(BLOCK_ROWS));
            let blocks = tiles.div_ceil(unit_tiles);
            let spread = panels.count() * blocks / (4 * lanes);
            (BLOCK_WORDS, spread.clamp(1, SWEEP_PANELS), unit_tiles)
        };
        Pass { areas, products, start, rows, tiles, activations, words, block_words, unit_panels, unit_tiles }
    }

    /// First row of a tile, within the pass.
    pub(super) fn tile_start(&self, tile: usize) -> usize {
        tile * self.rows / self.tiles
    }

    pub(super) fn height(&self, tile: usize) -> usize {
        self.tile_start(tile + 1) - self.tile_start(tile)
    }

    /// Whether a block of k of one panel at a time goes over all tiles.
    pub(super) fn sweeps(&self) -> bool {
        self.tiles > 1 || self.products.streams.is_empty()
    }

    pub(super) fn tile_blocks(&self) -> usize {
        self.tiles.div_ceil(self.unit_tiles)
    }

    /// Scales of the rows from `row`, behind the packed activations; null where these are not bytes.
    pub(super) fn scales(&self, row: usize) -> *mut RowScale {
        let end = (self.activations as *mut u32).wrapping_add(self.rows * self.words);
        match self.products.activations {
            Activations::Bytes => end.cast::<RowScale>().wrapping_add(row),
            Activations::F32 | Activations::Pairs => std::ptr::null_mut(),
        }
    }
}
