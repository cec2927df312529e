//! The lowering on hand-made plans, and that it never changes what a plan computes.

mod drawn;
mod meaning;
mod sketch;

use super::lowering::{Choice, Works};
use super::{Elementwise, Norm, Work};
use crate::engine::{Plan, Rows, View};
use crate::types::{AttentionSpec, Op, RopeSpec};
use sketch::{BY_BLOCK, BY_ROW, Kind, PLAIN, Sketch, part};

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

/// `x + linear(norm(x))`, then what `after` adds to the sum and to its summand from the linear layer.
fn residual(after: impl Fn(&mut Sketch, View, View) -> View) -> Plan {
    let mut sketch = Sketch::new();
    let x = sketch.embedding(256);
    let normed = sketch.rms_norm(x);
    let y = sketch.linear(normed, 256, PLAIN);
    let sum = sketch.add(x, y);
    let last = after(&mut sketch, sum, y);
    let last = sketch.rms_norm(last);
    sketch.finish(last)
}

#[test]
fn a_sum_moves_into_the_linear_layer_that_makes_a_summand() {
    let plan = residual(|_, sum, _| sum);
    let wanted = ["embedding", "norm to 16 bits", "linear + sum", "norm to 16 bits", "linear"];
    assert_eq!(shorts(&plan, NEITHER), wanted);
    let Work::Linear(layer) = &works(&plan, NEITHER).works[2] else { panic!("a linear layer") };
    assert_eq!(layer.residual.map(|residual| residual.buffer), Some(plan.steps[0].outputs[0].value));
    assert_eq!(layer.out.buffer, plan.steps[3].outputs[0].value);
}

#[test]
fn a_sum_stays_where_its_summand_has_other_readers() {
    let twice = residual(|sketch, sum, y| sketch.add(sum, y));
    assert!(shorts(&twice, NEITHER).iter().all(|work| !work.contains("+ sum")));
    let leaves = residual(|sketch, sum, y| {
        sketch.output("summand", y);
        sum
    });
    assert!(shorts(&leaves, NEITHER).contains(&"add".to_string()));
    let mut sketch = Sketch::new();
    let x = sketch.embedding(256);
    let normed = sketch.rms_norm(x);
    let y = sketch.linear(normed, 256, PLAIN);
    let doubled = sketch.add(y, y);
    let last = sketch.rms_norm(doubled);
    assert_eq!(shorts(&sketch.finish(last), NEITHER)[3], "add", "x + x has no other summand");
}

#[test]
fn a_sum_stays_where_the_other_summand_comes_later_or_is_a_part_or_16_bits() {
    let with = |other: fn(&mut Sketch, View, View) -> View| {
        let mut sketch = Sketch::new();
        let (x, wide) = (sketch.embedding(256), sketch.embedding(512));
        let normed = sketch.rms_norm(x);
        let y = sketch.linear(normed, 256, PLAIN);
        let other = other(&mut sketch, x, wide);
        let sum = sketch.add(other, y);
        let last = sketch.rms_norm(sum);
        shorts(&sketch.finish(last), NEITHER).iter().any(|work| work == "linear + sum")
    };
    assert!(with(|_, x, _| x));
    assert!(!with(|sketch, _, _| sketch.embedding(256)), "later");
    assert!(!with(|_, _, wide| part(wide, 0, 256)), "a part");
    assert!(!with(|sketch, x, _| sketch.rms_norm(x)), "16 bits");
}

#[test]
fn the_part_of_a_linear_layers_result_is_no_summand_of_its_own() {
    let mut sketch = Sketch::new();
    let x = sketch.embedding(256);
    let normed = sketch.rms_norm(x);
    let wide = sketch.linear(normed, 512, PLAIN);
    let sum = sketch.add(x, part(wide, 256, 256));
    let last = sketch.rms_norm(sum);
    assert_eq!(shorts(&sketch.finish(last), NEITHER)[2..4], ["linear", "add"]);
}

