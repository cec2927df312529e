//! `Linear` and `GatedLinear`: activations times packed panels.
//!
//! Rows are cut into tiles and packed once. Few rows (one tile) stream the weights: several panels side by side over the
//! whole of k. Many rows sweep: a block of k of one panel stays in the first-level cache while all tiles of a block of
//! rows pass over it. Each output element is the same chain of additions either way (see `tile.rs`).

use std::ops::Range;
use std::sync::Arc;

use super::compiled::Products;
use super::finish::Finish;
use super::operands::{Matrix, Operands, Vector};
use super::pack::Pack;
use super::panels::Panels;
use super::team::{Areas, Need, Team};
use super::tile::{AHEAD_BYTES, Tile, TileCall};
use crate::backend::{Batch, Kernel};
use crate::engine::PANEL;
use crate::error::Result;
use crate::types::{Activation, DType};

/// Rows packed at once; longer steps go in several passes.
const PASS_ROWS: usize = 768;
/// Rows that a task of a sweep takes, about.
const BLOCK_ROWS: usize = 256;
/// Words of k that a sweep takes at a time: a panel's block is 32 KiB.
const BLOCK_WORDS: usize = 256;
/// Panels that a task of a sweep takes at most.
const SWEEP_PANELS: usize = 4;
/// Multiplications below which work is not worth another thread.
const GRAIN: usize = 64 * 1024;
/// Elements that a task packs at least.
const PACK_GRAIN: usize = 16 * 1024;

/// One product: its weight and bias.
#[derive(Clone, Copy)]
struct Factor {
    panels: Panels,
    bias: Option<Vector>,
}

/// `act(x W^T + b)`, times `x U^T + c` where there is an `up`.
pub(super) struct MatMul {
    team: Arc<Team>,
    input: Matrix,
    output: Matrix,
    first: Factor,
    up: Option<Factor>,
    activation: Option<Activation>,
}

impl MatMul {
    pub(super) fn linear(
        team: Arc<Team>,
        operands: &Operands<'_>,
        bias: bool,
        activation: Option<Activation>,
    ) -> Result<Self> {
        let (input, output) = ends(operands)?;
        let first = factor(operands, 0, bias.then_some(1), &input, &output)?;
        Ok(MatMul { team, input, output, first, up: None, activation })
    }

    pub(super) fn gated(team: Arc<Team>, operands: &Operands<'_>, bias: bool, activation: Activation) -> Result<Self> {
        let (input, output) = ends(operands)?;
        let first = factor(operands, 0, bias.then_some(2), &input, &output)?;
        let up = factor(operands, 1, bias.then_some(3), &input, &output)?;
        if first.panels.dtype != up.panels.dtype {
            return Err(operands.unsupported("its two weights have different dtypes"));
        }
        Ok(MatMul { team, input, output, first, up: Some(up), activation: Some(activation) })
    }

    fn products(&self) -> &'static Products {
        products(&self.team, self.first.panels.dtype)
    }
}

fn ends(operands: &Operands<'_>) -> Result<(Matrix, Matrix)> {
    let output = operands.output(0)?;
    let input = operands.input(0)?;
    if input.rows != output.rows || input.columns == 0 || output.columns == 0 {
        return Err(operands.corrupt("its input has other rows than its output, or one is empty"));
    }
    Ok((input, output))
}

fn factor(
    operands: &Operands<'_>,
    weight: usize,
    bias: Option<usize>,
    input: &Matrix,
    output: &Matrix,
) -> Result<Factor> {
    let panels = operands.panels(weight, output.columns, input.columns)?;
    let bias = bias.map(|index| operands.vector(index, output.columns)).transpose()?;
    Ok(Factor { panels, bias })
}

fn products(team: &Team, dtype: DType) -> &'static Products {
    match dtype {
        DType::BF16 => &team.compiled.bf16,
        DType::F16 => &team.compiled.f16,
        DType::E4M3 => &team.compiled.e4m3,
        _ => &team.compiled.f32,
    }
}

/// Words of a packed activation row.
fn row_words(products: &Products, k: usize) -> usize {
    if products.pairs { k.div_ceil(2) } else { k }
}

/// Scratch for products of `rows` rows with `factors` weights of inner dimension `k`.
pub(super) fn need(team: &Team, dtype: DType, rows: usize, k: usize, factors: usize) -> Need {
    let products = products(team, dtype);
    let block_rows = rows.min(BLOCK_ROWS) + 2 * products.sweep.len();
    let sums = factors * SWEEP_PANELS * block_rows * PANEL;
    Need {
        shared: rows.min(PASS_ROWS).saturating_mul(row_words(products, k)).saturating_mul(4),
        lane: (sums + BLOCK_WORDS * PANEL) * 4,
    }
}

