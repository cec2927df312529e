//! The lowering on hand-made plans, and that it never changes what a plan computes.

mod drawn;
mod meaning;
mod moves;
mod quantisation;
mod sketch;

use super::lowering::{Choice, Works};
use super::{Elementwise, Work};
use crate::engine::{Plan, Rows};
use crate::types::{AttentionSpec, Op, RopeSpec};
use sketch::{BY_ROW, Sketch};

const NEITHER: Choice = Choice { norm_prologue: false, quantise: false };
const PROLOGUE: Choice = Choice { norm_prologue: true, quantise: false };
const QUANTISE: Choice = Choice { norm_prologue: false, quantise: true };
const BOTH: Choice = Choice { norm_prologue: true, quantise: true };

/// A work in short: what runs, with what moved into it.
fn short(work: &Work) -> String {
    let marks = |marks: &[(bool, &str)]| -> String {
        marks.iter().filter(|(there, _)| *there).map(|(_, mark)| *mark).collect()
    };
    match work {
        Work::Linear(layer) => {
            let moved = [(layer.norm.is_some(), "norm "), (layer.x_scale.is_some(), "e4m3 ")];
            format!("{}linear{}", marks(&moved), marks(&[(layer.residual.is_some(), " + sum")]))
        }
        Work::Norm(norm) => {
            let moved = [
                (norm.out.is_some(), " to 16 bits"),
                (norm.quantised.is_some_and(|form| !form.by_block), " to e4m3"),
                (norm.quantised.is_some_and(|form| form.by_block), " to blocks"),
            ];
            format!("{}norm{}", marks(&[(norm.add.is_some(), "sum + ")]), marks(&moved))
        }
        Work::Quantise { out, .. } => if out.by_block { "blocks" } else { "quantise" }.into(),
        Work::Elementwise { function: Elementwise::Add, .. } => "add".into(),
        Work::Elementwise { function: Elementwise::Mul, .. } => "mul".into(),
        Work::Elementwise { function: Elementwise::Activate(_), .. } => "activate".into(),
        Work::Elementwise { function: Elementwise::SoftCap(_), .. } => "cap".into(),
        Work::Elementwise { function: Elementwise::Convert, .. } => "convert".into(),
        Work::Embedding { .. } => "embedding".into(),
        Work::Angles { .. } => "angles".into(),
        Work::Rope { .. } => "rope".into(),
        Work::Append { .. } => "append".into(),
        Work::Attention(_) => "attention".into(),
        Work::Gather { .. } => "gather".into(),
    }
}

/// The works of a plan, which compute what it says.
fn works(plan: &Plan, choice: Choice) -> Works {
    let works = Works::new(plan, choice);
    let (logits, buffers) = meaning::of_works(plan, &works);
    assert_eq!(logits, meaning::of_plan(plan), "{choice:?}");
    for output in &plan.outputs {
        assert!(buffers[output.value].is_some(), "output `{}` is not written with {choice:?}", output.name);
    }
    works
}

fn shorts(plan: &Plan, choice: Choice) -> Vec<String> {
    works(plan, choice).works.iter().map(short).collect()
}

#[test]
fn an_unfused_layer_is_one_work_for_each_step() {
    let mut sketch = Sketch::new();
    let spec = AttentionSpec { group: 0, layer: 0, heads: 4, kv_heads: 2, head_dim: 64, scale: 0.125, soft_cap: None };
    let rope = RopeSpec { head_dim: 64, rotary_dim: 64 };
    let x = sketch.embedding(256);
    let angles = sketch.embedding(64);
    let normed = sketch.rms_norm(x);
    let [q, k, v] = [256, 128, 128].map(|n| sketch.linear(normed, n, BY_ROW));
    let q = sketch.step(Op::Rope(rope), &[q, angles], &[], &[256])[0];
    let k = sketch.step(Op::Rope(rope), &[k, angles], &[], &[128])[0];
    sketch.step(Op::CacheAppend(spec), &[k, v], &[], &[]);
    let attended = sketch.step(Op::Attention(spec), &[q], &[], &[256])[0];
    let o = sketch.linear(attended, 256, BY_ROW);
    let sum = sketch.add(x, o);
    let rows = sketch.gather(sum);
    let last = sketch.layer_norm(rows);
    let plan = sketch.finish(last);
    let wanted = [
        "embedding",
        "embedding",
        "norm to e4m3",
        "e4m3 linear",
        "e4m3 linear",
        "e4m3 linear",
        "rope",
        "rope",
        "append",
        "attention",
        "quantise",
        "e4m3 linear + sum",
        "gather",
        "norm to 16 bits",
        "linear",
    ];
    assert_eq!(shorts(&plan, QUANTISE), wanted);
    let works = works(&plan, QUANTISE);
    assert_eq!((works.logits.rows, works.logits.columns), (Rows::LogitRows, 64));
}
