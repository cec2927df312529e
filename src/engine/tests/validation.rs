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

/// The small plan with a head of codes, whose scales are weight 3.
fn quantized_plan(dtype: DType, granularity: Granularity) -> Plan {
    let mut plan = small_plan();
    let head = &mut plan.weights[2];
    (head.dtype, head.scale) = (dtype, Some(ScaleSpec { weight: 3, granularity }));
    head.bytes = head.packed_bytes().expect("a small shape");
    let offset = (head.offset + head.bytes).next_multiple_of(256);
    plan.weights.push(weight("head.scale", &granularity.scale_shape(5, 4), Packing::RowMajor, offset));
    plan
}

/// The small plan as it is for CUDA: row-major weights, 16-bit values beside the embedding and the logits.
fn cuda_plan() -> Plan {
    let mut plan = small_plan();
    (plan.target, plan.precision, plan.kv_groups[0].dtype) = (Target::Cuda, Precision::Bf16, DType::E4M3);
    plan.weights[2] = weight("head", &[5, 4], Packing::RowMajor, 512);
    plan.values[1].dtype = DType::BF16;
    plan.values[2].dtype = DType::BF16;
    plan
}

#[test]
fn the_small_plans_are_valid() {
    small_plan().validate().expect("valid");
    quantized_plan(DType::E4M3, Granularity::Row).validate().expect("valid");
    quantized_plan(DType::E4M3, Granularity::Block).validate().expect("valid");
    quantized_plan(DType::I8, Granularity::Row).validate().expect("valid");
    cuda_plan().validate().expect("valid");
}

#[test]
fn scales_that_are_not_what_their_weight_needs_are_refused() {
    let refused = |what: &str, change: fn(&mut Plan)| {
        for dtype in [DType::E4M3, DType::I8] {
            let mut plan = quantized_plan(dtype, Granularity::Row);
            change(&mut plan);
            let error = plan.validate().expect_err("the change makes the plan invalid");
            assert!(error.status() == Status::Corrupt && error.to_string().contains(what), "{error}");
        }
    };
    fn scale(plan: &mut Plan) -> &mut ScaleSpec {
        plan.weights[2].scale.as_mut().expect("there are scales")
    }
    refused("weight `head` is corrupt: its scales, weight 4, do not exist", |plan| scale(plan).weight = 4);
    refused("weight `head`", |plan| scale(plan).weight = usize::MAX);
    refused("weight `head`", |plan| scale(plan).weight = 2);
    refused("weight `head`", |plan| scale(plan).granularity = Granularity::Block);
    refused("weight `head`", |plan| plan.weights[2].scale = None);
    refused("weight `gain`", |plan| plan.weights[1].scale = plan.weights[2].scale);
    refused("weight `head`", |plan| plan.weights[3].shape = vec![4]);
    refused("weight `table`", |plan| {
        plan.weights[0].dtype = DType::E4M3;
        plan.weights[0].bytes = 40;
    });
    let error = quantized_plan(DType::I8, Granularity::Block).validate().expect_err("i8 goes by row");
    assert!(error.status() == Status::Corrupt && error.to_string().contains("weight `head`"), "{error}");
}

#[test]
fn values_of_another_type_than_their_step_gives_are_refused() {
    refused("value `y`", |plan| plan.values[1].dtype = DType::BF16);
    let refused = |what: &str, change: fn(&mut Plan)| {
        let mut plan = cuda_plan();
        change(&mut plan);
        let error = plan.validate().expect_err("the change makes the plan invalid");
        assert!(error.status() == Status::Corrupt && error.to_string().contains(what), "{error}");
    };
    refused("value `x`", |plan| plan.values[0].dtype = DType::BF16);
    refused("value `y`", |plan| plan.values[1].dtype = DType::F16);
    refused("value `picked`", |plan| plan.values[2].dtype = DType::F32);
    refused("value `logits`", |plan| plan.values[3].dtype = DType::BF16);
    refused("value `logits`", |plan| plan.slots[1].bytes_per_logit_row = 19);
    for precision in [Precision::F32, Precision::Int8, Precision::Int8W8a8] {
        let error = Plan { precision, ..cuda_plan() }.validate().expect_err("not for cuda");
        assert!(error.status() == Status::Corrupt && error.to_string().contains("precision"), "{error}");
    }
    refused("step 4 `logits`", |plan| {
        let codes = quantized_plan(DType::I8, Granularity::Row);
        plan.weights.truncate(2);
        plan.weights.extend_from_slice(&codes.weights[2..]);
        (plan.weights[2].packing, plan.weights[2].offset, plan.weights[2].bytes) = (Packing::RowMajor, 512, 20);
        plan.weights[3].offset = 768;
    });
    refused("weight `head`", |plan| plan.weights[2] = weight("head", &[5, 4], Packing::Panels, 4096));
}

/// The small plan with a norm of the parts of `y` in place of attention.
fn normed_plan() -> Plan {
    let mut plan = small_plan();
    plan.weights[1] = weight("gain", &[2], Packing::RowMajor, 256);
    plan.steps[2].op = Op::RmsNorm { eps: 1e-5 };
    plan.steps[2].weights = vec![1];
    plan
}

#[test]
fn a_gain_divides_what_it_norms() {
    normed_plan().validate().expect("valid");
    let refused = |change: fn(&mut Plan)| {
        let mut plan = normed_plan();
        change(&mut plan);
        let error = plan.validate().expect_err("the change makes the plan invalid");
        assert!(error.to_string().contains("step 2 `y`"), "{error}");
    };
    refused(|plan| plan.weights[1] = weight("gain", &[3], Packing::RowMajor, 256));
    refused(|plan| plan.weights[1] = weight("gain", &[2, 2], Packing::RowMajor, 256));
    refused(|plan| plan.steps[2].weights = vec![9]);
    refused(|plan| plan.steps[2].weights.clear());
    refused(|plan| plan.steps[2].op = Op::LayerNorm { eps: 1e-5 });
}

#[test]
fn what_a_soft_cap_makes_logits_from_is_f32_on_every_target() {
    let mut plan = cuda_plan();
    plan.values[3].name = "uncapped".into();
    plan.values.push(Value { name: "logits".into(), slot: 2, ..plan.values[3].clone() });
    plan.slots.push(plan.slots[1]);
    let mut cap = plan.steps[4].clone();
    let logits = View { value: 4, start: 0, columns: 5 };
    (cap.op, cap.inputs, cap.outputs) = (Op::SoftCap { cap: 30.0 }, cap.outputs, vec![logits]);
    cap.weights.clear();
    plan.steps.push(cap);
    plan.outputs[0].value = 4;
    plan.validate().expect("valid");
    plan.values[3].dtype = DType::BF16;
    assert!(plan.validate().expect_err("narrow").to_string().contains("`uncapped`"));
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
    refused("step 2 `y`", |plan| plan.steps[2].op = Op::SoftCap { cap: 0.0 });
    refused("step 0 `x`", |plan| plan.steps[0].op = Op::Embedding { scale: f32::NAN });
    refused("step 2 `y`", |plan| {
        let Op::Attention(spec) = &mut plan.steps[2].op else { panic!() };
        spec.soft_cap = Some(-50.0);
    });
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