#[test]
fn a_summand_is_ready_when_its_step_comes_before_the_linear_one() {
    let mut sketch = Sketch::new();
    let x = sketch.embedding(256);
    let normed = sketch.rms_norm(x);
    let (a, b) = (sketch.linear(normed, 256, PLAIN), sketch.linear(normed, 256, PLAIN));
    let left = sketch.add(a, x);
    let (_, last) = sketch.add_rms_norm(left, b);
    // The first sum moves into `a`; the second stays, as its other summand's step comes after that of `b`.
    let wanted = ["embedding", "norm to 16 bits", "linear + sum", "linear", "sum + norm to 16 bits", "linear"];
    assert_eq!(shorts(&sketch.finish(last), NEITHER), wanted);
}

#[test]
fn norms_move_into_linear_layers_when_they_alone_read_them() {
    let plan = residual(|_, sum, _| sum);
    assert_eq!(shorts(&plan, PROLOGUE), ["embedding", "norm linear + sum", "norm linear"]);
    let with = |read: fn(&mut Sketch, View, View) -> View| {
        let mut sketch = Sketch::new();
        let x = sketch.embedding(256);
        let normed = sketch.rms_norm(x);
        let y = sketch.linear(normed, 256, PLAIN);
        let last = read(&mut sketch, normed, y);
        shorts(&sketch.finish(last), PROLOGUE).iter().filter(|work| work.contains("norm linear")).count()
    };
    assert_eq!(with(|_, normed, _| normed), 2);
    assert_eq!(with(|sketch, normed, y| sketch.mul(normed, y)), 0, "another reader");
    assert_eq!(with(|sketch, normed, _| sketch.linear(part(normed, 0, 128), 128, PLAIN)), 0, "a reader of a part");
    assert_eq!(
        with(|sketch, normed, y| {
            sketch.output("normed", normed);
            y
        }),
        0,
        "it leaves the plan"
    );
}

#[test]
fn layer_norms_and_norms_of_16_bits_run_by_themselves() {
    let mut sketch = Sketch::new();
    let x = sketch.embedding(256);
    let normed = sketch.layer_norm(x);
    let y = sketch.linear(normed, 256, PLAIN);
    let last = sketch.rms_norm(y);
    let wanted = ["embedding", "norm to 16 bits", "linear", "norm to 16 bits", "linear"];
    assert_eq!(shorts(&sketch.finish(last), PROLOGUE), wanted);
}

/// A norm with readers of some kinds; its works.
fn read_by(kinds: &[Kind], choice: Choice) -> Vec<String> {
    let mut sketch = Sketch::new();
    let x = sketch.embedding(256);
    let normed = sketch.rms_norm(x);
    let made: Vec<View> = kinds.iter().map(|kind| sketch.linear(normed, 256, *kind)).collect();
    let last = made.into_iter().reduce(|x, y| sketch.mul(x, y)).expect("a reader");
    shorts(&sketch.finish(last), choice).into_iter().filter(|work| work != "mul").collect()
}

#[test]
fn a_norm_writes_e4m3_where_nobody_reads_more() {
    assert_eq!(read_by(&[BY_ROW, BY_ROW], QUANTISE)[1..4], ["norm to e4m3", "e4m3 linear", "e4m3 linear"]);
    assert_eq!(read_by(&[BY_BLOCK], QUANTISE)[1..3], ["norm to blocks", "e4m3 linear"]);
    assert_eq!(read_by(&[PLAIN, BY_ROW], QUANTISE)[1..4], ["norm to 16 bits to e4m3", "linear", "e4m3 linear"]);
    let both = ["norm to 16 bits to blocks", "e4m3 linear", "quantise", "e4m3 linear", "e4m3 linear"];
    assert_eq!(read_by(&[BY_BLOCK, BY_ROW, BY_BLOCK], QUANTISE)[1..6], both);
    assert_eq!(read_by(&[PLAIN], QUANTISE)[1..3], ["norm to 16 bits", "linear"]);
    assert_eq!(read_by(&[BY_ROW], NEITHER)[1..3], ["norm to 16 bits", "linear"]);
    assert_eq!(read_by(&[BY_ROW, BY_BLOCK], BOTH)[1..3], ["norm linear", "norm linear"], "codes are not normed");
}

