//! Products of bytes, four of the inner dimension at a time.

use std::arch::x86_64::*;

use super::super::tile::Product;

/// Words hold four bytes: [`super::super::vector::Vector::dot_bytes`] as one instruction.
pub(super) struct Vnni;

impl Product for Vnni {
    type V = __m512;

    #[inline(always)]
    unsafe fn accumulate(sum: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the trait's contract: the machine has AVX512-VNNI.
        unsafe {
            let (sum, a, b) = (_mm512_castps_si512(sum), _mm512_castps_si512(a), _mm512_castps_si512(b));
            _mm512_castsi512_ps(_mm512_dpbusd_epi32(sum, b, a))
        }
    }
}
