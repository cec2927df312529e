//! The innermost loops of matrix products: tiles of activations rows times weight panels.
//!
//! Every output element is one chain of accumulations over k from 0 up, the same whatever the height of the tile, the
//! number of panels beside each other, or how k is cut into blocks: partial sums are kept in `sums`, as f32, or as integers where bytes are
//! multiplied.

#![allow(clippy::needless_range_loop, reason = "one index runs over several arrays of registers and addresses")]

use std::marker::PhantomData;

use super::vector::{LANES, Vector};
use crate::engine::PANEL;

/// One call of a tile of `height` rows (the tile function's own constant).
#[derive(Clone, Copy)]
pub(super) struct TileCall {
    /// Words of each activation row: elements, or pairs of bf16 or fours of bytes for a dot product.
    pub words: usize,
    /// Packed activations, `[words][height]`.
    pub activations: *const f32,
    /// The first panel at the first word, and the distance to the next panel in 4-byte words.
    pub panel: *const u32,
    pub panel_words: usize,
    /// Sums `[height][PANEL]` of the first panel, and the distance to those of the next panel.
    pub sums: *mut f32,
    pub sums_step: usize,
    /// What the sweep will need next: [`AHEAD_BYTES`] of it are asked for with each word. Need not be valid.
    pub next: *const u32,
    /// Whether the sums start at zero rather than at what `sums` holds.
    pub fresh: bool,
}

/// Bytes of the following weights that a tile of a sweep asks for with each word.
pub(super) const AHEAD_BYTES: usize = 8;

/// A tile function and how many panels it takes at once.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub run: unsafe fn(TileCall),
    pub panels: usize,
}

/// How one word of an activation meets one word of a weight.
pub(super) trait Product {
    type V: Vector;
    /// # Safety
    /// See [`Vector`].
    unsafe fn accumulate(sum: Self::V, a: Self::V, b: Self::V) -> Self::V;
}

/// Words are f32.
pub(super) struct F32<V>(PhantomData<V>);

impl<V: Vector> Product for F32<V> {
    type V = V;

    #[inline(always)]
    unsafe fn accumulate(sum: V, a: V, b: V) -> V {
        // SAFETY: the caller's.
        unsafe { a.mul_add(b, sum) }
    }
}

/// Words are integers: four signed bytes of an activation meet four unsigned bytes of a weight.
pub(super) struct Bytes<V>(PhantomData<V>);

impl<V: Vector> Product for Bytes<V> {
    type V = V;

    #[inline(always)]
    unsafe fn accumulate(sum: V, a: V, b: V) -> V {
        // SAFETY: the caller's.
        unsafe { V::dot_bytes(sum, b, a) }
    }
}

/// Weights whose words hold `PARTS` neighbouring elements (2 or 4), which are widened to f32 to be multiplied.
pub(super) trait Narrow {
    type V: Vector;
    const PARTS: usize;
    /// Part `PART` of sixteen words.
    ///
    /// # Safety
    /// See [`Vector`]; the words are readable.
    unsafe fn load<const PART: u32>(words: *const u32) -> Self::V;
}

/// Pairs of bf16.
pub(super) struct Pairs<V>(PhantomData<V>);

impl<V: Vector> Narrow for Pairs<V> {
    type V = V;
    const PARTS: usize = 2;

    #[inline(always)]
    unsafe fn load<const PART: u32>(words: *const u32) -> V {
        // SAFETY: the caller's.
        unsafe { if PART == 0 { V::load_low(words) } else { V::load_high(words) } }
    }
}

/// Fours of i8.
pub(super) struct Fours<V>(PhantomData<V>);

impl<V: Vector> Narrow for Fours<V> {
    type V = V;
    const PARTS: usize = 4;

    #[inline(always)]
    unsafe fn load<const PART: u32>(words: *const u32) -> V {
        // SAFETY: the caller's.
        unsafe { V::load_byte::<PART>(words) }
    }
}

/// The tile whose weights are words as `P` takes them. `HEIGHT` rows by `WIDTH` vectors are in registers at once;
/// `PANELS` panels are covered; weights are asked for `AHEAD` words before they are needed, 0 for never.
///
/// # Safety
/// See [`Vector`]; all pointers of the call are valid for the extents it states.
#[inline(always)]
pub(super) unsafe fn accumulate<
    P: Product,
    const HEIGHT: usize,
    const WIDTH: usize,
    const PANELS: usize,
    const AHEAD: usize,
>(
    call: TileCall,
) {
    // SAFETY: the caller's.
    unsafe {
        for group in 0..PANELS * (PANEL / LANES) / WIDTH {
            let (weights, targets) = columns::<WIDTH>(&call, group);
            let mut sums = load_sums::<P::V, HEIGHT, WIDTH>(&call, targets);
            for word in 0..call.words {
                let a = call.activations.add(word * HEIGHT);
                if AHEAD == 0 {
                    P::V::prefetch_far(call.next.wrapping_byte_add(word * AHEAD_BYTES).cast());
                }
                let mut b = [P::V::zero(); WIDTH];
                for w in 0..WIDTH {
                    if AHEAD > 0 {
                        P::V::prefetch(weights[w].wrapping_add((word + AHEAD) * PANEL).cast());
                    }
                    b[w] = P::V::load(weights[w].add(word * PANEL).cast());
                }
                for row in 0..HEIGHT {
                    let a = P::V::splat(*a.add(row));
                    for w in 0..WIDTH {
                        sums[row][w] = P::accumulate(sums[row][w], a, b[w]);
                    }
                }
            }
            store_sums(&sums, targets);
        }
    }
}

