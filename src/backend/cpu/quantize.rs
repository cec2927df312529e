//! Integer products: activation rows as bytes with a scale, packed for a tile, and the way back from sums to values.
//!
//! Everything is computed with integers or rounded in one obvious order, so that every instruction set gives the same bits.

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
/// See [`super::vector::Vector`]; all pointers are valid for the extents stated.
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
    let (strips, rest) = x.as_chunks::<STRIP>();
    let mut last = [0.0; STRIP];
    last[..rest.len()].copy_from_slice(rest);
    // What comes behind the row: whole words of the last strip alone are written.
    let strips = strips.iter().map(|strip| (strip, STRIP)).chain([(&last, rest.len())]);
    for (strip, count) in strips {
        let codes = strip.map(|x| if factor == 0.0 { 0 } else { (x * factor + MAGIC).to_bits() as i8 });
        sum += codes.iter().map(|code| i32::from(*code)).sum::<i32>();
        for four in &codes.as_chunks::<4>().0[..count.div_ceil(4)] {
            // SAFETY: the caller's: there is a word for every four columns.
            unsafe { *out.add(word * step) = u32::from_le_bytes(four.map(i8::cast_unsigned)) };
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
pub(super) unsafe fn rescale(task: &Rescale<'_>) {
    for row in 0..task.rows {
        // SAFETY: the caller's.
        unsafe {
            let sums = task.sums.add(row * PANEL).cast::<[f32; PANEL]>();
            let values = match task.activations.is_null() {
                true => *sums,
                false => {
                    let RowScale { scale, excess } = *task.activations.add(row);
                    (*sums).map(|sum| sum.to_bits().cast_signed().wrapping_sub(excess) as f32 * scale)
                }
            };
            *sums = std::array::from_fn(|at| values[at] * task.scales[at]);
        }
    }
}
