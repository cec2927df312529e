//! Row operations: norms, elementwise functions, rotation. A row is reduced in one fixed order, whoever does it.

use super::math;
use super::vector::{LANES, Vector};
use crate::types::Activation;

/// A row to be normalised.
#[derive(Clone, Copy)]
pub(super) struct Norm {
    pub x: *const f32,
    pub gain: *const f32,
    /// Null for an RMS norm, which also leaves out the mean.
    pub bias: *const f32,
    pub eps: f32,
    pub columns: usize,
    pub out: *mut f32,
}

/// Calls `$body` with each vector of a row: its start, and how many of its lanes exist.
macro_rules! for_each_vector {
    ($columns:expr, $at:ident, $count:ident, $body:block) => {
        let mut $at = 0;
        while $at < $columns {
            let $count = ($columns - $at).min(LANES);
            $body
            $at += LANES;
        }
    };
}

#[inline(always)]
unsafe fn load<V: Vector>(from: *const f32, count: usize) -> V {
    // SAFETY: the caller's, for `count` lanes.
    unsafe { if count == LANES { V::load(from) } else { V::load_first(from, count) } }
}

#[inline(always)]
unsafe fn store<V: Vector>(x: V, to: *mut f32, count: usize) {
    // SAFETY: the caller's, for `count` lanes.
    unsafe { if count == LANES { x.store(to) } else { x.store_first(to, count) } }
}

/// Normalises one row: mean and variance in two passes.
///
/// # Safety
/// See [`Vector`]; the pointers are valid for `columns` elements.
#[inline(always)]
pub(super) unsafe fn norm<V: Vector>(norm: &Norm) {
    // SAFETY: the caller's.
    unsafe {
        let n = norm.columns as f32;
        let mean = if norm.bias.is_null() { 0.0 } else { row_sum::<V>(norm.x, norm.columns) / n };
        let variance = row_squares::<V>(norm.x, mean, norm.columns) / n;
        let scale = V::splat(1.0 / (variance + norm.eps).sqrt());
        let mean = V::splat(mean);
        for_each_vector!(norm.columns, at, count, {
            let x = load::<V>(norm.x.add(at), count).sub(mean).mul(scale);
            let mut y = x.mul(load(norm.gain.add(at), count));
            if !norm.bias.is_null() {
                y = y.add(load(norm.bias.add(at), count));
            }
            store(y, norm.out.add(at), count);
        });
    }
}

#[inline(always)]
unsafe fn row_sum<V: Vector>(x: *const f32, columns: usize) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let mut sum = V::zero();
        for_each_vector!(columns, at, count, {
            sum = sum.add(load(x.add(at), count));
        });
        sum.sum()
    }
}

#[inline(always)]
unsafe fn row_squares<V: Vector>(x: *const f32, mean: f32, columns: usize) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let (mut sum, mut tail) = (V::zero(), 0.0f32);
        for_each_vector!(columns, at, count, {
            if count == LANES {
                let centred = V::load(x.add(at)).sub(V::splat(mean));
                sum = centred.mul_add(centred, sum);
            } else {
                // The lanes past the end would count as -mean.
                for i in at..columns {
                    let centred = *x.add(i) - mean;
                    tail += centred * centred;
                }
            }
        });
        sum.sum() + tail
    }
}

/// Elementwise operands: `out = f(x, y)`; `y` is null for a function of `x` alone.
#[derive(Clone, Copy)]
pub(super) struct Elements {
    pub x: *const f32,
    pub y: *const f32,
    pub columns: usize,
    pub out: *mut f32,
}

/// # Safety
/// See [`Vector`]; the pointers are valid for `columns` elements; `out` may be `x` or `y` itself.
#[inline(always)]
pub(super) unsafe fn add<V: Vector>(e: &Elements) {
    // SAFETY: the caller's.
    unsafe {
        for_each_vector!(e.columns, at, count, {
            store(load::<V>(e.x.add(at), count).add(load(e.y.add(at), count)), e.out.add(at), count);
        });
    }
}

/// # Safety
/// As [`add`].
#[inline(always)]
pub(super) unsafe fn mul<V: Vector>(e: &Elements) {
    // SAFETY: the caller's.
    unsafe {
        for_each_vector!(e.columns, at, count, {
            store(load::<V>(e.x.add(at), count).mul(load(e.y.add(at), count)), e.out.add(at), count);
        });
    }
}

/// # Safety
/// As [`add`], without `y`.
#[inline(always)]
pub(super) unsafe fn activate<V: Vector>(activation: Activation, e: &Elements) {
    // SAFETY: the caller's.
    unsafe {
        for_each_vector!(e.columns, at, count, {
            store(math::activate(activation, load::<V>(e.x.add(at), count)), e.out.add(at), count);
        });
    }
}

/// # Safety
/// As [`add`], without `y`.
#[inline(always)]
pub(super) unsafe fn soft_cap<V: Vector>(cap: f32, e: &Elements) {
    // SAFETY: the caller's.
    unsafe {
        for_each_vector!(e.columns, at, count, {
            store(math::soft_cap(load::<V>(e.x.add(at), count), cap), e.out.add(at), count);
        });
    }
}

/// One head to be rotated.
#[derive(Clone, Copy)]
pub(super) struct Rotation {
    pub x: *const f32,
    /// Cosines, then sines, `rotary / 2` each.
    pub angles: *const f32,
    /// Leading elements that rotate; the others are copied.
    pub rotary: usize,
    pub head_dim: usize,
    pub out: *mut f32,
}

/// Rotates the pairs `(i, i + rotary/2)` of one head.
///
/// # Safety
/// See [`Vector`]; the pointers are valid for these extents; `out` does not overlap `x`.
#[inline(always)]
pub(super) unsafe fn rotate<V: Vector>(r: &Rotation) {
    let half = r.rotary / 2;
    // SAFETY: the caller's.
    unsafe {
        for_each_vector!(half, at, count, {
            let (a, b) = (load::<V>(r.x.add(at), count), load::<V>(r.x.add(half + at), count));
            let (cos, sin) = (load::<V>(r.angles.add(at), count), load::<V>(r.angles.add(half + at), count));
            store(a.mul(cos).sub(b.mul(sin)), r.out.add(at), count);
            store(b.mul(cos).add(a.mul(sin)), r.out.add(half + at), count);
        });
        std::ptr::copy_nonoverlapping(r.x.add(2 * half), r.out.add(2 * half), r.head_dim - 2 * half);
    }
}
