//! Quantised Hugging Face checkpoints, made here from random codes and known scales: what the engine computes is bit for bit
//! what an f32 engine of the dequantised weights computes. Both have an fp8 cache, since that is the one they share.

mod common;

use std::sync::Arc;

use common::quantized::{HIDDEN, KV, LAYERS, Models, Scheme, Stored, VOCABULARY};
use common::{Random, logits, session};
use safetensors::Dtype;
use trtllm::Status;
use trtllm::backend::cpu::Isa;
use trtllm::builder::{BuildOptions, Source, build, plan};
use trtllm::engine::{Engine, Granularity, Precision, Target};
use trtllm::types::{DType, bf16, e4m3};

fn all_logits(engine: &Arc<Engine>, isa: Isa) -> Vec<u32> {
    let mut random = Random(3);
    let prompt: Vec<u32> = (0..40).map(|_| random.within(0..VOCABULARY) as u32).collect();
    let rows = logits(&mut session(engine, prompt.len(), 2, Some(isa.name())), &prompt, &[33, 1, 6]);
    assert!(rows.iter().all(|logit| logit.is_finite()));
    rows.into_iter().map(f32::to_bits).collect()
}

/// Dot products of bf16 round activations for the plain head, which an f32 engine does not.
fn exact_isas() -> impl Iterator<Item = Isa> {
    Isa::available().into_iter().filter(|isa| *isa != Isa::Avx512Bf16)
}

#[test]
fn logits_are_those_of_the_dequantised_weights() {
    for scheme in Scheme::ALL {
        let models = Models::new(scheme, 1);
        let options = BuildOptions { kv_precision: Some(Precision::Fp8), ..BuildOptions::default() };
        let kept = models.engine(true, &options);
        assert_eq!(kept.plan().precision, Precision::Fp8);
        let f32s = BuildOptions { precision: Some(Precision::F32), ..options };
        let (dequantised, plain) = (models.engine(true, &f32s), models.engine(false, &f32s));
        for isa in exact_isas() {
            let wanted = all_logits(&plain, isa);
            assert_eq!(all_logits(&dequantised, isa), wanted, "{scheme:?} as f32 on {isa}");
            assert_eq!(all_logits(&kept, isa), wanted, "{scheme:?} as fp8 on {isa}");
        }
    }
}

#[test]
fn codes_and_scales_of_fused_weights_are_the_checkpoints_own() {
    for (scheme, target) in Scheme::ALL.into_iter().flat_map(|scheme| [(scheme, Target::Cpu), (scheme, Target::Cuda)]) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Models::new(scheme, 2).write(folder.path(), true);
        let source = Source::Checkpoint(folder.path().to_path_buf());
        let plan = plan(&source, &BuildOptions { target, ..BuildOptions::default() }).expect("plans");
        let quantised: Vec<_> = plan.weights.iter().filter(|weight| weight.dtype == DType::E4M3).collect();
        assert_eq!(quantised.len(), LAYERS * 5, "fused qkv, o, gate, up, down");
        for weight in quantised {
            assert_eq!(weight.scale.map(|scale| scale.granularity), Some(scheme.granularity()), "{}", weight.name);
        }
        assert_eq!(plan.head().map(|head| head.dtype), Some(DType::BF16), "lm_head is not quantised");
    }
}

