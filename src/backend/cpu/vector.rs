//! Sixteen f32 at once. Every kernel is written once over [`Vector`] and compiled for each instruction set.
//!
//! Everything generic over a vector is `#[inline(always)]`, so that it ends up inside a function which enables the
//! instruction set (see `compiled.rs`). The methods are unsafe because that function must run on a machine that has it;
//! those taking a pointer also need it to be valid for the lanes they touch.

/// Lanes of a [`Vector`].
pub(super) const LANES: usize = 16;

/// Sixteen f32.
#[allow(clippy::missing_safety_doc, reason = "the module's first lines state it for all methods")]
pub(super) trait Vector: Copy {
    /// Query rows that attention keeps in registers at once.
    const QUERIES: usize;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Sixteen bf16.
    unsafe fn load_bf16(from: *const u16) -> Self;
    /// The low halves of sixteen pairs of bf16.
    unsafe fn load_low(pairs: *const u32) -> Self;
    /// The high halves of sixteen pairs of bf16.
    unsafe fn load_high(pairs: *const u32) -> Self;
    /// Byte `PART` of sixteen words, each an integer with 128 added.
    unsafe fn load_byte<const PART: u32>(words: *const u32) -> Self;
    /// Lanes are words of 32 bits: adds to the integer `sum` the products of four bytes of `weights`, unsigned, and four of
    /// `activations`, signed. Exact modulo 2^32, so that every instruction set says the same.
    unsafe fn dot_bytes(sum: Self, weights: Self, activations: Self) -> Self;
    /// Lanes are integers of 32 bits: what is left without `excess`, as numbers.
    unsafe fn integers_less(self, excess: i32) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self * factor + term`: rounded once where the machine has such an instruction, else twice.
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The greater of both; `other` where one is NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// `if self < bound { yes } else { no }`, lane by lane.
    unsafe fn select_less(self, bound: Self, yes: Self, no: Self) -> Self;
    /// Adds the low bits of `steps`' representation to the exponent: multiplies by 2^n for `steps = 1.5 * 2^23 + n`.
    unsafe fn shift_exponent(self, steps: Self) -> Self;

    /// Asks for the cache line at an address that need not be valid.
    #[inline(always)]
    unsafe fn prefetch(_at: *const f32) {}
    /// The same, into the second-level cache alone.
    #[inline(always)]
    unsafe fn prefetch_far(_at: *const f32) {}

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's.
        unsafe { Self::splat(0.0) }
    }

    /// The first `count` lanes; the rest are zero and are not read.
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0f32; LANES];
        // SAFETY: the caller's, for `count` lanes.
        unsafe {
            std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count.min(LANES));
            Self::load(lanes.as_ptr())
        }
    }

    /// Stores the first `count` lanes alone.
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        let mut lanes = [0.0f32; LANES];
        // SAFETY: the caller's, for `count` lanes.
        unsafe {
            self.store(lanes.as_mut_ptr());
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count.min(LANES));
        }
    }

    /// The sum of all lanes, always in the same order.
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut lanes = [0.0f32; LANES];
        // SAFETY: the array has room for all lanes.
        unsafe { self.store(lanes.as_mut_ptr()) };
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
            width /= 2;
        }
        lanes[0]
    }

    /// The greatest lane; NaN lanes are passed over.
    #[inline(always)]
    unsafe fn maximum(self) -> f32 {
        let mut lanes = [0.0f32; LANES];
        // SAFETY: the array has room for all lanes.
        unsafe { self.store(lanes.as_mut_ptr()) };
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] = if lanes[i] > lanes[i + width] { lanes[i] } else { lanes[i + width] };
            }
            width /= 2;
        }
        lanes[0]
    }
}

/// The vector of every machine: plain arrays, left to the compiler.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Plain([f32; LANES]);

impl Plain {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Plain(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Vector for Plain {
    const QUERIES: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Plain([x; LANES])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's.
        Plain(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: the caller's.
        let words = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        Plain(words.map(|word| f32::from_bits(u32::from(word) << 16)))
    }
    #[inline(always)]
    unsafe fn load_low(pairs: *const u32) -> Self {
        // SAFETY: the caller's.
        let pairs = unsafe { pairs.cast::<[u32; LANES]>().read_unaligned() };
        Plain(pairs.map(|pair| f32::from_bits(pair << 16)))
    }
    #[inline(always)]
    unsafe fn load_high(pairs: *const u32) -> Self {
        // SAFETY: the caller's.
        let pairs = unsafe { pairs.cast::<[u32; LANES]>().read_unaligned() };
        Plain(pairs.map(|pair| f32::from_bits(pair & 0xffff_0000)))
    }
    #[inline(always)]
    unsafe fn load_byte<const PART: u32>(words: *const u32) -> Self {
        // SAFETY: the caller's.
        let words = unsafe { words.cast::<[u32; LANES]>().read_unaligned() };
        Plain(words.map(|word| (word >> (8 * PART) & 0xff) as f32 - 128.0))
    }
    #[inline(always)]
    unsafe fn dot_bytes(sum: Self, weights: Self, activations: Self) -> Self {
        let product = |weight: u32, activation: u32, part: u32| {
            (weight >> (8 * part) & 0xff)
                .wrapping_mul((activation << (24 - 8 * part)).cast_signed().wrapping_shr(24).cast_unsigned())
        };
        Plain(std::array::from_fn(|i| {
            let (weight, activation) = (weights.0[i].to_bits(), activations.0[i].to_bits());
            let products = [0, 1, 2, 3].map(|part| product(weight, activation, part));
            f32::from_bits(products.iter().fold(sum.0[i].to_bits(), |sum, product| sum.wrapping_add(*product)))
        }))
    }
    #[inline(always)]
    unsafe fn integers_less(self, excess: i32) -> Self {
        Plain(self.0.map(|lane| lane.to_bits().cast_signed().wrapping_sub(excess) as f32))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        Plain(std::array::from_fn(|i| self.0[i] * factor.0[i] + term.0[i]))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn select_less(self, bound: Self, yes: Self, no: Self) -> Self {
        Plain(std::array::from_fn(|i| if self.0[i] < bound.0[i] { yes.0[i] } else { no.0[i] }))
    }
    #[inline(always)]
    unsafe fn shift_exponent(self, steps: Self) -> Self {
        self.zip(steps, |x, steps| f32::from_bits(x.to_bits().wrapping_add(steps.to_bits() << 23)))
    }
}
