//! e4m3, the 8-bit float of "FP8 formats for deep learning" (Micikevicius et al., 2022): 1 sign, 4 exponent bits with
//! bias 7, 3 mantissa bits; no infinities, one NaN of each sign.

/// The largest value.
pub const E4M3_MAX: f32 = 448.0;

/// Rounds to nearest, ties to even; beyond the largest value it saturates. NaN stays NaN.
#[must_use]
pub fn e4m3_from_f32(value: f32) -> u8 {
    let bits = value.to_bits();
    let sign = ((bits >> 24) & 0x80) as u8;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7f;
    }
    // 2^-6, the smallest normal number: below it steps are 2^-9.
    let code = if magnitude < 0x3c80_0000 {
        // Adding 2^14 leaves steps of 2^-9 and rounds as the hardware does.
        (f32::from_bits(magnitude) + 16384.0).to_bits() & 0xf
    } else {
        let rounded = magnitude + 0x7_ffff + ((magnitude >> 20) & 1);
        ((rounded >> 20) - (120 << 3)).min(0x7e)
    };
    sign | code as u8
}

/// Exact.
#[must_use]
pub fn e4m3_to_f32(code: u8) -> f32 {
    let magnitude = u32::from(code & 0x7f);
    let value = match magnitude {
        0x7f => f32::NAN,
        0..8 => magnitude as f32 / 512.0,
        _ => f32::from_bits((magnitude + (120 << 3)) << 20),
    };
    if code & 0x80 == 0 { value } else { -value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value by the format's definition.
    fn defined(code: u8) -> f64 {
        let (exponent, mantissa) = (i32::from(code >> 3 & 0xf), f64::from(code & 7));
        let magnitude = match exponent {
            0 => mantissa / 8.0 * 2f64.powi(-6),
            _ => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7),
        };
        if code & 0x80 == 0 { magnitude } else { -magnitude }
    }

    #[test]
    fn every_code_is_what_the_format_says_and_comes_back() {
        for code in 0..=255u8 {
            let value = e4m3_to_f32(code);
            if code & 0x7f == 0x7f {
                assert!(value.is_nan());
                assert_eq!(e4m3_from_f32(value) & 0x7f, 0x7f);
            } else {
                assert_eq!(f64::from(value), defined(code));
                assert_eq!(e4m3_from_f32(value), code);
            }
        }
    }

    #[test]
    fn between_two_codes_the_nearer_wins_and_a_tie_goes_to_the_even_one() {
        for code in 0..0x7eu8 {
            let (low, high) = (e4m3_to_f32(code), e4m3_to_f32(code + 1));
            let middle = (low + high) / 2.0;
            assert_eq!(e4m3_from_f32(middle), code + code % 2, "{middle}");
            assert_eq!(e4m3_from_f32(middle.next_down()), code);
            assert_eq!(e4m3_from_f32(middle.next_up()), code + 1);
            assert_eq!(e4m3_from_f32(-middle.next_up()), 0x80 | (code + 1));
        }
    }

    #[test]
    fn what_is_too_large_saturates() {
        for value in [449.0, 1e30, f32::INFINITY] {
            assert_eq!((e4m3_from_f32(value), e4m3_from_f32(-value)), (0x7e, 0xfe));
        }
    }
}
