//! A request's tokens and logits are the same bits whatever runs beside it, however its prompt is cut, whether it was
//! preempted, found its prefix in the cache, and however many threads compute.

mod common;

use std::sync::Arc;

use common::serving::{alone, compare, requests};
use common::{Random, engine, engine_of, engine_with, tests_path};
use trtllm::backend::cpu::Isa;
use trtllm::builder::{BuildOptions, Source};
use trtllm::engine::{Engine, Precision};
use trtllm::executor::{ExecutorConfig, Input};

const PROMPTS: usize = 40;

fn two_threads() -> ExecutorConfig {
    ExecutorConfig { threads: 2, ..ExecutorConfig::default() }
}

fn batches(precision: Precision) {
    let engine = engine("models/tiny", precision, &[]);
    let requests = requests(PROMPTS);
    let expected = alone(&engine, &requests, &two_threads());
    let mut random = Random(precision as u64);
    let mut cached_tokens = 0;
    for (at, max_batch_tokens) in [1, 7, 33, 512].into_iter().enumerate() {
        for threads in 1..=3 {
            let prefix_reuse = (at + threads) % 2 == 0;
            let max_batch_size = random.within(8..17);
            let config =
                ExecutorConfig { max_batch_size, max_batch_tokens, threads, prefix_reuse, ..ExecutorConfig::default() };
            let (_, cached) = compare(&engine, &requests, &expected, config, &mut random);
            assert!(prefix_reuse || cached == 0);
            cached_tokens += cached;
        }
    }
    assert!(cached_tokens > 0, "no prefix was ever found");
}

const WINDOW: usize = 24;

/// The tiny model with a window in every layer: one KV group that slides.
fn sliding() -> Arc<Engine> {
    let folder = tempfile::tempdir().unwrap();
    let tiny = tests_path("models/tiny");
    std::fs::copy(tiny.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(tiny.join("config.json")).unwrap();
    let sliding = format!("\"sliding_window\": {WINDOW}, \"vocab_size\"");
    let config = config.replace("LlamaForCausalLM", "MistralForCausalLM").replace("\"vocab_size\"", &sliding);
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let options = BuildOptions { precision: Some(Precision::F32), ..BuildOptions::default() };
    let engine = engine_with(folder.path(), &options);
    let windows: Vec<_> = engine.plan().kv_groups.iter().map(|group| group.window).collect();
    assert_eq!(windows, [Some(WINDOW)]);
    engine
}

/// Made-up weights: two layers that see everything, two that slide, as two KV groups.
fn half_sliding() -> Arc<Engine> {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let fields = format!(
        r#"{{"architectures": ["Qwen2ForCausalLM"], "vocab_size": 1000, "hidden_size": 128, "intermediate_size": 256,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
        "use_sliding_window": true, "sliding_window": {WINDOW}, "max_window_layers": 2}}"#
    );
    std::fs::write(&config, fields).unwrap();
    let options = BuildOptions { precision: Some(Precision::F32), ..BuildOptions::default() };
    let engine = engine_of(&Source::Dummy { config, seed: 3 }, &options);
    let groups: Vec<_> = engine.plan().kv_groups.iter().map(|group| (group.layers.clone(), group.window)).collect();
    assert_eq!(groups, [(vec![0, 1], None), (vec![2, 3], Some(WINDOW))]);
    engine
}

/// Made-up weights of a model with what fewer families have: caps of scores, of logits, norms of heads, and layers that
/// slide beside layers that see everything.
fn capped(architecture: &str) -> Arc<Engine> {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let fields = format!(
        r#"{{"architectures": ["{architecture}"], "vocab_size": 1000, "hidden_size": 128, "intermediate_size": 256,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
        "max_position_embeddings": 1024, "sliding_window": {WINDOW}, "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 32, "final_logit_softcapping": 3.0}}"#
    );
    std::fs::write(&config, fields).unwrap();
    let options = BuildOptions { precision: Some(Precision::F32), ..BuildOptions::default() };
    let engine = engine_of(&Source::Dummy { config, seed: 5 }, &options);
    let groups: Vec<_> = engine.plan().kv_groups.iter().map(|group| (group.layers.clone(), group.window)).collect();
    assert_eq!(groups, [(vec![0, 2], Some(WINDOW)), (vec![1, 3], None)]);
    engine
}