/// Up to [`PASS_ROWS`] rows, and how the work on them is cut.
struct Pass {
    areas: Areas,
    products: &'static Products,
    /// First row and number of rows.
    start: usize,
    rows: usize,
    /// The rows are cut into so many tiles of nearly equal height.
    tiles: usize,
    /// Packed activations.
    activations: usize,
    words: usize,
    /// Words of k at a time, panels at a time, tiles at a time.
    block_words: usize,
    unit_panels: usize,
    unit_tiles: usize,
}

impl Pass {
    /// First row of a tile, within the pass.
    fn tile_start(&self, tile: usize) -> usize {
        tile * self.rows / self.tiles
    }

    fn height(&self, tile: usize) -> usize {
        self.tile_start(tile + 1) - self.tile_start(tile)
    }

    /// Whether a block of k of one panel at a time goes over all tiles.
    fn sweeps(&self) -> bool {
        self.tiles > 1 || self.products.streams.is_empty()
    }

    fn tile_blocks(&self) -> usize {
        self.tiles.div_ceil(self.unit_tiles)
    }
}

impl Kernel for MatMul {
    unsafe fn launch(&mut self, batch: &Batch) -> Result<()> {
        let rows = self.output.count(batch);
        let turn = self.team.scratch();
        for start in (0..rows).step_by(PASS_ROWS) {
            let pass = self.plan(turn.areas, start, (rows - start).min(PASS_ROWS));
            // SAFETY: the caller's; the pass lies within the rows of the step, the scratch is ours for this launch.
            unsafe {
                self.pack(&pass)?;
                self.multiply(&pass)?;
            }
        }
        Ok(())
    }
}

impl MatMul {
    fn plan(&self, areas: Areas, start: usize, rows: usize) -> Pass {
        let products = self.products();
        let words = row_words(products, self.first.panels.k);
        let tiles = rows.div_ceil(products.sweep.len());
        let in_place = rows == 1 && !products.pairs;
        // SAFETY: `start` is a row of the step.
        let row = unsafe { self.input.row(start) } as usize;
        let activations = if in_place { row } else { areas.shared() as usize };
        let (block_words, unit_panels, unit_tiles) = if tiles == 1 && !products.streams.is_empty() {
            // Wide units hide the latency of the additions, but every lane must get some.
            let wide = products.streams[rows - 1].panels;
            let enough = self.first.panels.count() >= 2 * wide * self.team.pool.lanes();
            (words, if enough { wide } else { 1 }, 1)
        } else {
            let unit_tiles = tiles.div_ceil(rows.div_ceil(BLOCK_ROWS));
            let blocks = tiles.div_ceil(unit_tiles);
            let spread = self.first.panels.count() * blocks / (4 * self.team.pool.lanes());
            (BLOCK_WORDS, spread.clamp(1, SWEEP_PANELS), unit_tiles)
        };
        Pass { areas, products, start, rows, tiles, activations, words, block_words, unit_panels, unit_tiles }
    }

    /// Packs the activations of a pass, unless they are used where they are.
    ///
    /// # Safety
    /// As `launch`.
    unsafe fn pack(&self, pass: &Pass) -> Result<()> {
        if pass.activations != pass.areas.shared() as usize {
            return Ok(());
        }
        let k = self.first.panels.k;
        let pack = if pass.products.pairs { self.team.compiled.pack_pairs } else { self.team.compiled.pack_f32 };
        let strip = (PACK_GRAIN * pass.tiles / pass.rows).next_multiple_of(2).max(2);
        let strips = k.div_ceil(strip);
        self.team.pool.run(pass.tiles * strips, &|_, task| {
            let (tile, from) = (task / strips, task % strips * strip);
            let (start, height) = (pass.tile_start(tile), pass.height(tile));
            // Words before this strip: `strip` is even, so that no pair is cut.
            let words = row_words(pass.products, from);
            // SAFETY: the strips lie within the rows of the input and within the shared scratch, each its own part.
            unsafe {
                let rows = self.input.row(pass.start + start).add(from);
                let out = (pass.activations as *mut f32).add(start * pass.words + words * height);
                pack(&Pack { rows, stride: self.input.stride(), height, k: strip.min(k - from), out });
            }
        })
    }

    /// # Safety
    /// As `launch`.
    unsafe fn multiply(&self, pass: &Pass) -> Result<()> {
        let panels = self.first.panels.count();
        let units = panels.div_ceil(pass.unit_panels) * pass.tile_blocks();
        let factors = if self.up.is_some() { 2 } else { 1 };
        let work = pass.rows * self.first.panels.k * self.first.panels.n * factors;
        let units_per_task = units.div_ceil((work / GRAIN).max(1));
        self.team.pool.run(units.div_ceil(units_per_task), &|lane, task| {
            for unit in task * units_per_task..units.min((task + 1) * units_per_task) {
                let (at, block) = (unit / pass.tile_blocks() * pass.unit_panels, unit % pass.tile_blocks());
                let tiles = block * pass.unit_tiles..pass.tiles.min((block + 1) * pass.unit_tiles);
                // SAFETY: units are disjoint in the output; the lane's scratch is ours for this task.
                unsafe { self.unit(pass, pass.areas.lane(lane), at..panels.min(at + pass.unit_panels), tiles) };
            }
        })
    }

