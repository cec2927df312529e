use super::*;
use crate::engine::Target;

/// An engine's codes are the checkpoint's rows with their largest element at `most`, rounded.
fn rounded_by_row(checkpoint: &Checkpoint, engine: &Engine, most: f32, round: impl Fn(f32) -> f32) {
    let plan = engine.plan();
    let stored = all_of(&checkpoint.weights, "model.layers.1.mlp.down_proj.weight");
    let (down, codes) = weight(engine, "layers.1.down", 0);
    let scales = down.scale.expect("it is quantised").weight;
    let scales = unpack(&plan.weights[scales], engine.weight(scales));
    for (index, (value, code)) in stored.iter().zip(&codes).enumerate() {
        let (scale, row) = (scales[index / 100], &stored[index / 100 * 100..][..100]);
        assert_eq!(scale, row.iter().fold(0.0f32, |largest, x| largest.max(x.abs())) / most);
        assert_eq!(*code, round(value / scale));
    }
}

#[test]
fn fp8_weights_are_the_checkpoints_rounded_by_row() {
    let checkpoint = Checkpoint::new(UNTIED, DType::F32);
    let fp8 = Some(Precision::Fp8);
    let engine = checkpoint.build(&BuildOptions { precision: fp8, kv_precision: fp8, ..BuildOptions::default() });
    let plan = engine.plan();
    assert!(plan.kv_groups.iter().all(|group| group.dtype == DType::E4M3));
    let (head, _) = weight(&engine, "logits", 0);
    assert_eq!((head.dtype, head.scale), (DType::BF16, None));
    for weight in &plan.weights {
        assert_eq!(weight.dtype == DType::E4M3, weight.scale.is_some());
    }
    rounded_by_row(&checkpoint, &engine, 448.0, |x| e4m3::decode(e4m3::encode(x)));
}

#[test]
fn int8_weights_are_the_checkpoints_rounded_by_row() {
    let checkpoint = Checkpoint::new(UNTIED, DType::F32);
    for precision in [Precision::Int8, Precision::Int8W8a8] {
        let options = BuildOptions { precision: Some(precision), ..BuildOptions::default() };
        let engine = checkpoint.build(&options);
        let plan = engine.plan();
        assert_eq!(plan.precision, precision);
        assert!(plan.kv_groups.iter().all(|group| group.dtype == DType::BF16));
        let (head, _) = weight(&engine, "logits", 0);
        assert_eq!((head.dtype, head.scale), (DType::BF16, None));
        for weight in &plan.weights {
            assert_eq!(weight.dtype == DType::I8, weight.scale.is_some());
        }
        rounded_by_row(&checkpoint, &engine, 127.0, f32::round_ties_even);
        let narrow = checkpoint.build(&BuildOptions { head_precision: Some(precision), ..options });
        assert_eq!(narrow.plan().head().map(|head| head.dtype), Some(DType::I8));
    }
}

#[test]
fn a_tied_head_of_another_type_is_a_weight_of_its_own() {
    let checkpoint = Checkpoint::new(LLAMA, DType::F32);
    let types = |target, head_precision| -> Vec<(DType, Packing)> {
        let precision = Some(Precision::Fp8);
        let options = BuildOptions { target, precision, head_precision, ..BuildOptions::default() };
        let plan = plan(&checkpoint.source(), &options).expect("plans");
        let tables = plan.weights.iter().filter(|spec| spec.shape == [97, 64]);
        tables.map(|spec| (spec.dtype, spec.packing)).collect()
    };
    let (table, codes) = (DType::BF16, DType::E4M3);
    assert_eq!(types(Target::Cpu, None), [(table, Packing::Panels)]);
    assert_eq!(types(Target::Cuda, None), [(table, Packing::RowMajor)]);
    let fp8 = Some(Precision::Fp8);
    assert_eq!(types(Target::Cpu, fp8), [(table, Packing::RowMajor), (codes, Packing::Panels)]);
    assert_eq!(types(Target::Cuda, fp8), [(table, Packing::RowMajor), (codes, Packing::RowMajor)]);
}

#[test]
fn an_engine_for_cuda_has_narrow_values_around_a_wide_residual_stream() {
    for (config, precision, narrow) in [
        (LLAMA, Precision::Bf16, DType::BF16),
        (UNTIED, Precision::Fp8, DType::BF16),
        (GPT2, Precision::F16, DType::F16),
    ] {
        let checkpoint = Checkpoint::new(config, DType::F32);
        let options = BuildOptions { target: Target::Cuda, precision: Some(precision), ..BuildOptions::default() };
        let plan = plan(&checkpoint.source(), &options).expect("plans");
        assert_eq!(plan.target, Target::Cuda);
        assert!(plan.weights.iter().all(|spec| spec.packing == Packing::RowMajor && spec.offset % 256 == 0));
        for step in &plan.steps {
            for (index, view) in step.outputs.iter().enumerate() {
                let value = &plan.values[view.value];
                let wide = match &step.op {
                    Op::Embedding { .. } | Op::PositionEmbedding | Op::RopeAngles { .. } | Op::Add => true,
                    Op::AddRmsNorm { .. } | Op::AddLayerNorm { .. } => index == 0,
                    Op::GatherRows => plan.values[step.inputs[0].value].dtype == DType::F32,
                    _ => value.name == "logits",
                };
                assert_eq!(value.dtype, if wide { DType::F32 } else { narrow }, "{}", value.name);
            }
        }
    }
}
