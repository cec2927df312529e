//! A pair of ymm registers.

use std::arch::x86_64::*;

use super::super::vector::Vector;

/// Lanes 0-7 and 8-15.
#[derive(Clone, Copy)]
pub(super) struct Ymm2(__m256, __m256);

/// Applies an intrinsic to both halves.
macro_rules! both {
    ($intrinsic:ident, $($operand:expr),*) => {
        // SAFETY: the trait's contract: the machine has AVX2 and FMA.
        unsafe { Ymm2($intrinsic($($operand.0),*), $intrinsic($($operand.1),*)) }
    };
}

/// Sixteen 32-bit words as they lie in memory.
#[inline(always)]
unsafe fn words(from: *const u32) -> (__m256i, __m256i) {
    unsafe { (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast())) }
}

/// Adds the low bits of `steps` to the exponent of `x`.
#[inline(always)]
unsafe fn shift(x: __m256, steps: __m256) -> __m256 {
    unsafe {
        let steps = _mm256_slli_epi32::<23>(_mm256_castps_si256(steps));
        _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), steps))
    }
}

/// The lowest bytes as numbers, less 128.
#[inline(always)]
unsafe fn excess_128(words: __m256i) -> __m256 {
    unsafe {
        let bytes = _mm256_and_si256(words, _mm256_set1_epi32(0xff));
        _mm256_sub_ps(_mm256_cvtepi32_ps(bytes), _mm256_set1_ps(128.0))
    }
}

/// Adds four products of bytes to each word of `sum`: even and odd bytes apart, as pairs of 16 bits.
#[inline(always)]
unsafe fn dot(sum: __m256, weights: __m256, activations: __m256) -> __m256 {
    unsafe {
        let (w, a) = (_mm256_castps_si256(weights), _mm256_castps_si256(activations));
        let even = _mm256_madd_epi16(
            _mm256_and_si256(w, _mm256_set1_epi16(0xff)),
            _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(a)),
        );
        let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(w), _mm256_srai_epi16::<8>(a));
        _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(sum), _mm256_add_epi32(even, odd)))
    }
}

impl Vector for Ymm2 {
    const QUERIES: usize = 4;

    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn prefetch_far(at: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { Ymm2(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Ymm2(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(8).cast()));
            Ymm2(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)))
        }
    }
    #[inline(always)]
    unsafe fn load_low(pairs: *const u32) -> Self {
        unsafe {
            let (a, b) = words(pairs);
            Ymm2(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(a)), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(b)))
        }
    }
    #[inline(always)]
    unsafe fn load_high(pairs: *const u32) -> Self {
        unsafe {
            let high = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
            let (a, b) = words(pairs);
            Ymm2(_mm256_castsi256_ps(_mm256_and_si256(a, high)), _mm256_castsi256_ps(_mm256_and_si256(b, high)))
        }
    }
    #[inline(always)]
    unsafe fn load_byte<const PART: u32>(from: *const u32) -> Self {
        unsafe {
            let (shift, (a, b)) = (_mm_cvtsi32_si128(8 * PART as i32), words(from));
            Ymm2(excess_128(_mm256_srl_epi32(a, shift)), excess_128(_mm256_srl_epi32(b, shift)))
        }
    }
    #[inline(always)]
    unsafe fn dot_bytes(sum: Self, weights: Self, activations: Self) -> Self {
        unsafe { Ymm2(dot(sum.0, weights.0, activations.0), dot(sum.1, weights.1, activations.1)) }
    }
    #[inline(always)]
    unsafe fn integers_less(self, excess: i32) -> Self {
        unsafe {
            let less =
                |lanes| _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_castps_si256(lanes), _mm256_set1_epi32(excess)));
            Ymm2(less(self.0), less(self.1))
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        both!(_mm256_add_ps, self, other)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        both!(_mm256_sub_ps, self, other)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        both!(_mm256_mul_ps, self, other)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        both!(_mm256_div_ps, self, other)
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        both!(_mm256_fmadd_ps, self, factor, term)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        both!(_mm256_max_ps, self, other)
    }
    #[inline(always)]
    unsafe fn select_less(self, bound: Self, yes: Self, no: Self) -> Self {
        unsafe {
            let a = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, bound.0);
            let b = _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, bound.1);
            Ymm2(_mm256_blendv_ps(no.0, yes.0, a), _mm256_blendv_ps(no.1, yes.1, b))
        }
    }
    #[inline(always)]
    unsafe fn shift_exponent(self, steps: Self) -> Self {
        unsafe { Ymm2(shift(self.0, steps.0), shift(self.1, steps.1)) }
    }
}
