//! The upper half of an f32. Written so that loops over slices become vector code.

/// The value of a bf16 given by its bits.
#[inline]
#[must_use]
pub fn decode(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The bits of the nearest bf16, ties to even; NaN stays NaN.
#[inline]
#[must_use]
pub fn encode(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    let kept = if x.is_nan() { bits | 0x40_0000 } else { rounded };
    (kept >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_agrees_with_the_half_crate() {
        for high in 0..=u16::MAX {
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits(u32::from(high) << 16 | low);
                assert_eq!(encode(x), half::bf16::from_f32(x).to_bits(), "{:#x}", x.to_bits());
            }
            assert!(decode(high).to_bits() == half::bf16::from_bits(high).to_f32().to_bits() || decode(high).is_nan());
        }
    }
}
