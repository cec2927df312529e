//! One zmm register.

use std::arch::x86_64::*;

use super::super::vector::Vector;

/// 2^23: its lowest bit counts ones.
const MAGIC: f32 = 8_388_608.0;

impl Vector for __m512 {
    const QUERIES: usize = 8;

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
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        unsafe {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
        }
    }
    #[inline(always)]
    unsafe fn load_low(pairs: *const u32) -> Self {
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_loadu_si512(pairs.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_high(pairs: *const u32) -> Self {
        unsafe {
            let high = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
            _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(pairs.cast()), high))
        }
    }
    #[inline(always)]
    unsafe fn load_byte<const PART: u32>(words: *const u32) -> Self {
        unsafe {
            let words = _mm512_srl_epi32(_mm512_loadu_si512(words.cast()), _mm_cvtsi32_si128(8 * PART as i32));
            // The byte in the lowest bits of the mantissa of 2^23: `(words & 0xff) | 2^23`.
            let (byte, magic) = (_mm512_set1_epi32(0xff), _mm512_castps_si512(_mm512_set1_ps(MAGIC)));
            let number = _mm512_ternarylogic_epi32::<0xea>(words, byte, magic);
            _mm512_sub_ps(_mm512_castsi512_ps(number), _mm512_set1_ps(MAGIC + 128.0))
        }
    }
    #[inline(always)]
    unsafe fn dot_bytes(sum: Self, weights: Self, activations: Self) -> Self {
        unsafe {
            let (w, a) = (_mm512_castps_si512(weights), _mm512_castps_si512(activations));
            let even = _mm512_madd_epi16(
                _mm512_and_si512(w, _mm512_set1_epi16(0xff)),
                _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(a)),
            );
            let odd = _mm512_madd_epi16(_mm512_srli_epi16::<8>(w), _mm512_srai_epi16::<8>(a));
            let sum = _mm512_add_epi32(_mm512_castps_si512(sum), _mm512_add_epi32(even, odd));
            _mm512_castsi512_ps(sum)
        }
    }
    #[inline(always)]
    unsafe fn integers_less(self, excess: i32) -> Self {
        unsafe { _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_castps_si512(self), _mm512_set1_epi32(excess))) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { _mm512_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { _mm512_sub_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { _mm512_mul_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        unsafe { _mm512_div_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        unsafe { _mm512_fmadd_ps(self, factor, term) }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        unsafe { _mm512_max_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn select_less(self, bound: Self, yes: Self, no: Self) -> Self {
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self, bound), no, yes) }
    }
    #[inline(always)]
    unsafe fn shift_exponent(self, steps: Self) -> Self {
        unsafe {
            let steps = _mm512_slli_epi32::<23>(_mm512_castps_si512(steps));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(self), steps))
        }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        unsafe { _mm512_maskz_loadu_ps(first(count), from) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        unsafe { _mm512_mask_storeu_ps(to, first(count), self) }
    }
}

/// A mask of the first `count` lanes.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    if count >= 16 { u16::MAX } else { (1u16 << count) - 1 }
}
