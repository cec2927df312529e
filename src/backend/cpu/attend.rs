//! Attention of some consecutive tokens of one request with one KV head: every query head that shares it, so that each
//! key and value is read once.
//!
//! A query goes over its keys in spans of [`SPAN`] positions from position 0 up, keeping a running maximum, sum and
//! weighted values. What a query computes depends on its own position alone, never on the queries beside it: a key that
//! it must not see contributes no operation at all.

#![allow(clippy::needless_range_loop, reason = "one index runs over several arrays of registers and addresses")]

use super::cache::{Element, LayerCache};
use super::math;
use super::rows::{Rotation, rotate};
use super::vector::{LANES, Vector};
use crate::engine::BLOCK_TOKENS;

/// Positions between two updates of the running maximum.
const SPAN: usize = 64;
/// Query rows of the tallest tile of any vector.
const MOST_QUERIES: usize = 8;

/// One task.
#[derive(Clone, Copy)]
pub(super) struct Attend<'a> {
    pub cache: LayerCache,
    /// The request's block table.
    pub table: &'a [u32],
    /// Keys a query sees, itself included; `usize::MAX` without a window.
    pub window: usize,
    pub scale: f32,
    pub soft_cap: Option<f32>,
    pub kv_head: usize,
    /// Query heads of a KV head.
    pub group: usize,
    /// Tokens of this task, and the position of the first.
    pub tokens: usize,
    pub position: usize,
    /// First head of the group in the first token's row; a head has `cache.head_dim` elements.
    pub queries: *const f32,
    pub query_stride: usize,
    /// Angles of the first token when the queries are still to be rotated, else null.
    pub angles: *const f32,
    pub angle_stride: usize,
    pub rotary: usize,
    /// Where the first token's first head of the group goes.
    pub out: *mut f32,
    pub out_stride: usize,
    /// At least [`scratch_floats`] f32.
    pub scratch: *mut f32,
}

/// Scratch for `rows` query rows (tokens times heads of the group), in f32.
pub(super) fn scratch_floats(rows: usize, head_dim: usize) -> usize {
    let width = head_dim.next_multiple_of(LANES);
    // Packed queries, weighted values, lane sums, maxima; then one head, and the scores of a tile.
    rows.saturating_mul(2 * width + 2 * LANES).saturating_add(width + MOST_QUERIES * SPAN)
}

/// The running state of all query rows, and work space.
struct State {
    /// `[tile][head_dim][height of the tile]`; all tiles but the last have the full height.
    queries: *mut f32,
    /// `[row][width]`: values weighted by `e^(score - maximum)`.
    values: *mut f32,
    /// `[row][LANES]`: sums of the weights, by lane.
    sums: *mut f32,
    /// `[row]`.
    maxima: *mut f32,
    head: *mut f32,
    /// `[row of the tile][SPAN]`.
    scores: *mut f32,
    width: usize,
}

impl State {
    #[inline(always)]
    unsafe fn new(scratch: *mut f32, rows: usize, head_dim: usize) -> Self {
        let width = head_dim.next_multiple_of(LANES);
        // SAFETY: `scratch_floats` is the sum of these pieces.
        unsafe {
            let queries = scratch;
            let values = queries.add(rows * width);
            let sums = values.add(rows * width);
            let maxima = sums.add(rows * LANES);
            let head = maxima.add(rows * LANES);
            State { queries, values, sums, maxima, head, scores: head.add(width), width }
        }
    }
}

/// The part of the keys that a query row sees, `first..end` by position.
#[derive(Clone, Copy)]
struct Sight {
    first: usize,
    end: usize,
}

impl Sight {
    /// What is seen of `start..start + length`, relative to `start`; empty when the ends meet.
    #[inline(always)]
    fn within(self, start: usize, length: usize) -> (usize, usize) {
        let first = self.first.clamp(start, start + length) - start;
        let end = self.end.clamp(start, start + length) - start;
        (first, end.max(first))
    }
}

impl Attend<'_> {
    #[inline(always)]
    fn rows(&self) -> usize {
        self.tokens * self.group
    }

    /// Row `i` is head `i % group` of token `i / group`.
    #[inline(always)]
    fn sight(&self, row: usize) -> Sight {
        let end = self.position + row / self.group + 1;
        Sight { first: end.saturating_sub(self.window), end }
    }
}

