//! From the sums of a panel to output columns: biases, activation, gate.

use super::math;
use super::vector::{LANES, Vector};
use crate::engine::PANEL;
use crate::types::Activation;

/// What turns the sums of one panel into output columns.
#[derive(Clone, Copy)]
pub(super) struct Finish {
    /// Sums `[rows][PANEL]`.
    pub sums: *const f32,
    /// Biases of this panel's columns; null without.
    pub bias: *const f32,
    /// The second product's sums and biases, which the activated first one multiplies; null without.
    pub up: *const f32,
    pub up_bias: *const f32,
    pub activation: Option<Activation>,
    pub rows: usize,
    /// Columns of the panel that exist, at most [`PANEL`].
    pub columns: usize,
    pub out: *mut f32,
    pub stride: usize,
}

/// Applies biases, activation and gate, and writes the output columns.
///
/// # Safety
/// See [`Vector`]; all pointers that are not null are valid for the extents stated.
#[inline(always)]
pub(super) unsafe fn finish<V: Vector>(finish: &Finish) {
    // SAFETY: the caller's.
    unsafe {
        for at in (0..finish.columns).step_by(LANES) {
            let count = (finish.columns - at).min(LANES);
            let bias = load_bias::<V>(finish.bias, at, count);
            let up_bias = load_bias::<V>(finish.up_bias, at, count);
            for row in 0..finish.rows {
                let mut y = V::load(finish.sums.add(row * PANEL + at)).add(bias);
                if let Some(activation) = finish.activation {
                    y = math::activate(activation, y);
                }
                if !finish.up.is_null() {
                    y = y.mul(V::load(finish.up.add(row * PANEL + at)).add(up_bias));
                }
                let out = finish.out.add(row * finish.stride + at);
                if count == LANES { y.store(out) } else { y.store_first(out, count) }
            }
        }
    }
}

#[inline(always)]
unsafe fn load_bias<V: Vector>(bias: *const f32, at: usize, count: usize) -> V {
    // SAFETY: the caller's.
    unsafe { if bias.is_null() { V::zero() } else { V::load_first(bias.add(at), count) } }
}
