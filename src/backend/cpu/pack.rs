//! Packing of activation rows for a tile: word by word, the rows of the tile beside each other.

/// Activation rows to be packed for a tile.
#[derive(Clone, Copy)]
pub(super) struct Pack {
    pub rows: *const f32,
    pub stride: usize,
    pub height: usize,
    pub k: usize,
    pub out: *mut f32,
}

/// Columns packed at once: short enough for the written strip to stay in the first-level cache.
const STRIP: usize = 16;

/// Packs `height` rows as `[k][height]` f32.
///
/// # Safety
/// See [`Vector`]; both ends are valid for these extents.
#[inline(always)]
pub(super) unsafe fn pack_f32(pack: &Pack) {
    for start in (0..pack.k).step_by(STRIP) {
        for row in 0..pack.height {
            for k in start..pack.k.min(start + STRIP) {
                // SAFETY: the caller's.
                unsafe { *pack.out.add(k * pack.height + row) = *pack.rows.add(row * pack.stride + k) };
            }
        }
    }
}

/// Packs `height` rows, rounded to bf16, as `[ceil(k / 2)][height]` pairs; an odd k is filled up with zero.
///
/// # Safety
/// As [`pack_f32`].
#[inline(always)]
pub(super) unsafe fn pack_pairs(pack: &Pack) {
    let out = pack.out.cast::<u32>();
    for start in (0..pack.k / 2).step_by(STRIP) {
        for row in 0..pack.height {
            for pair in start..(pack.k / 2).min(start + STRIP) {
                // SAFETY: the caller's.
                unsafe {
                    let from = pack.rows.add(row * pack.stride + 2 * pair);
                    *out.add(pair * pack.height + row) = to_bf16(*from) | to_bf16(*from.add(1)) << 16;
                }
            }
        }
    }
    if pack.k % 2 == 1 {
        for row in 0..pack.height {
            // SAFETY: the caller's.
            unsafe {
                let last = *pack.rows.add(row * pack.stride + pack.k - 1);
                *out.add(pack.k / 2 * pack.height + row) = to_bf16(last);
            }
        }
    }
}

/// The nearest bf16 (ties to even) in the low half; NaN stays NaN.
#[inline(always)]
pub(super) fn to_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if x.is_nan() { (bits >> 16) | 0x40 } else { rounded }
}
