//! A request's tokens and logits are the same bits whatever runs beside it, however its prompt is cut, whether it was
//! preempted, found its prefix in the cache, and however many threads compute.

mod common;

use std::sync::Arc;

use common::{Random, engine, engine_with, tests_path};
use trtllm::backend::cpu::Isa;
use trtllm::builder::BuildOptions;
use trtllm::engine::{Engine, Precision};
use trtllm::executor::{Executor, ExecutorConfig, Input, Request, RequestStats};

const PROMPTS: usize = 40;

/// All that a request said, logits as bits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Said {
    context_logits: Vec<u32>,
    /// By sequence: tokens and their logits.
    sequences: Vec<(Vec<u32>, Vec<u32>)>,
}

/// Greedy and sampled requests, some for several sequences, some for context logits, many of one prefix.
fn requests(count: usize) -> Vec<Request> {
    let mut random = Random(7);
    let prefix = random.tokens(50);
    let mut request = |index: usize| {
        let mut prompt = if index.is_multiple_of(3) { prefix.clone() } else { Vec::new() };
        let own = random.within(1..40);
        prompt.extend(random.tokens(own));
        let mut request = Request::new(Input::Tokens(prompt));
        request.return_generation_logits = true;
        request.return_context_logits = index % 8 == 1;
        request.stream = index.is_multiple_of(2);
        request.sampling.max_tokens = random.within(3..12) as u32;
        request.sampling.ignore_eos = true;
        request.sampling.n = if index % 5 == 4 { 3 } else { 1 };
        if index % 4 >= 2 {
            request.sampling.temperature = 1.2;
            request.sampling.top_k = 200;
            request.sampling.seed = index as u64;
        }
        request
    };
    (0..count).map(&mut request).collect()
}

fn load(engine: &Arc<Engine>, config: ExecutorConfig) -> Executor {
    Executor::load(Arc::clone(engine), config).expect("the limits are sound")
}

/// Submits everything in the given order at once and collects it in the order of `requests`.
fn serve(executor: &Executor, requests: &[Request], order: &[usize]) -> Vec<(Said, RequestStats)> {
    let submit = |at: &usize| (*at, executor.submit(requests[*at].clone()).expect("the request is sound"));
    let ids: Vec<_> = order.iter().map(submit).collect();
    let mut all = vec![Default::default(); requests.len()];
    for (at, id) in ids {
        let mut said =
            Said { sequences: vec![Default::default(); requests[at].sampling.n as usize], ..Said::default() };
        all[at] = loop {
            let mut responses = executor.await_responses(Some(id), None, 1).expect("the request goes on");
            let response = responses.pop().expect("never none");
            assert_eq!(response.error, None);
            let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>();
            said.context_logits.extend(bits(&response.context_logits));
            let sequence = &mut said.sequences[response.sequence as usize];
            sequence.0.extend(&response.tokens);
            sequence.1.extend(bits(&response.generation_logits));
            if response.last {
                break (said, response.stats);
            }
        };
    }
    all
}

/// Every request by itself: one row, the whole prompt in one step, no cached prefix.
fn alone(engine: &Arc<Engine>, requests: &[Request], isa: Option<&str>) -> Vec<Said> {
    let config = ExecutorConfig {
        max_batch_size: 1,
        prefix_reuse: false,
        threads: 2,
        isa: isa.map(str::to_string),
        ..ExecutorConfig::default()
    };
    let executor = load(engine, config);
    let one = |request: &Request| serve(&executor, std::slice::from_ref(request), &[0]).remove(0).0;
    let all: Vec<Said> = requests.iter().map(one).collect();
    for (request, said) in requests.iter().zip(&all) {
        let vocabulary = engine.plan().model.vocab_size;
        let Input::Tokens(prompt) = &request.input else { unreachable!("all prompts are tokens") };
        let wanted = if request.return_context_logits { prompt.len() * vocabulary } else { 0 };
        assert_eq!(said.context_logits.len(), wanted);
        for (tokens, logits) in &said.sequences {
            assert_eq!(tokens.len(), request.sampling.max_tokens as usize);
            assert_eq!(logits.len(), tokens.len() * vocabulary);
        }
    }
    all
}

/// Serves all requests together under `config` and compares; returns preemptions and cached tokens.
fn compare(
    engine: &Arc<Engine>,
    requests: &[Request],
    expected: &[Said],
    config: ExecutorConfig,
    random: &mut Random,
) -> (u64, usize) {
    let what = format!("{:?} {config:?}", engine.plan().precision);
    let executor = load(engine, config);
    let mut order: Vec<usize> = (0..requests.len()).collect();
    random.shuffle(&mut order);
    let served = serve(&executor, requests, &order);
    for (at, ((said, _), expected)) in served.iter().zip(expected).enumerate() {
        for (sequence, (got, wanted)) in said.sequences.iter().zip(&expected.sequences).enumerate() {
            assert_eq!(got.0, wanted.0, "tokens of request {at}, sequence {sequence}, {what}");
            assert!(got.1 == wanted.1, "generation logits of request {at}, sequence {sequence}, {what}");
        }
        assert!(said.context_logits == expected.context_logits, "context logits of request {at}, {what}");
    }
    let cached = served.iter().map(|(_, stats)| stats.cached_tokens).sum();
    (executor.stats().totals.preemptions, cached)
}

fn batches(precision: Precision) {
    let engine = engine("models/tiny", precision, &[]);
    let requests = requests(PROMPTS);
    let expected = alone(&engine, &requests, None);
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
    let expected = alone(&engine, &requests, None);
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
            let expected = alone(&engine, &requests, Some(isa.name()));
            for (max_batch_tokens, threads) in [(7, 3), (128, 1)] {
                let isa = Some(isa.name().to_string());
                let config = ExecutorConfig { max_batch_tokens, threads, isa, ..ExecutorConfig::default() };
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
    let expected = alone(&f32, &requests, None);
    let mut reseeded = requests.clone();
    reseeded[2].sampling.seed = 99;
    let other = alone(&f32, &reseeded, None);
    assert_eq!([0, 1, 2, 3].map(|at| other[at] == expected[at]), [true, true, false, true]);
    let bf16 = alone(&engine("models/tiny", Precision::Bf16, &[]), &requests, None);
    assert!(expected.iter().zip(&bf16).all(|(a, b)| a.sequences[0].1 != b.sequences[0].1));
}
