//! Widening of a block of a weight panel to f32, so that a sweep multiplies what every engine multiplies: each element times
//! its scale, rounded once; the scales of integers are left to the sums.

use super::tile::Narrow;
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

/// Elements that are widened as tiles widen them: pairs of bf16, or fours of i8.
///
/// # Safety
/// See [`Narrow`]; both ends are valid for the extents stated.
#[inline(always)]
pub(super) unsafe fn expand_narrow<N: Narrow>(expand: &Expand) {
    // SAFETY: the caller's.
    unsafe {
        for word in 0..expand.words {
            for at in (0..PANEL).step_by(LANES) {
                let from = expand.panel.add(word * PANEL + at);
                let out = expand.out.add(N::PARTS * word * PANEL + at);
                N::load::<0>(from).store(out);
                N::load::<1>(from).store(out.add(PANEL));
                if N::PARTS == 4 {
                    N::load::<2>(from).store(out.add(2 * PANEL));
                    N::load::<3>(from).store(out.add(3 * PANEL));
                }
            }
        }
    }
}

/// Pairs of f16.
///
/// # Safety
/// As [`expand_narrow`].
#[inline(always)]
pub(super) unsafe fn expand_f16(expand: &Expand) {
    // SAFETY: the caller's.
    unsafe { widen::<2>(expand, |word, part| f16::decode((word >> (16 * part)) as u16)) }
}

/// Fours of e4m3 codes, multiplied by their rows' scales.
///
/// # Safety
/// As [`expand_narrow`]; there are scales.
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

/// # Safety
/// As [`expand_narrow`].
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
