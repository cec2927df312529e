//! `Linear` and `GatedLinear`: activations times packed panels.
//!
//! Rows are cut into tiles and packed once. Few rows (one tile) stream the weights: several panels side by side over the
//! whole of k. Many rows sweep: a block of k of one panel stays in the first-level cache while all tiles of a block of
//! rows pass over it. Each output element is the same chain of additions either way (see `tile.rs`).

use std::ops::Range;
use std::sync::Arc;

use super::compiled::{Activations, Products};
use super::finish::Finish;
use super::operands::{Matrix, Operands, Vector};
use super::pack::Pack;
use super::panels::Panels;
use super::pass::{BLOCK_WORDS, PASS_ROWS, Pass};
use super::quantize::{MOST_COLUMNS, Quantize, Rescale};
use super::team::Team;
use super::tile::{AHEAD_BYTES, Tile, TileCall};
use crate::backend::{Batch, Kernel};
use crate::engine::PANEL;
use crate::error::Result;
use crate::types::Activation;

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
    products: &'static Products,
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
        let products = products(&team, operands, &first.panels)?;
        Ok(MatMul { team, input, output, first, up: None, activation, products })
    }

    pub(super) fn gated(team: Arc<Team>, operands: &Operands<'_>, bias: bool, activation: Activation) -> Result<Self> {
        let (input, output) = ends(operands)?;
        let first = factor(operands, 0, bias.then_some(2), &input, &output)?;
        let up = factor(operands, 1, bias.then_some(3), &input, &output)?;
        if first.panels.dtype != up.panels.dtype {
            return Err(operands.unsupported("its two weights have different dtypes"));
        }
        let products = products(&team, operands, &first.panels)?;
        let (up, activation) = (Some(up), Some(activation));
        Ok(MatMul { team, input, output, first, up, activation, products })
    }
}

/// The products for such weights.
fn products(team: &Team, operands: &Operands<'_>, panels: &Panels) -> Result<&'static Products> {
    let Panels { dtype, k, .. } = *panels;
    let products = team.compiled.products(dtype, operands.precision());
    if products.activations == Activations::Bytes && k > MOST_COLUMNS {
        return Err(operands.unsupported(format!("sums of {k} integer products overflow; {MOST_COLUMNS} fit")));
    }
    Ok(products)
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

impl Kernel for MatMul {
    unsafe fn launch(&mut self, batch: &Batch) -> Result<()> {
        let rows = self.output.count(batch);
        let turn = self.team.scratch();
        for start in (0..rows).step_by(PASS_ROWS) {
            // SAFETY: `start` is a row of the step.
            let first = unsafe { self.input.row(start) };
            let (panels, lanes) = (&self.first.panels, self.team.pool.lanes());
            let pass = Pass::new(self.products, panels, lanes, turn.areas, first, start..rows.min(start + PASS_ROWS));
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
    /// Packs the activations of a pass, unless they are used where they are.
    ///
    /// # Safety
    /// As `launch`.
    unsafe fn pack(&self, pass: &Pass) -> Result<()> {
        if pass.activations != pass.areas.shared() as usize {
            return Ok(());
        }
        let k = self.first.panels.k;
        let pack = match pass.products.activations {
            Activations::F32 => self.team.compiled.pack_f32,
            Activations::Pairs => self.team.compiled.pack_pairs,
            // SAFETY: the caller's.
            Activations::Bytes => return unsafe { self.quantize(pass) },
        };
        let strip = (PACK_GRAIN * pass.tiles / pass.rows).next_multiple_of(2).max(2);
        let strips = k.div_ceil(strip);
        self.team.pool.run(pass.tiles * strips, &|_, task| {
            let (tile, from) = (task / strips, task % strips * strip);
            let (start, height) = (pass.tile_start(tile), pass.height(tile));
            // Words before this strip: `strip` is even, so that no pair is cut.
            let words = pass.products.activations.words(from);
            // SAFETY: the strips lie within the rows of the input and within the shared scratch, each its own part.
            unsafe {
                let rows = self.input.row(pass.start + start).add(from);
                let out = (pass.activations as *mut f32).add(start * pass.words + words * height);
                pack(&Pack { rows, stride: self.input.stride(), height, k: strip.min(k - from), out });
            }
        })
    }

    /// Packs rows as bytes with scales: whole rows, since a row's scale comes from all of it.
    ///
    /// # Safety
    /// As `launch`.
    unsafe fn quantize(&self, pass: &Pass) -> Result<()> {
        self.team.pool.run(pass.tiles, &|_, tile| {
            let (start, height) = (pass.tile_start(tile), pass.height(tile));
            // SAFETY: the tile's rows are the input's; their part of the shared scratch is nobody else's.
            unsafe {
                (self.team.compiled.quantize)(&Quantize {
                    rows: self.input.row(pass.start + start),
                    stride: self.input.stride(),
                    height,
                    k: self.first.panels.k,
                    out: (pass.activations as *mut u32).add(start * pass.words),
                    scales: pass.scales(start),
                });
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
                self.rescale(pass, &self.first.panels, panel, start, rows, sums.add(index * step));
                if let Some(up) = &self.up {
                    self.rescale(pass, &up.panels, panel, start, rows, up_sums.add(index * step));
                }
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

    /// Turns the sums of integer weights into values; others are values.
    ///
    /// # Safety
    /// As [`MatMul::unit`]; the sums are those of `rows` rows from `start` and of that panel.
    unsafe fn rescale(&self, pass: &Pass, weights: &Panels, panel: usize, start: usize, rows: usize, sums: *mut f32) {
        // SAFETY: the caller's.
        unsafe {
            let Some(scales) = weights.scales_of_sums(panel) else { return };
            (self.team.compiled.rescale)(&Rescale { sums, rows, scales: &scales, activations: pass.scales(start) });
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
