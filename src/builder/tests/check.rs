//! Plans that are sound and that no kernel computes: an engine file may hold any.

use super::tuner::plan_of;
use super::*;
use crate::backend::cuda::check_plan;
use crate::engine::{Granularity, Plan};

fn refusal(change: impl Fn(&mut Plan)) -> (Status, String) {
    let mut plan = plan_of(Precision::Bf16);
    check_plan(&plan).expect("what is built has kernels");
    change(&mut plan);
    let error = check_plan(&plan).unwrap_err();
    (error.status(), error.to_string())
}

#[test]
fn logits_are_asked_for() {
    let (status, text) = refusal(|plan| plan.outputs[0].name = "others".into());
    assert!(status == Status::Corrupt && text.contains("`logits`"), "{text}");
    let (status, text) = refusal(|plan| plan.model.vocab_size += 1);
    assert!(status == Status::Corrupt && text.contains("1025 f32"), "{text}");
}

#[test]
fn other_types_and_alignments_are_refused_by_name() {
    let (status, text) = refusal(|plan| plan.precision = Precision::F32);
    assert!(status == Status::Unsupported && text.contains("f32"), "{text}");
    let (status, text) = refusal(|plan| plan.weights[0].dtype = DType::F32);
    assert!(status == Status::Unsupported && text.contains("f32") && text.contains("weight `"), "{text}");
    let (status, text) = refusal(|plan| {
        let step = plan.steps.iter_mut().find(|step| step.inputs.iter().any(|view| view.start > 0));
        let view = step.and_then(|step| step.inputs.iter_mut().find(|view| view.start > 0));
        view.expect("keys lie behind queries").start += 1;
    });
    assert!(status == Status::Unsupported && text.contains("not aligned"), "{text}");
}

#[test]
fn gate_and_up_that_are_stored_in_two_ways_are_refused_by_name() {
    let mut plan = plan_of(Precision::Fp8);
    let up = plan.weights.iter_mut().find(|weight| weight.name.contains("up")).expect("there is one");
    up.scale.as_mut().expect("it is e4m3").granularity = Granularity::Block;
    let error = check_plan(&plan).unwrap_err();
    assert_eq!(error.status(), Status::Unsupported);
    assert!(error.to_string().contains("gate") && error.to_string().contains("up"), "{error}");
}
