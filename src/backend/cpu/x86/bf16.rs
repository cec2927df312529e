//! Products of bf16 pairs, two of the inner dimension at a time.

use std::arch::x86_64::*;

use super::super::tile::Product;

/// Words hold pairs of bf16: `sum + low * low + high * high` in f32.
pub(super) struct DotBf16;

impl Product for DotBf16 {
    type V = __m512;

    #[inline(always)]
    unsafe fn accumulate(sum: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the trait's contract: the machine has AVX512-BF16. The transmutes only rename 64 bytes of bf16.
        unsafe {
            let (a, b) = (std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b));
            _mm512_dpbf16_ps(sum, a, b)
        }
    }
}
