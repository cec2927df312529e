//! Elementary functions on vectors, accurate to a few units in the last place of f32. NaN passes through all of them.

use super::vector::Vector;
use crate::types::Activation;

/// 1.5 * 2^23: adding it rounds to an integer that then sits in the low bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2, its leading bits (exact in products with small integers) and the rest.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Below this the result of [`exp`] is 0, above the other one infinite.
const EXP_LOWEST: f32 = -87.33;
const EXP_HIGHEST: f32 = 88.37;

/// e^x: 0 for x < -87.33 (where f32 would leave its normal range), infinite above 88.37 (half a step of the exponent
/// before it overflows), exactly 1 at 0.
///
/// # Safety
/// See [`Vector`].
#[inline(always)]
pub(super) unsafe fn exp<V: Vector>(x: V) -> V {
    unsafe {
        let highest = V::splat(EXP_HIGHEST);
        let clamped = highest.select_less(x, highest, x);
        let steps = clamped.mul_add(V::splat(std::f32::consts::LOG2_E), V::splat(ROUND));
        let n = steps.sub(V::splat(ROUND));
        let r = n.mul_add(V::splat(-LN2_HIGH), clamped);
        let r = n.mul_add(V::splat(-LN2_LOW), r);
        // The Taylor series: its first neglected term is below 6e-9 for |r| <= ln2 / 2.
        let y = polynomial(r, &[1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0]);
        let y = highest.select_less(x, V::splat(f32::INFINITY), y.shift_exponent(steps));
        x.select_less(V::splat(EXP_LOWEST), V::zero(), y)
    }
}

/// `((c[0] x + c[1]) x + ...) x + c[last]`.
#[inline(always)]
unsafe fn polynomial<V: Vector, const N: usize>(x: V, coefficients: &[f32; N]) -> V {
    unsafe {
        let mut y = V::splat(coefficients[0]);
        for c in &coefficients[1..] {
            y = y.mul_add(x, V::splat(*c));
        }
        y
    }
}

/// `e^(z*z) * erfc(z)` for z in [0, 10] is this polynomial in `1 / (1 + z/2)`, with a relative error of 7e-9 (a least
/// squares fit of the relative error at Chebyshev nodes).
const SCALED_ERFC: [f32; 11] = [
    0.029_160_467,
    -0.217_605_44,
    0.658_978,
    -0.991_349_19,
    0.705_255_1,
    -0.263_810_44,
    0.289_785_35,
    0.222_276_66,
    0.285_472_2,
    0.281_828_1,
    9.178_995e-6,
];
/// From here on `erfc` is 0 in f32.
const ERFC_END: f32 = 10.0;

/// `x/2 * (1 + erf(x / sqrt 2))`, with 1 + erf(z) as `erfc(-z)` so that the negative tail keeps its digits.
#[inline(always)]
unsafe fn gelu<V: Vector>(x: V) -> V {
    unsafe {
        let half = x.mul(V::splat(0.5));
        let z = x.mul(V::splat(std::f32::consts::FRAC_1_SQRT_2));
        let negated = V::zero().sub(z);
        let magnitude = z.select_less(V::zero(), negated, z);
        let end = V::splat(ERFC_END);
        let magnitude = end.select_less(magnitude, end, magnitude);
        let t = V::splat(1.0).div(magnitude.mul_add(V::splat(0.5), V::splat(1.0)));
        let erfc = polynomial(t, &SCALED_ERFC).mul(exp(V::zero().sub(magnitude.mul(magnitude))));
        half.mul(z.select_less(V::zero(), erfc, V::splat(2.0).sub(erfc)))
    }
}

/// `tanh(x) = x + x^3 p(x^2)` for |x| up to this bound, with a relative error of 2e-8 (fitted like [`SCALED_ERFC`]): beyond it
/// the difference of 1 and an exponential keeps its digits.
const TANH_BOUND: f32 = 0.7;
const TANH: [f32; 5] = [-0.005_122_302_6, 0.020_071_81, -0.053_550_195, 0.133_289_6, -0.333_331_82];

#[inline(always)]
unsafe fn tanh<V: Vector>(x: V) -> V {
    unsafe {
        let square = x.mul(x);
        let small = polynomial(square, &TANH).mul(square).mul_add(x, x);
        let magnitude = x.select_less(V::zero(), V::zero().sub(x), x);
        let grown = exp(magnitude.add(magnitude)).add(V::splat(1.0));
        let large = V::splat(1.0).sub(V::splat(2.0).div(grown));
        let large = x.select_less(V::zero(), V::zero().sub(large), large);
        magnitude.select_less(V::splat(TANH_BOUND), small, large)
    }
}

/// `cap * tanh(x / cap)` of every lane, for a positive `cap`.
///
/// # Safety
/// See [`Vector`].
#[inline(always)]
pub(super) unsafe fn soft_cap<V: Vector>(x: V, cap: f32) -> V {
    unsafe { tanh(x.div(V::splat(cap))).mul(V::splat(cap)) }
}

/// `x / (1 + e^-y)`.
#[inline(always)]
unsafe fn times_sigmoid<V: Vector>(x: V, y: V) -> V {
    unsafe { x.div(V::splat(1.0).add(exp(V::zero().sub(y)))) }
}

/// The activation of every lane.
///
/// # Safety
/// See [`Vector`].
#[inline(always)]
pub(super) unsafe fn activate<V: Vector>(activation: Activation, x: V) -> V {
    unsafe {
        match activation {
            Activation::Silu => times_sigmoid(x, x),
            Activation::Gelu => gelu(x),
            Activation::GeluTanh => {
                // 1 + tanh(u) = 2 / (1 + e^-2u), so x/2 (1 + tanh(u)) = x / (1 + e^-2u); 2 sqrt(2/pi) = 1.59577.
                let cubic = x.mul(x).mul_add(V::splat(0.044_715), V::splat(1.0)).mul(x);
                times_sigmoid(x, cubic.mul(V::splat(1.595_769_2)))
            }
            Activation::Relu => x.select_less(V::zero(), V::zero(), x),
        }
    }
}