/// Short prompts and long outputs, so that those who were admitted together outgrow the pool.
fn preemptions(engine: &Arc<Engine>) {
    let mut random = Random(5);
    let mut requests = requests(12);
    for request in &mut requests {
        request.input = Input::Tokens(random.tokens(10));
        request.sampling.max_tokens = 44;
    }
    let expected = alone(engine, &requests, &two_threads());
    for (prefix_reuse, max_batch_tokens) in [(false, 33), (true, 7), (true, 512)] {
        let config =
            ExecutorConfig { kv_tokens: 144, max_batch_tokens, prefix_reuse, threads: 2, ..ExecutorConfig::default() };
        let (preemptions, _) = compare(engine, &requests, &expected, config, &mut random);
        assert!(preemptions > 0, "the pool was never short");
    }
}

#[test]
fn f32_does_not_depend_on_preemption() {
    preemptions(&engine("models/tiny", Precision::F32, &[]));
}

#[test]
fn bf16_does_not_depend_on_preemption() {
    preemptions(&engine("models/tiny", Precision::Bf16, &[]));
}

#[test]
fn windows_do_not_depend_on_preemption() {
    preemptions(&sliding());
    preemptions(&half_sliding());
    preemptions(&capped("Gemma2ForCausalLM"));
}

#[test]
fn windows_do_not_depend_on_the_batch() {
    let requests = requests(16);
    let mut random = Random(11);
    for engine in [sliding(), half_sliding(), capped("Gemma2ForCausalLM"), capped("Gemma3ForCausalLM")] {
        let expected = alone(&engine, &requests, &two_threads());
        let mut cached_tokens = 0;
        for (max_batch_tokens, threads, prefix_reuse) in [(7, 2, true), (33, 3, false), (512, 1, true)] {
            let config = ExecutorConfig { max_batch_tokens, threads, prefix_reuse, ..ExecutorConfig::default() };
            cached_tokens += compare(&engine, &requests, &expected, config, &mut random).1;
        }
        assert!(cached_tokens > 0, "no prefix was ever found");
    }
}

/// Blocks behind the window are given back: 64 tokens of room carry a sequence of 200, and it says the same.
#[test]
fn a_sequence_outgrows_a_pool_that_holds_its_window() {
    let engine = sliding();
    let mut requests = requests(2);
    for request in &mut requests {
        request.input = Input::Tokens(Random(13).tokens(60));
        request.sampling.max_tokens = 140;
    }
    let expected = alone(&engine, &requests, &two_threads());
    let config = ExecutorConfig { kv_tokens: 64, max_batch_tokens: 7, threads: 2, ..ExecutorConfig::default() };
    compare(&engine, &requests, &expected, config, &mut Random(17));
}

#[test]
fn f32_does_not_depend_on_the_batch() {
    batches(Precision::F32);
}

#[test]
fn bf16_does_not_depend_on_the_batch() {
    batches(Precision::Bf16);
}

#[test]
fn no_instruction_set_depends_on_the_batch() {
    let requests = requests(12);
    let mut random = Random(3);
    for (precision, kv_precision, head_precision) in [
        (Precision::F32, None, None),
        (Precision::Bf16, None, None),
        (Precision::F16, None, None),
        (Precision::Fp8, Some(Precision::Fp8), None),
        (Precision::Int8, None, Some(Precision::Int8)),
        (Precision::Int8W8a8, Some(Precision::Fp8), Some(Precision::Int8W8a8)),
    ] {
        let precision = Some(precision);
        let options = BuildOptions { precision, kv_precision, head_precision, ..BuildOptions::default() };
        let engine = engine_with(&tests_path("models/tiny"), &options);
        for isa in Isa::available() {
            let base = ExecutorConfig { isa: Some(isa.name().to_string()), ..two_threads() };
            let expected = alone(&engine, &requests, &base);
            for (max_batch_tokens, threads) in [(7, 3), (128, 1)] {
                let config = ExecutorConfig { max_batch_tokens, threads, ..base.clone() };
                compare(&engine, &requests, &expected, config, &mut random);
            }
        }
    }
}

/// The comparison would notice: another seed says something else, another precision has other logits.
#[test]
fn what_differs_is_seen() {
    let f32 = engine("models/tiny", Precision::F32, &[]);
    let requests = requests(4);
    let expected = alone(&f32, &requests, &two_threads());
    let mut reseeded = requests.clone();
    reseeded[2].sampling.seed = 99;
    let other = alone(&f32, &reseeded, &two_threads());
    assert_eq!([0, 1, 2, 3].map(|at| other[at] == expected[at]), [true, true, false, true]);
    let bf16 = alone(&engine("models/tiny", Precision::Bf16, &[]), &requests, &two_threads());
    assert!(expected.iter().zip(&bf16).all(|(a, b)| a.sequences[0].1 != b.sequences[0].1));
}