    /// Computes some panels of some tiles.
    ///
    /// # Safety
    /// As `launch`; `scratch` is a lane's.
    unsafe fn unit(&self, pass: &Pass, scratch: *mut f32, panels: Range<usize>, tiles: Range<usize>) {
        let start = pass.tile_start(tiles.start);
        let rows = pass.tile_start(tiles.end) - start;
        let step = rows * PANEL;
        // SAFETY: `need` has room for the expanded block and for the sums of both factors; rows and columns are the
        // output's.
        unsafe {
            let sums = scratch.add(BLOCK_WORDS * PANEL);
            let up_sums = sums.add(panels.len() * step);
            self.accumulate(pass, &self.first.panels, scratch, sums, panels.clone(), tiles.clone());
            if let Some(up) = &self.up {
                self.accumulate(pass, &up.panels, scratch, up_sums, panels.clone(), tiles);
            }
            for (index, panel) in panels.enumerate() {
                let column = panel * PANEL;
                let bias = |factor: &Factor| factor.bias.map_or(std::ptr::null(), |bias| bias.start().add(column));
                (self.team.compiled.finish)(&Finish {
                    sums: sums.add(index * step),
                    bias: bias(&self.first),
                    up: if self.up.is_some() { up_sums.add(index * step) } else { std::ptr::null() },
                    up_bias: self.up.as_ref().map_or(std::ptr::null(), bias),
                    activation: self.activation,
                    rows,
                    columns: (self.output.columns - column).min(PANEL),
                    out: self.output.row(pass.start + start).add(column),
                    stride: self.output.stride(),
                });
            }
        }
    }

    /// Sums of one factor, `[panel][row][PANEL]`.
    ///
    /// # Safety
    /// As [`MatMul::unit`]; `expanded` has room for one block of a panel.
    unsafe fn accumulate(
        &self,
        pass: &Pass,
        weights: &Panels,
        expanded: *mut f32,
        sums: *mut f32,
        panels: Range<usize>,
        tiles: Range<usize>,
    ) {
        let start = pass.tile_start(tiles.start);
        let step = (pass.tile_start(tiles.end) - start) * PANEL;
        let list = self.tile_list(pass, panels.len());
        for from in (0..pass.words).step_by(pass.block_words) {
            let words = pass.block_words.min(pass.words - from);
            let mut panel = panels.start;
            while panel < panels.end {
                let following = self.following(pass, weights, &panels, panel, from);
                // SAFETY: the caller's; every address is within the panels, the packed rows and the lane's scratch.
                let width = unsafe {
                    let mut block = weights.panel(panel);
                    match pass.products.expand {
                        Some(expand) if pass.sweeps() => {
                            weights.expand(expand, panel, from, words, expanded);
                            block = expanded.cast();
                        }
                        _ => block = block.add(from * PANEL),
                    }
                    for tile in tiles.clone() {
                        let (row, height) = (pass.tile_start(tile), pass.height(tile));
                        (list[height - 1].run)(TileCall {
                            words,
                            activations: (pass.activations as *const f32).add(row * pass.words + from * height),
                            panel: block,
                            panel_words: weights.panel_words(),
                            sums: sums.add((panel - panels.start) * step + (row - start) * PANEL),
                            sums_step: step,
                            next: following.wrapping_byte_add((tile - tiles.start) * words * AHEAD_BYTES),
                            fresh: from == 0,
                        });
                    }
                    list[pass.height(tiles.start) - 1].panels
                };
                panel += width;
            }
        }
    }

    /// Where a sweep goes after the block of `panel` that starts at word `from`.
    fn following(&self, pass: &Pass, weights: &Panels, panels: &Range<usize>, panel: usize, from: usize) -> *const u32 {
        let (panel, from) =
            if panel + 1 < panels.end { (panel + 1, from) } else { (panels.start, from + pass.block_words) };
        let rows = if pass.products.expand.is_some() { from / weights.elements_per_word() } else { from };
        // SAFETY: the panel is one of the weight's; the block is only asked for.
        unsafe { weights.panel(panel).wrapping_add(rows * PANEL) }
    }

    /// The tiles for a unit of so many panels: fewer than a stream takes go one by one.
    fn tile_list(&self, pass: &Pass, panels: usize) -> &'static [Tile] {
        if pass.sweeps() {
            pass.products.sweep
        } else if panels == pass.products.streams[pass.rows - 1].panels {
            pass.products.streams
        } else {
            pass.products.single
        }
    }
}
