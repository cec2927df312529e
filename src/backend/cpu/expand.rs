//! Widening of a block of a weight panel to f32, so that a sweep multiplies what every engine multiplies: each element times
//! its scale, rounded once.

use super::vector::{LANES, Vector};
use crate::engine::PANEL;
use crate::types::{e4m3, f16};

/// A block of a panel to be widened.
#[derive(Clone, Copy)]
pub(super) struct Expand {
    /// Words `[words][PANEL]`, each of some neighbouring elements of one row.
    pub panel: *const u32,
    pub words: usize,
    /// Scales of the panel's rows, `[PANEL]`; null for elements without.
    pub scales: *const f32,
    /// `[elements][PANEL]`.
    pub out: *mut f32,
}

/// Pairs of bf16.
///
/// # Safety
/// See [`Vector`]; both ends are valid for the extents stated.
#[inline(always)]
pub(super) unsafe fn expand_bf16<V: Vector>(expand: &Expand) {
    // SAFETY: the caller's.
    unsafe {
        for pair in 0..expand.words {
            for at in (0..PANEL).step_by(LANES) {
                let from = expand.panel.add(pair * PANEL + at);
                V::load_low(from).store(expand.out.add(2 * pair * PANEL + at));
                V::load_high(from).store(expand.out.add((2 * pair + 1) * PANEL + at));
            }
        }
    }
}

/// Pairs of f16.
///
/// # Safety
/// As [`expand_bf16`].
#[inline(always)]
pub(super) unsafe fn expand_f16(expand: &Expand) {
    // SAFETY: the caller's.
    unsafe { widen::<2>(expand, |word, part| f16::decode((word >> (16 * part)) as u16)) }
}

/// Fours of e4m3 codes, multiplied by their rows' scales.
///
/// # Safety
/// As [`expand_bf16`]; there are scales.
#[inline(always)]
pub(super) unsafe fn expand_e4m3<V: Vector>(expand: &Expand) {
    // SAFETY: the caller's; what was just written is multiplied.
    unsafe {
        widen::<4>(expand, |word, part| e4m3::decode((word >> (8 * part)) as u8));
        for element in 0..4 * expand.words {
            for at in (0..PANEL).step_by(LANES) {
                let out = expand.out.add(element * PANEL + at);
                V::load(out).mul(V::load(expand.scales.add(at))).store(out);
            }
        }
    }
}

/// Fours of i8 codes, whose scales multiply the sums.
///
/// # Safety
/// As [`expand_bf16`].
#[inline(always)]
pub(super) unsafe fn expand_i8<V: Vector>(expand: &Expand) {
    // SAFETY: the caller's.
    unsafe {
        for word in 0..expand.words {
            for at in (0..PANEL).step_by(LANES) {
                let from = expand.panel.add(word * PANEL + at);
                let out = expand.out.add(4 * word * PANEL + at);
                V::load_byte::<0>(from).store(out);
                V::load_byte::<1>(from).store(out.add(PANEL));
                V::load_byte::<2>(from).store(out.add(2 * PANEL));
                V::load_byte::<3>(from).store(out.add(3 * PANEL));
            }
        }
    }
}

/// # Safety
/// As [`expand_bf16`].
#[inline(always)]
unsafe fn widen<const PARTS: usize>(expand: &Expand, value: impl Fn(u32, usize) -> f32) {
    for word in 0..expand.words {
        // SAFETY: the caller's.
        let words = unsafe { expand.panel.add(word * PANEL).cast::<[u32; PANEL]>().read_unaligned() };
        for part in 0..PARTS {
            let values = words.map(|word| value(word, part));
            // SAFETY: the caller's.
            unsafe { expand.out.add((word * PARTS + part) * PANEL).cast::<[f32; PANEL]>().write_unaligned(values) };
        }
    }
}