#[test]
fn a_norm_keeps_its_16_bits_for_an_output_and_for_parts() {
    let norm_of = |read: fn(&mut Sketch, View)| -> Norm {
        let mut sketch = Sketch::new();
        let x = sketch.embedding(256);
        let normed = sketch.layer_norm(x);
        let y = sketch.linear(normed, 256, BY_ROW);
        read(&mut sketch, normed);
        let works = works(&sketch.finish(y), QUANTISE);
        let norm =
            works.works.iter().find_map(|work| if let Work::Norm(norm) = work { Some(norm.clone()) } else { None });
        norm.expect("a norm")
    };
    let kept = |norm: Norm| (norm.out.is_some(), norm.quantised.is_some());
    assert_eq!(kept(norm_of(|_, _| ())), (false, true));
    assert_eq!(kept(norm_of(|sketch, normed| sketch.output("normed", normed))), (true, true));
    assert_eq!(kept(norm_of(|sketch, normed| _ = sketch.linear(part(normed, 128, 128), 64, BY_ROW))), (true, true));
    assert_eq!(kept(norm_of(|sketch, normed| _ = sketch.gather(normed))), (true, true));
}

#[test]
fn an_operand_is_quantised_once() {
    let mut sketch = Sketch::new();
    let x = sketch.embedding(256);
    let normed = sketch.rms_norm(x);
    let wide = sketch.linear(normed, 512, PLAIN);
    let (left, right) = (part(wide, 0, 256), part(wide, 256, 256));
    let made: Vec<View> = [(left, BY_ROW), (right, BY_ROW), (left, BY_ROW), (left, BY_BLOCK), (wide, BY_ROW)]
        .into_iter()
        .map(|(x, kind)| sketch.linear(x, 256, kind))
        .collect();
    let last = made.into_iter().reduce(|x, y| sketch.mul(x, y)).expect("five");
    let plan = sketch.finish(last);
    let works = works(&plan, QUANTISE);
    let quantised: Vec<_> = works
        .works
        .iter()
        .filter_map(|work| if let Work::Quantise { x, out } = work { Some((x, out)) } else { None })
        .map(|(x, out)| ((x.start, x.columns, x.stride), out.by_block, out.codes.stride, out.scale.columns))
        .collect();
    let wanted = [
        ((0, 256, 512), false, 256, 1),
        ((256, 256, 512), false, 256, 1),
        ((0, 256, 512), true, 256, 2),
        ((0, 512, 512), false, 512, 1),
    ];
    assert_eq!(quantised, wanted);
}

#[test]
fn what_tensor_cores_cannot_read_stays_16_bits() {
    let quantises = |width: usize, start: usize, columns: usize, n: usize| {
        let mut sketch = Sketch::new();
        let x = sketch.embedding(width);
        let normed = sketch.rms_norm(x);
        let y = sketch.linear(part(normed, start, columns), n, BY_ROW);
        let z = sketch.linear(normed, n, PLAIN);
        let last = sketch.mul(y, z);
        shorts(&sketch.finish(last), QUANTISE).contains(&"e4m3 linear".to_string())
    };
    assert!(quantises(256, 128, 128, 64));
    assert!(!quantises(256, 0, 64, 64), "columns that are no multiple of 128");
    assert!(!quantises(256, 8, 128, 64), "an odd start");
    assert!(!quantises(264, 0, 128, 64), "an odd row");
    assert!(!quantises(256, 0, 128, 60), "odd results");
}

#[test]
fn an_unfused_layer_is_one_work_for_each_step() {
    let mut sketch = Sketch::new();
    let spec = AttentionSpec { group: 0, layer: 0, heads: 4, kv_heads: 2, head_dim: 64, scale: 0.125 };
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