/// The tile whose activations are f32 and whose weights are widened on the way.
///
/// # Safety
/// As [`accumulate`].
#[inline(always)]
pub(super) unsafe fn widen<
    N: Narrow,
    const HEIGHT: usize,
    const WIDTH: usize,
    const PANELS: usize,
    const AHEAD: usize,
>(
    call: TileCall,
) {
    // SAFETY: the caller's.
    unsafe {
        for group in 0..PANELS * (PANEL / LANES) / WIDTH {
            let (weights, targets) = columns::<WIDTH>(&call, group);
            let mut sums = load_sums::<N::V, HEIGHT, WIDTH>(&call, targets);
            let whole = call.words / N::PARTS;
            for word in 0..whole {
                let a = call.activations.add(N::PARTS * word * HEIGHT);
                let words = weights.map(|weights| weights.add(word * PANEL));
                if AHEAD > 0 {
                    for words in words {
                        N::V::prefetch(words.wrapping_add(AHEAD * PANEL).cast());
                    }
                }
                part::<N, 0, HEIGHT, WIDTH>(&mut sums, a, &words);
                part::<N, 1, HEIGHT, WIDTH>(&mut sums, a, &words);
                if N::PARTS == 4 {
                    part::<N, 2, HEIGHT, WIDTH>(&mut sums, a, &words);
                    part::<N, 3, HEIGHT, WIDTH>(&mut sums, a, &words);
                }
            }
            let (a, rest) = (call.activations.add(N::PARTS * whole * HEIGHT), call.words % N::PARTS);
            // Without a rest this may lie beyond the weight, and is not looked at.
            let words = weights.map(|weights| weights.wrapping_add(whole * PANEL));
            if rest > 0 {
                part::<N, 0, HEIGHT, WIDTH>(&mut sums, a, &words);
            }
            if rest > 1 {
                part::<N, 1, HEIGHT, WIDTH>(&mut sums, a, &words);
            }
            if rest > 2 {
                part::<N, 2, HEIGHT, WIDTH>(&mut sums, a, &words);
            }
            store_sums(&sums, targets);
        }
    }
}

/// Part `PART` of the words meets its activations; `a` are those of part 0.
#[inline(always)]
unsafe fn part<N: Narrow, const PART: u32, const HEIGHT: usize, const WIDTH: usize>(
    sums: &mut [[N::V; WIDTH]; HEIGHT],
    a: *const f32,
    words: &[*const u32; WIDTH],
) {
    // SAFETY: the caller's.
    unsafe {
        let a = a.add(PART as usize * HEIGHT);
        let mut b = [N::V::zero(); WIDTH];
        for w in 0..WIDTH {
            b[w] = N::load::<PART>(words[w]);
        }
        for row in 0..HEIGHT {
            let a = N::V::splat(*a.add(row));
            for w in 0..WIDTH {
                sums[row][w] = a.mul_add(b[w], sums[row][w]);
            }
        }
    }
}

/// Where the weights and the sums of the `group`th `WIDTH` vectors of columns lie.
#[inline(always)]
unsafe fn columns<const WIDTH: usize>(call: &TileCall, group: usize) -> ([*const u32; WIDTH], [*mut f32; WIDTH]) {
    let mut weights = [std::ptr::null::<u32>(); WIDTH];
    let mut targets = [std::ptr::null_mut::<f32>(); WIDTH];
    for w in 0..WIDTH {
        let (panel, half) = ((group * WIDTH + w) / (PANEL / LANES), (group * WIDTH + w) % (PANEL / LANES));
        // SAFETY: the caller covers that many panels.
        unsafe {
            weights[w] = call.panel.add(panel * call.panel_words + half * LANES);
            targets[w] = call.sums.add(panel * call.sums_step + half * LANES);
        }
    }
    (weights, targets)
}

#[inline(always)]
unsafe fn load_sums<V: Vector, const HEIGHT: usize, const WIDTH: usize>(
    call: &TileCall,
    targets: [*mut f32; WIDTH],
) -> [[V; WIDTH]; HEIGHT] {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[V::zero(); WIDTH]; HEIGHT];
        if !call.fresh {
            for row in 0..HEIGHT {
                for w in 0..WIDTH {
                    sums[row][w] = V::load(targets[w].add(row * PANEL));
                }
            }
        }
        sums
    }
}

#[inline(always)]
unsafe fn store_sums<V: Vector, const HEIGHT: usize, const WIDTH: usize>(
    sums: &[[V; WIDTH]; HEIGHT],
    targets: [*mut f32; WIDTH],
) {
    // SAFETY: the caller's.
    unsafe {
        for row in 0..HEIGHT {
            for w in 0..WIDTH {
                sums[row][w].store(targets[w].add(row * PANEL));
            }
        }
    }
}