/// Runs one task.
///
/// # Safety
/// See [`Vector`]; the pointers are valid, all blocks that the task's tokens see are in the pool, whose elements are
/// `E`, and were written.
#[inline(always)]
pub(super) unsafe fn attend<V: Vector, E: Element>(task: &Attend<'_>) {
    // SAFETY: the caller's.
    unsafe {
        let rows = task.rows();
        let state = State::new(task.scratch, rows, task.cache.head_dim);
        start::<V>(task, &state);
        let mut span = task.sight(0).first / SPAN * SPAN;
        while span < task.sight(rows - 1).end {
            for tile in (0..rows).step_by(V::QUERIES) {
                let height = (rows - tile).min(V::QUERIES);
                match height {
                    1 => advance::<V, E, 1>(task, &state, tile, span),
                    2 => advance::<V, E, 2>(task, &state, tile, span),
                    3 => advance::<V, E, 3>(task, &state, tile, span),
                    4 => advance::<V, E, 4>(task, &state, tile, span),
                    5 => advance::<V, E, 5>(task, &state, tile, span),
                    6 => advance::<V, E, 6>(task, &state, tile, span),
                    7 => advance::<V, E, 7>(task, &state, tile, span),
                    _ => advance::<V, E, MOST_QUERIES>(task, &state, tile, span),
                }
            }
            span += SPAN;
        }
        for row in 0..rows {
            write_row::<V>(task, &state, row);
        }
    }
}

/// Rotates and packs the queries; clears the state.
#[inline(always)]
unsafe fn start<V: Vector>(task: &Attend<'_>, state: &State) {
    let (rows, head_dim) = (task.rows(), task.cache.head_dim);
    // SAFETY: the caller's.
    unsafe {
        for row in 0..rows {
            let (token, head) = (row / task.group, row % task.group);
            let mut query = task.queries.add(token * task.query_stride + head * head_dim);
            if !task.angles.is_null() {
                let angles = task.angles.add(token * task.angle_stride);
                rotate::<V>(&Rotation { x: query, angles, rotary: task.rotary, head_dim, out: state.head });
                query = state.head;
            }
            let tile = row / V::QUERIES * V::QUERIES;
            let height = (rows - tile).min(V::QUERIES);
            for d in 0..head_dim {
                *state.queries.add(tile * head_dim + d * height + (row - tile)) = *query.add(d);
            }
            V::zero().store(state.sums.add(row * LANES));
            *state.maxima.add(row) = f32::NEG_INFINITY;
            for at in (0..state.width).step_by(LANES) {
                V::zero().store(state.values.add(row * state.width + at));
            }
        }
    }
}

/// Takes one tile over one span of positions.
#[inline(always)]
unsafe fn advance<V: Vector, E: Element, const HEIGHT: usize>(
    task: &Attend<'_>,
    state: &State,
    tile: usize,
    span: usize,
) {
    // SAFETY: the caller's; blocks outside of what the tile sees are never looked up.
    unsafe {
        let sight = Sight { first: task.sight(tile).first, end: task.sight(tile + HEIGHT - 1).end };
        let (first, end) = sight.within(span, SPAN);
        if first == end {
            return;
        }
        let blocks = first / BLOCK_TOKENS..end.div_ceil(BLOCK_TOKENS);
        for at in blocks.clone() {
            let block = *task.table.get_unchecked(span / BLOCK_TOKENS + at);
            let keys = task.cache.keys::<E>(block, task.kv_head);
            let queries = state.queries.add(tile * task.cache.head_dim);
            let scores = state.scores.add(at * BLOCK_TOKENS);
            score::<V, E, HEIGHT>(keys, queries, task.cache.head_dim, task.scale, scores);
        }
        for row in 0..HEIGHT {
            let (seen, scores) = (task.sight(tile + row).within(span, SPAN), state.scores.add(row * SPAN));
            if let Some(cap) = task.soft_cap {
                cap_scores::<V>(cap, seen, scores);
            }
            weigh::<V>(state, tile + row, seen, scores);
        }
        for at in blocks {
            let start = span + at * BLOCK_TOKENS;
            let block = *task.table.get_unchecked(start / BLOCK_TOKENS);
            let values = task.cache.values::<E>(block, task.kv_head);
            // The last row sees the fewest early keys, the first row the fewest late ones.
            let whole = task.sight(tile + HEIGHT - 1).first <= start && start + BLOCK_TOKENS <= task.sight(tile).end;
            if whole {
                let weights = state.scores.add(at * BLOCK_TOKENS);
                gather::<V, E, HEIGHT>(values, weights, BLOCK_TOKENS, task.cache.head_dim, state, tile);
            } else {
                for row in 0..HEIGHT {
                    let (first, end) = task.sight(tile + row).within(start, BLOCK_TOKENS);
                    let weights = state.scores.add(row * SPAN + at * BLOCK_TOKENS + first);
                    let values = values.add(first * task.cache.head_dim);
                    gather::<V, E, 1>(values, weights, end - first, task.cache.head_dim, state, tile + row);
                }
            }
        }
    }
}

/// Scores of a tile with the keys of one block.
#[inline(always)]
unsafe fn score<V: Vector, E: Element, const HEIGHT: usize>(
    keys: *const E,
    queries: *const f32,
    head_dim: usize,
    scale: f32,
    scores: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [V::zero(); HEIGHT];
        for d in 0..head_dim {
            let key = E::load::<V>(keys.add(d * BLOCK_TOKENS));
            let query = queries.add(d * HEIGHT);
            for row in 0..HEIGHT {
                sums[row] = V::splat(*query.add(row)).mul_add(key, sums[row]);
            }
        }
        for row in 0..HEIGHT {
            sums[row].mul(V::splat(scale)).store(scores.add(row * SPAN));
        }
    }
}

