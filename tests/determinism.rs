//! A request's tokens and logits are the same bits whatever runs beside it, however its prompt is cut, whether it was
//! preempted, found its prefix in the cache, and however many threads compute.

mod common;

use common::serving::{alone, compare, requests};
use common::{Random, engine, engine_with, tests_path};
use trtllm::backend::cpu::Isa;
use trtllm::builder::BuildOptions;
use trtllm::engine::Precision;
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

/// Short prompts and long outputs, so that those who were admitted together outgrow the pool.
fn preemptions(precision: Precision) {
    let engine = engine("models/tiny", precision, &[]);
    let mut random = Random(5);
    let mut requests = requests(12);
    for request in &mut requests {
        request.input = Input::Tokens(random.tokens(10));
        request.sampling.max_tokens = 44;
    }
    let expected = alone(&engine, &requests, &two_threads());
    for (prefix_reuse, max_batch_tokens) in [(false, 33), (true, 7), (true, 512)] {
        let config =
            ExecutorConfig { kv_tokens: 144, max_batch_tokens, prefix_reuse, threads: 2, ..ExecutorConfig::default() };
        let (preemptions, _) = compare(&engine, &requests, &expected, config, &mut random);
        assert!(preemptions > 0, "the pool was never short");
    }
}

#[test]
fn f32_does_not_depend_on_preemption() {
    preemptions(Precision::F32);
}

#[test]
fn bf16_does_not_depend_on_preemption() {
    preemptions(Precision::Bf16);
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
    for (precision, kv_precision) in [
        (Precision::F32, None),
        (Precision::Bf16, None),
        (Precision::F16, None),
        (Precision::Fp8, Some(Precision::Fp8)),
    ] {
        let options = BuildOptions { precision: Some(precision), kv_precision, ..BuildOptions::default() };
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
