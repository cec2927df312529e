//! The 8-bit float e4m3 (OCP): sign, 4 bits of exponent with bias 7, 3 of mantissa. No infinity; 0x7f and 0xff are NaN.
//! Written so that loops over slices become vector code, without subnormal f32 on the way.

/// The largest value.
pub const MAX: f32 = 448.0;
/// The smallest positive normal value.
const MIN_NORMAL: f32 = 1.0 / 64.0;
/// Difference of the exponents' biases, where an f32 keeps its exponent.
const REBIAS: u32 = (127 - 7) << 23;

/// The value of a code.
#[inline]
#[must_use]
pub fn decode(code: u8) -> f32 {
    let (sign, size) = (u32::from(code & 0x80) << 24, u32::from(code & 0x7f));
    let small = (size as i32) as f32 * (MIN_NORMAL / 8.0);
    let normal = if size == 0x7f { f32::NAN.to_bits() } else { (size << 20) + REBIAS };
    let size = if size < 8 { small.to_bits() } else { normal };
    f32::from_bits(sign | size)
}

/// The code of the nearest value, ties to the even code; what is larger than [`MAX`] becomes that, NaN stays NaN.
#[inline]
#[must_use]
pub fn encode(x: f32) -> u8 {
    /// Adding it leaves multiples of 2^-9, the spacing of subnormals, in the lowest bits.
    const SUBNORMAL: f32 = 16384.0;
    let sign = (x.to_bits() >> 24) as u8 & 0x80;
    let size = if x.abs() < MAX { x.abs() } else { MAX };
    let small = (size + SUBNORMAL).to_bits().wrapping_sub(SUBNORMAL.to_bits());
    let bits = size.to_bits();
    let normal = (bits.wrapping_add(0x7_ffff + (bits >> 20 & 1)) >> 20).wrapping_sub(REBIAS >> 20);
    let code = if size < MIN_NORMAL { small } else { normal };
    if x.is_nan() { sign | 0x7f } else { sign | code as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: (-1)^s 2^(e-7) (1 + m/8), and (-1)^s 2^-6 m/8 for e = 0.
    fn defined(code: u8) -> f64 {
        let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
        let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7));
        match exponent {
            0 => sign * 2f64.powi(-6) * mantissa / 8.0,
            _ => sign * 2f64.powi(exponent - 7) * (1.0 + mantissa / 8.0),
        }
    }

    #[test]
    fn every_code_has_its_value_and_its_value_has_the_code() {
        for code in 0..=u8::MAX {
            if code & 0x7f == 0x7f {
                assert!(decode(code).is_nan());
                continue;
            }
            assert_eq!(f64::from(decode(code)), defined(code), "{code:#x}");
            assert_eq!(encode(decode(code)), code, "{code:#x}");
        }
        assert_eq!(decode(0x7e), MAX);
    }

    #[test]
    fn everything_between_goes_to_the_nearest_and_ties_to_the_even_code() {
        for sign in [0, 0x80] {
            for code in 0..0x7e {
                let (below, above) = (code | sign, (code + 1) | sign);
                let middle = ((defined(below) + defined(above)) / 2.0) as f32;
                assert_eq!(encode(middle), if code % 2 == 0 { below } else { above }, "tie above {below:#x}");
                let (toward_below, toward_above) = (middle.abs().next_down(), middle.abs().next_up());
                assert_eq!(encode(toward_below.copysign(middle)), below, "just below the tie above {below:#x}");
                assert_eq!(encode(toward_above.copysign(middle)), above, "just above the tie above {below:#x}");
            }
        }
    }

    #[test]
    fn what_is_too_large_saturates_and_nan_stays() {
        for large in [448.1, 464.0, 1e9, f32::MAX, f32::INFINITY] {
            assert_eq!((encode(large), encode(-large)), (0x7e, 0xfe));
        }
        assert!(decode(encode(f32::NAN)).is_nan());
        assert_eq!((encode(0.0), encode(-0.0)), (0x00, 0x80));
        assert_eq!(encode(f32::from_bits(1)), 0);
    }
}