/// Caps one row's scores of a span, with others up to the ends of vectors.
#[inline(always)]
unsafe fn cap_scores<V: Vector>(cap: f32, (first, end): (usize, usize), scores: *mut f32) {
    if first == end {
        return;
    }
    // SAFETY: the caller's.
    unsafe {
        for at in (first / LANES * LANES..end).step_by(LANES) {
            math::soft_cap(V::load(scores.add(at)), cap).store(scores.add(at));
        }
    }
}

/// Turns one row's scores of a span into weights, 0 for keys it does not see, and brings its state to the new maximum.
#[inline(always)]
unsafe fn weigh<V: Vector>(state: &State, row: usize, (first, end): (usize, usize), scores: *mut f32) {
    if first == end {
        return;
    }
    // SAFETY: the caller's.
    unsafe {
        let (from, to) = (first / LANES * LANES, end.next_multiple_of(LANES));
        for i in (from..first).chain(end..to) {
            *scores.add(i) = f32::NEG_INFINITY;
        }
        let old = *state.maxima.add(row);
        let mut maximum = V::splat(old);
        for at in (from..to).step_by(LANES) {
            maximum = V::load(scores.add(at)).max(maximum);
        }
        let new = maximum.maximum();
        let sums = state.sums.add(row * LANES);
        let mut sum = V::load(sums);
        if new != old {
            *state.maxima.add(row) = new;
            if old != f32::NEG_INFINITY {
                let shrink = math::exp(V::splat(old).sub(V::splat(new)));
                sum = sum.mul(shrink);
                for at in (0..state.width).step_by(LANES) {
                    let values = state.values.add(row * state.width + at);
                    V::load(values).mul(shrink).store(values);
                }
            }
        }
        let new = V::splat(new);
        for at in (from..to).step_by(LANES) {
            let weight = math::exp(V::load(scores.add(at)).sub(new));
            weight.store(scores.add(at));
            sum = sum.add(weight);
        }
        sum.store(sums);
    }
}

/// Adds `keys` weighted value rows to the state of a tile.
#[inline(always)]
unsafe fn gather<V: Vector, E: Element, const HEIGHT: usize>(
    values: *const E,
    weights: *const f32,
    keys: usize,
    head_dim: usize,
    state: &State,
    tile: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let out = state.values.add(tile * state.width);
        let mut at = 0;
        while at + 2 * LANES <= head_dim {
            gather_columns::<V, E, HEIGHT, 2>(values.add(at), weights, keys, head_dim, out.add(at), state.width);
            at += 2 * LANES;
        }
        if at + LANES <= head_dim {
            gather_columns::<V, E, HEIGHT, 1>(values.add(at), weights, keys, head_dim, out.add(at), state.width);
            at += LANES;
        }
        for row in 0..HEIGHT {
            for d in at..head_dim {
                let out = out.add(row * state.width + d);
                for key in 0..keys {
                    *out += *weights.add(row * SPAN + key) * (*values.add(key * head_dim + d)).to_f32();
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn gather_columns<V: Vector, E: Element, const HEIGHT: usize, const WIDTH: usize>(
    values: *const E,
    weights: *const f32,
    keys: usize,
    head_dim: usize,
    out: *mut f32,
    width: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[V::zero(); WIDTH]; HEIGHT];
        for row in 0..HEIGHT {
            for w in 0..WIDTH {
                sums[row][w] = V::load(out.add(row * width + w * LANES));
            }
        }
        for key in 0..keys {
            let mut value = [V::zero(); WIDTH];
            for w in 0..WIDTH {
                value[w] = E::load(values.add(key * head_dim + w * LANES));
            }
            for row in 0..HEIGHT {
                let weight = V::splat(*weights.add(row * SPAN + key));
                for w in 0..WIDTH {
                    sums[row][w] = weight.mul_add(value[w], sums[row][w]);
                }
            }
        }
        for row in 0..HEIGHT {
            for w in 0..WIDTH {
                sums[row][w].store(out.add(row * width + w * LANES));
            }
        }
    }
}

#[inline(always)]
unsafe fn write_row<V: Vector>(task: &Attend<'_>, state: &State, row: usize) {
    let head_dim = task.cache.head_dim;
    // SAFETY: the caller's.
    unsafe {
        let total = V::splat(V::load(state.sums.add(row * LANES)).sum());
        let out = task.out.add(row / task.group * task.out_stride + row % task.group * head_dim);
        for at in (0..head_dim).step_by(LANES) {
            let value = V::load(state.values.add(row * state.width + at)).div(total);
            value.store_first(out.add(at), (head_dim - at).min(LANES));
        }
    }
}
