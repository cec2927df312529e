//! The 16-bit float of IEEE 754. Written so that loops over slices become vector code, without subnormal f32 on the way.

/// The largest value.
pub const MAX: f32 = 65504.0;
/// The smallest positive normal value.
const MIN_NORMAL: f32 = 1.0 / 16384.0;
/// Difference of the exponents' biases, where an f32 keeps its exponent.
const REBIAS: u32 = (127 - 15) << 23;

/// The value of an f16 given by its bits.
#[inline]
#[must_use]
pub fn decode(bits: u16) -> f32 {
    let (sign, size) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff));
    let small = (size as i32) as f32 * (MIN_NORMAL / 1024.0);
    let normal = (size << 13) + REBIAS;
    // Infinity and NaN have the highest exponent in both.
    let normal = if size >= 0x7c00 { normal + REBIAS } else { normal };
    let size = if size < 0x400 { small.to_bits() } else { normal };
    f32::from_bits(sign | size)
}

/// The bits of the nearest f16, ties to even; what is larger than [`MAX`] becomes that, NaN stays NaN.
#[inline]
#[must_use]
pub fn encode(x: f32) -> u16 {
    /// Adding it leaves multiples of 2^-24, the spacing of subnormals, in the lowest bits.
    const SUBNORMAL: f32 = 0.5;
    let sign = (x.to_bits() >> 16) as u16 & 0x8000;
    let size = if x.abs() < MAX { x.abs() } else { MAX };
    let small = (size + SUBNORMAL).to_bits().wrapping_sub(SUBNORMAL.to_bits());
    let bits = size.to_bits();
    let normal = (bits.wrapping_add(0xfff + (bits >> 13 & 1)) >> 13).wrapping_sub(REBIAS >> 13);
    let code = if size < MIN_NORMAL { small } else { normal };
    if x.is_nan() { sign | 0x7e00 } else { sign | code as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_agrees_with_the_half_crate_and_comes_back() {
        for bits in 0..=u16::MAX {
            let (value, wanted) = (decode(bits), half::f16::from_bits(bits).to_f32());
            assert!(value.to_bits() == wanted.to_bits() || (value.is_nan() && wanted.is_nan()), "{bits:#x}");
            if value.is_finite() {
                assert_eq!(encode(value), bits);
            }
        }
    }

    #[test]
    fn rounding_agrees_with_the_half_crate_up_to_saturation() {
        for bits in 0..0x7bff_u16 {
            let middle = (decode(bits) + decode(bits + 1)) / 2.0;
            for x in [middle.next_down(), middle, middle.next_up()] {
                assert_eq!(encode(x), half::f16::from_f32(x).to_bits(), "{x}");
                assert_eq!(encode(-x), half::f16::from_f32(-x).to_bits(), "-{x}");
            }
        }
        assert_eq!((encode(1e9), encode(f32::NEG_INFINITY)), (0x7bff, 0xfbff));
        assert!(decode(encode(f32::NAN)).is_nan());
    }
}
