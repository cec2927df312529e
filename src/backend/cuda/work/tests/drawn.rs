//! Plans drawn by lot: no choice of works changes what they compute.

use std::collections::BTreeSet;

use super::sketch::{BY_BLOCK, BY_ROW, PLAIN, Sketch, part};
use super::{BOTH, NEITHER, PROLOGUE, QUANTISE, shorts};
use crate::engine::Plan;

/// A plan of steps drawn by lot, among them readers of parts, of sums and of norms.
fn drawn(seed: u64) -> Plan {
    let mut state = seed;
    let mut below = |end: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end
    };
    let mut sketch = Sketch::new();
    let mut wide = vec![sketch.embedding(256)];
    let mut narrow = vec![sketch.rms_norm(wide[0])];
    for _ in 0..14 {
        let (x, y) = (wide[below(wide.len())], narrow[below(narrow.len())]);
        let kind = [PLAIN, BY_ROW, BY_BLOCK][below(3)];
        let any = if below(2) == 0 { x } else { y };
        match below(9) {
            0 => narrow.push(sketch.rms_norm(any)),
            1 => narrow.push(sketch.layer_norm(any)),
            2 => wide.push(sketch.add(any, narrow[narrow.len() - 1])),
            3 => wide.push(sketch.add(narrow[narrow.len() - 1], x)),
            4 => {
                let (sum, normed) = sketch.add_rms_norm(x, y);
                wide.push(sum);
                narrow.push(normed);
            }
            5 => {
                let doubled = sketch.linear(y, 512, kind);
                narrow.push(part(doubled, [0, 8, 16, 256][below(4)], 256));
            }
            6 => narrow.push(sketch.gated(y, 256, kind)),
            7 => narrow.push(sketch.mul(y, narrow[0])),
            _ => narrow.push(sketch.linear(y, 256, kind)),
        }
    }
    let sum = wide.into_iter().chain(narrow.pop()).reduce(|x, y| sketch.add(x, y)).expect("some");
    let normed = sketch.rms_norm(sum);
    sketch.finish(normed)
}

#[test]
fn whatever_moves_the_plan_is_computed() {
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let plan = drawn(seed);
        [NEITHER, PROLOGUE, QUANTISE, BOTH].iter().for_each(|choice| seen.extend(shorts(&plan, *choice)));
    }
    for work in ["linear + sum", "norm linear + sum", "e4m3 linear + sum", "norm to blocks", "sum + norm to e4m3"] {
        assert!(seen.contains(work), "the lot never drew `{work}`: {seen:?}");
    }
}