/// Of q, k and v the last ends within a block: their stack has no blocks of its own and is quantised anew, row by row.
#[test]
fn blocks_that_do_not_stack_are_quantised_anew() {
    let mut models = Models::new(Scheme::Blocks, 4);
    for stored in models.quantized.iter_mut().filter(|stored| stored.name.contains("layers.1.self_attn.k_proj")) {
        if stored.dtype == Dtype::F8_E4M3 {
            // The same matrix, but plain: a part of the stack has no codes to keep.
            let values = stored.bytes.iter().flat_map(|code| bf16::encode(e4m3::decode(*code) / 4000.0).to_le_bytes());
            (stored.bytes, stored.dtype) = (values.collect(), Dtype::BF16);
        }
    }
    let engine = models.engine(true, &BuildOptions::default());
    let granularity = |shape: &[usize], nth: usize| {
        let mut weights = engine.plan().weights.iter().filter(|weight| weight.shape == shape);
        weights.nth(nth).and_then(|weight| weight.scale).map(|scale| scale.granularity)
    };
    let stack = [HIDDEN + 2 * KV, HIDDEN];
    assert_eq!(granularity(&stack, 0), Some(Granularity::Block));
    assert_eq!(granularity(&stack, 1), Some(Granularity::Row));
    all_logits(&engine, Isa::Portable);
}

#[test]
fn schemes_that_are_not_read_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    Models::new(Scheme::Blocks, 5).write(folder.path(), true);
    let config = std::fs::read_to_string(folder.path().join("config.json")).expect("reads");
    let compressed = |format: &str, weights: &str| {
        format!(
            r#"{{"quant_method": "compressed-tensors", "format": "{format}", "config_groups": {{"group_0": {{"weights": {weights}}}}}}}"#
        )
    };
    for (quantization, name) in [
        (r#"{"quant_method": "awq"}"#.to_string(), "awq"),
        (r#"{"quant_method": "gptq", "bits": 4}"#.to_string(), "gptq"),
        (r#"{"quant_method": "bitsandbytes"}"#.to_string(), "bitsandbytes"),
        (r#"{"quant_method": "mxfp4"}"#.to_string(), "mxfp4"),
        (r#"{"quant_method": "fp8", "fmt": "e5m2"}"#.to_string(), "fp8 e5m2"),
        (r#"{"quant_method": "fp8", "weight_block_size": [64, 64]}"#.to_string(), "fp8 weight_block_size"),
        (compressed("int-quantized", "{}"), "compressed-tensors int-quantized"),
        (compressed("float-quantized", r#"{"num_bits": 8, "type": "int"}"#), "compressed-tensors int8"),
        (
            compressed("float-quantized", r#"{"num_bits": 8, "type": "float", "strategy": "group"}"#),
            "compressed-tensors float8 per group",
        ),
    ] {
        let changed = config.replace(Scheme::Blocks.config(), &quantization);
        std::fs::write(folder.path().join("config.json"), changed).expect("writes");
        let source = Source::Checkpoint(folder.path().to_path_buf());
        let output = folder.path().join("out.engine");
        let error = build(&source, &output, &BuildOptions::default(), &mut |_, _| std::ops::ControlFlow::Continue(()))
            .expect_err("refused");
        assert_eq!(error.status(), Status::Unsupported, "{error}");
        assert!(error.to_string().contains(name), "{error} does not name {name}");
    }
}

#[test]
fn scales_that_are_missing_or_do_not_fit_are_refused_by_name() {
    let name = "model.layers.0.mlp.up_proj.weight";
    let refused = |change: fn(&mut Vec<Stored>, usize)| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut models = Models::new(Scheme::Blocks, 6);
        let at =
            models.quantized.iter().position(|stored| stored.name == format!("{name}_scale_inv")).expect("is there");
        change(&mut models.quantized, at);
        models.write(folder.path(), true);
        let source = Source::Checkpoint(folder.path().to_path_buf());
        let output = folder.path().join("out.engine");
        let error = build(&source, &output, &BuildOptions::default(), &mut |_, _| std::ops::ControlFlow::Continue(()))
            .expect_err("refused");
        assert_eq!(error.status(), Status::InvalidCheckpoint, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    };
    refused(|tensors, at| drop(tensors.remove(at)));
    refused(|tensors, at| tensors[at].shape.reverse());
    refused(|tensors, at| tensors[at].bytes[..4].copy_from_slice(&f32::INFINITY.to_le_bytes()));
}
