use super::*;
use crate::error::{Error, Status};
use crate::types::{AttentionSpec, RopeSpec};

fn refused(mut case: Case, batch: &Batch) -> Error {
    case.run(&device(Isa::Portable, 1), batch).unwrap_err()
}

fn linear() -> Case {
    let op = Op::Linear { bias: false, activation: None };
    let case = Case::new(op).input(8, &[0.0; 16]).output(Rows::Tokens, 2, 5);
    case.matrix(&[0.0; 40], 8, DType::F32, Packing::Panels)
}

fn corrupt(case: Case, part: &str) {
    let error = refused(case, &plain_batch(2));
    assert_eq!(error.status(), Status::Corrupt, "{error}");
    assert!(error.to_string().contains("the step") && error.to_string().contains(part), "{error}");
}

#[test]
fn a_plan_that_contradicts_itself_is_refused_before_memory_is_touched() {
    let change = |f: fn(&mut Case)| {
        let mut case = linear();
        f(&mut case);
        case
    };
    linear().run(&device(Isa::Portable, 1), &plain_batch(2)).unwrap();
    corrupt(change(|c| c.plan.weights[0].shape = vec![5, 9]), "weight 0");
    corrupt(change(|c| c.plan.weights[0].shape = vec![usize::MAX, 8]), "weight 0");
    corrupt(change(|c| c.weights[0].truncate(200)), "weight 0");
    corrupt(change(|c| c.plan.steps[0].weights.clear()), "weight 0");
    corrupt(change(|c| c.plan.steps[0].inputs[0].value = 9), "value 9");
    corrupt(change(|c| c.plan.steps[0].inputs[0].start = usize::MAX), "value 0");
    corrupt(change(|c| c.plan.steps[0].inputs.clear()), "input 0");
    corrupt(change(|c| c.plan.values[1].slot = 0), "slot");
    corrupt(change(|c| c.limits.tokens = 3), "value 1");
    corrupt(change(|c| c.plan.steps[0].op = Op::Rope(RopeSpec { head_dim: 4, rotary_dim: 3 })), "rotate");
}

#[test]
fn what_is_not_there_is_unsupported() {
    let mut case = linear();
    case.plan.weights[0].packing = Packing::RowMajor;
    assert_eq!(refused(case, &plain_batch(2)).status(), Status::Unsupported);
    let slice = Case::new(Op::Slice { start: 0, columns: 1 });
    assert_eq!(refused(slice, &plain_batch(1)).status(), Status::Unsupported);
    if let Some(absent) = Isa::ALL.into_iter().find(|isa| isa.compiled().is_none()) {
        let error = CpuDevice::new(CpuConfig { threads: 1, isa: Some(absent) }).err().unwrap();
        assert_eq!(error.status(), Status::DeviceUnavailable);
        assert!(error.to_string().contains(absent.name()));
    }
}

#[test]
fn scales_that_do_not_fit_are_refused() {
    let quantized = |change: fn(&mut Case)| {
        let op = Op::Linear { bias: false, activation: None };
        let case = Case::new(op).input(8, &[0.0; 16]).output(Rows::Tokens, 2, 5);
        let mut case = case.quantized(&[0; 40], 8, Granularity::Row, &[1.0; 5]);
        change(&mut case);
        case
    };
    quantized(|_| ()).run(&device(Isa::Portable, 1), &plain_batch(2)).unwrap();
    corrupt(quantized(|c| c.plan.weights[0].scale = None), "weight 0");
    corrupt(quantized(|c| c.plan.weights[0].scale.as_mut().unwrap().weight = 2), "weight 2");
    corrupt(quantized(|c| c.plan.weights[0].scale.as_mut().unwrap().granularity = Granularity::Block), "weight 1");
    corrupt(quantized(|c| c.plan.weights[1].shape = vec![6]), "weight 1");
    corrupt(quantized(|c| c.weights[1].truncate(4)), "weight 1");
    let int8 = |change: fn(&mut Case)| {
        let op = Op::Linear { bias: false, activation: None };
        let mut case = Case::new(op).input(8, &[0.0; 16]).output(Rows::Tokens, 2, 5).int8(&[0; 40], 8, &[1.0; 5]);
        change(&mut case);
        case
    };
    int8(|_| ()).run(&device(Isa::Portable, 1), &plain_batch(2)).unwrap();
    corrupt(int8(|c| c.plan.weights[0].scale = None), "weight 0");
    corrupt(int8(|c| c.plan.weights[0].scale.as_mut().unwrap().granularity = Granularity::Block), "scaled by blocks");
    corrupt(int8(|c| c.plan.weights[1].shape = vec![6]), "weight 1");
    corrupt(int8(|c| c.weights[1].truncate(4)), "weight 1");
}

#[test]
fn an_engine_for_another_device_is_refused_with_both_names() {
    let mut case = linear();
    case.plan.target = Target::Cuda;
    let error = refused(case, &plain_batch(2));
    assert_eq!(error.status(), Status::Unsupported);
    assert!(error.to_string().contains("cuda") && error.to_string().contains("cpu"), "{error}");
}

#[test]
fn ids_outside_the_table_are_refused() {
    let case = Case::new(Op::Embedding { scale: 1.0 }).matrix(&[0.0; 12], 4, DType::F32, Packing::Panels);
    let mut batch = plain_batch(1);
    batch.tokens[0] = 3;
    let error = refused(case.output(Rows::Tokens, 1, 4), &batch);
    assert_eq!(error.status(), Status::InvalidArgument);
    assert!(error.to_string().contains("token id 3"));
}

#[test]
fn a_batch_beyond_the_limits_or_the_pool_is_refused() {
    assert_eq!(refused(linear(), &plain_batch(3)).status(), Status::Internal);
    let spec = AttentionSpec { group: 0, layer: 0, heads: 1, kv_heads: 1, head_dim: 8, scale: 1.0, soft_cap: None };
    let group = KvGroup { layers: vec![0], kv_heads: 1, head_dim: 8, dtype: DType::F32, window: None };
    let append = || Case::new(Op::CacheAppend(spec)).input(8, &[0.0; 8]).input(8, &[0.0; 8]).kv(group.clone(), 2);
    let batch = |context: usize, table: &[u32]| Batch {
        rows: vec![BatchRow { start: 0, len: 1, context }],
        tables: table.to_vec(),
        table_starts: vec![0, table.len()],
        ..plain_batch(1)
    };
    append().run(&device(Isa::Portable, 1), &batch(0, &[1])).unwrap();
    assert!(refused(append(), &batch(0, &[2])).to_string().contains("block 2"));
    assert_eq!(refused(append(), &batch(16, &[1])).status(), Status::Internal);
    assert_eq!(refused(append(), &batch(usize::MAX, &[1])).status(), Status::Internal);
    corrupt(
        {
            let mut case = append();
            case.limits.kv_blocks = 3;
            case
        },
        "KV pool",
    );
}
