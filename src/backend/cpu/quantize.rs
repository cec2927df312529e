//! Integer products: activation rows as bytes with a scale, packed for a tile, and the way back from sums to values.
//!
//! Everything is computed with integers or rounded in one obvious order, so that every instruction set gives the same bits.

use super::vector::{LANES, Vector};
use crate::engine::PANEL;

/// The largest code of an activation.
const MOST: f32 = 127.0;
/// Adding it leaves the nearest integer, ties to even, in the lowest bits.
const MAGIC: f32 = 12_582_912.0;
/// What is added to every weight (see [`crate::engine::Packing::Panels`]).
const EXCESS: i32 = 128;
/// Columns quantised at once.
const STRIP: usize = 64;

/// Most columns whose products of bytes a sum of 32 bits holds, whatever the bytes.
pub(super) const MOST_COLUMNS: usize = (i32::MAX / (127 * EXCESS)) as usize;

/// How the codes of an activation row become values.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(super) struct RowScale {
    /// Value of code 1; NaN for a row that is not finite.
    pub scale: f32,
    /// What the weights' excess adds to every sum of the row.
    pub excess: i32,
}

/// Activation rows to be quantised for a tile.
#[derive(Clone, Copy)]
pub(super) struct Quantize {
    pub rows: *const f32,
    pub stride: usize,
    pub height: usize,
    pub k: usize,
    /// `[ceil(k / 4)][height]` words of four codes; codes beyond k are zero.
    pub out: *mut u32,
    /// `[height]`
    pub scales: *mut RowScale,
}

/// Rounds every row to integers from -127 to 127, its largest element to one of these.
///
/// # Safety
/// See [`Vector`]; all pointers are valid for the extents stated.
#[inline(always)]
pub(super) unsafe fn quantize(task: &Quantize) {
    for row in 0..task.height {
        // SAFETY: the caller's.
        unsafe {
            let x = std::slice::from_raw_parts(task.rows.add(row * task.stride), task.k);
            let (scale, factor) = scale(x);
            let sum = codes(x, factor, task.out.add(row), task.height);
            *task.scales.add(row) = RowScale { scale, excess: EXCESS.wrapping_mul(sum) };
        }
    }
}

/// The value of code 1, and what an element is multiplied by to become a code: 0 for rows without finite codes.
#[inline(always)]
fn scale(x: &[f32]) -> (f32, f32) {
    // Sizes are ordered like their bits, infinity and NaN last.
    let most = f32::from_bits(x.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff)));
    let factor = MOST / most;
    match (most.is_finite(), factor.is_finite()) {
        (true, true) => (most / MOST, factor),
        (true, false) => (0.0, 0.0),
        (false, _) => (f32::NAN, 0.0),
    }
}

/// Writes the codes of a row, `step` words from one four to the next, and returns their sum.
#[inline(always)]
unsafe fn codes(x: &[f32], factor: f32, out: *mut u32, step: usize) -> i32 {
    let (mut sum, mut word) = (0, 0);
    let mut codes = [0i8; STRIP];
    for x in x.chunks(STRIP) {
        // What comes behind the row stays zero.
        codes[x.len()..].fill(0);
        for (code, x) in codes.iter_mut().zip(x) {
            *code = (x * factor + MAGIC).to_bits() as i8;
        }
        if factor == 0.0 {
            codes.fill(0);
        }
        for code in codes {
            sum += i32::from(code);
        }
        for four in &codes.as_chunks::<4>().0[..x.len().div_ceil(4)] {
            // SAFETY: the caller's: there is a word for every four columns.
            unsafe {
                *out.add(word * step) = u32::from_le_bytes([four[0] as u8, four[1] as u8, four[2] as u8, four[3] as u8])
            };
            word += 1;
        }
    }
    sum
}

/// Sums of products with codes, to become values.
#[derive(Clone, Copy)]
pub(super) struct Rescale<'a> {
    /// `[rows][PANEL]`
    pub sums: *mut f32,
    pub rows: usize,
    /// Of the panel's columns.
    pub scales: &'a [f32; PANEL],
    /// Of the rows, `[rows]`, where sums are integers; null where they are f32 already.
    pub activations: *const RowScale,
}

/// Turns sums into values where they are.
///
/// # Safety
/// As [`quantize`].
#[inline(always)]
pub(super) unsafe fn rescale<V: Vector>(task: &Rescale<'_>) {
    for row in 0..task.rows {
        // SAFETY: the caller's.
        unsafe {
            for at in (0..PANEL).step_by(LANES) {
                let sums = task.sums.add(row * PANEL + at);
                let mut values = V::load(sums);
                if !task.activations.is_null() {
                    let RowScale { scale, excess } = *task.activations.add(row);
                    values = values.integers_less(excess).mul(V::splat(scale));
                }
                values.mul(V::load(task.scales.as_ptr().add(at))).store(sums);
            }
        }
    }
}
