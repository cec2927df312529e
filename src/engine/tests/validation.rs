use super::*;
use crate::Status;

/// The small plan after one change, which must be found and named.
fn refused(what: &str, change: impl FnOnce(&mut Plan)) {
    let mut plan = small_plan();
    change(&mut plan);
    let error = plan.validate().expect_err("the change makes the plan invalid");
    assert_eq!(error.status(), Status::Corrupt);
    assert!(error.to_string().contains(what), "{error} does not name {what}");
}

#[test]
fn the_small_plan_is_valid() {
    small_plan().validate().expect("valid");
}

#[test]
fn indices_out_of_range_are_refused() {
    refused("step 4 `logits`", |plan| plan.steps[4].weights[0] = 4);
    refused("step 4 `logits`", |plan| plan.steps[4].inputs[0].value = 4);
    refused("step 0 `x`", |plan| plan.steps[0].outputs[0].value = usize::MAX);
    refused("value `x`", |plan| plan.values[0].slot = 2);
    refused("output `logits`", |plan| plan.outputs[0].value = 4);
}

#[test]
fn views_outside_their_value_are_refused() {
    refused("step 1 `cache`", |plan| plan.steps[1].inputs[1].start = 7);
    refused("step 1 `cache`", |plan| plan.steps[1].inputs[1].start = usize::MAX);
    refused("step 4 `logits`", |plan| plan.steps[4].outputs[0].columns = 4);
}

#[test]
fn operands_that_do_not_fit_the_operation_are_refused() {
    refused("step 4 `logits`", |plan| plan.steps[4].op = Op::Linear { bias: true, activation: None });
    refused("step 4 `logits`", |plan| plan.steps[4].op = Op::GatherRows);
    refused("step 4 `logits`", |plan| plan.steps[4].weights[0] = 0);
    refused("step 4 `logits`", |plan| plan.steps[4].weights[0] = 1);
    refused("step 2 `y`", |plan| plan.steps[2].op = Op::Slice { start: 0, columns: 4 });
    refused("step 2 `y`", |plan| plan.steps[2].op = Op::RmsNorm { eps: f32::NAN });
    refused("step 0 `x`", |plan| plan.model.vocab_size = 6);
    refused("step 3 `picked`", |plan| plan.values[2].rows = Rows::Tokens);
}

#[test]
fn weights_out_of_place_are_refused() {
    refused("weight `head`", |plan| plan.weights[2].offset = 512);
    refused("weight `gain`", |plan| plan.weights[1].offset += 64);
    refused("weight `gain`", |plan| plan.weights[1].bytes = 8);
    refused("weight `gain`", |plan| plan.weights[1].shape = vec![usize::MAX, 4]);
    refused("weight `gain`", |plan| plan.weights[1].shape = vec![]);
    refused("weight `head`", |plan| plan.weights[2].checksum = "+0000000000000ff".into());
    refused("weights", |plan| plan.weights.clear());
}

#[test]
fn slots_that_are_small_or_shared_by_living_values_are_refused() {
    refused("value `logits`", |plan| plan.slots[1].bytes_per_logit_row = 16);
    refused("value `y`", |plan| plan.values[1].slot = 0);
    refused("value `logits`", |plan| plan.values[3].slot = 0);
    refused("slots", |plan| plan.slots.push(Slot { bytes_per_token: usize::MAX, bytes_per_logit_row: 0 }));
}

#[test]
fn steps_out_of_order_are_refused() {
    refused("step 2", |plan| plan.steps.swap(2, 3));
    refused("step 1", |plan| plan.steps.swap(1, 2));
    refused("step 5", |plan| plan.steps.push(plan.steps[1].clone()));
    refused("step 5", |plan| plan.steps.push(plan.steps[2].clone()));
    refused("output `logits`", |plan| drop(plan.steps.pop()));
    refused("value `logits`", |plan| {
        plan.steps.pop();
        plan.outputs[0] = Output { name: "picked".into(), value: 2 };
    });
    refused("outputs", |plan| plan.outputs.clear());
}

#[test]
fn impossible_kv_groups_are_refused() {
    refused("kv group 0", |plan| plan.kv_groups[0].kv_heads = 0);
    refused("kv group 0", |plan| plan.kv_groups[0].head_dim = usize::MAX);
    refused("kv group 0", |plan| plan.kv_groups[0].dtype = DType::I32);
    refused("kv group 0", |plan| plan.kv_groups[0].window = Some(0));
    refused("kv group 0", |plan| plan.kv_groups[0].layers = vec![1]);
    refused("kv group 1", |plan| plan.kv_groups.push(plan.kv_groups[0].clone()));
    refused("step 1", |plan| plan.kv_groups.clear());
    refused("step 1", |plan| plan.kv_groups[0].head_dim = 1);
}
