//! Sums and norms that move into linear layers.

use super::super::Work;
use super::sketch::{PLAIN, Sketch, part};
use super::{NEITHER, PROLOGUE, shorts, works};
use crate::engine::{Plan, View};

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

#[test]
fn an_f32_value_is_converted_once_for_all_linear_layers_that_read_it() {
    let mut sketch = Sketch::new();
    let x = sketch.embedding(256);
    let (y, z) = (sketch.linear(x, 256, PLAIN), sketch.linear(x, 256, PLAIN));
    let sum = sketch.add(y, z);
    let last = sketch.rms_norm(sum);
    let plan = sketch.finish(last);
    assert_eq!(shorts(&plan, NEITHER)[..3], ["embedding", "convert", "linear"]);
    assert_eq!(shorts(&plan, NEITHER).iter().filter(|work| *work == "convert").count(), 1);
}
