//! Requests through an executor on the GPU: company, chunks, preemption, cached prefixes and cancelling change nothing of what
//! an invariant engine says.

use std::sync::Arc;

use trtllm::builder::{BuildOptions, Source};
use trtllm::engine::{Engine, Precision, Target};
use trtllm::executor::{Executor, ExecutorConfig, FinishReason, Input};

use crate::common::serving::{alone, compare, requests};
use crate::common::{Random, engine_of, tests_path};
use crate::gpu;

fn invariant() -> Arc<Engine> {
    let options = BuildOptions {
        target: Target::Cuda,
        precision: Some(Precision::Bf16),
        invariant: true,
        tune: false,
        ..BuildOptions::default()
    };
    engine_of(&Source::Checkpoint(tests_path("models/tiny")), &options)
}

#[test]
fn company_and_chunks_change_nothing() {
    if !gpu() {
        return;
    }
    let (engine, requests) = (invariant(), requests(30));
    let expected = alone(&engine, &requests, &ExecutorConfig::default());
    let mut random = Random(1);
    let mut cached_tokens = 0;
    for (max_batch_size, max_batch_tokens, prefix_reuse) in
        [(16, 1, true), (9, 7, false), (12, 33, true), (16, 512, true)]
    {
        let config = ExecutorConfig { max_batch_size, max_batch_tokens, prefix_reuse, ..ExecutorConfig::default() };
        let (_, cached) = compare(&engine, &requests, &expected, config, &mut random);
        assert!(prefix_reuse || cached == 0);
        cached_tokens += cached;
    }
    assert!(cached_tokens > 0, "no prefix was ever found");
}

#[test]
fn preemption_changes_nothing() {
    if !gpu() {
        return;
    }
    let engine = invariant();
    let mut random = Random(5);
    let mut requests = requests(12);
    for request in &mut requests {
        request.input = Input::Tokens(random.tokens(10));
        request.sampling.max_tokens = 44;
    }
    let expected = alone(&engine, &requests, &ExecutorConfig::default());
    for (prefix_reuse, max_batch_tokens) in [(false, 33), (true, 7), (true, 512)] {
        let config = ExecutorConfig { kv_tokens: 144, max_batch_tokens, prefix_reuse, ..ExecutorConfig::default() };
        let (preemptions, _) = compare(&engine, &requests, &expected, config, &mut random);
        assert!(preemptions > 0, "the pool was never short");
    }
}

#[test]
fn cancelling_some_changes_nothing_for_the_others() {
    if !gpu() {
        return;
    }
    let engine = invariant();
    let mut requests = requests(16);
    for request in &mut requests {
        request.sampling.n = 1;
        request.sampling.max_tokens = 60;
        request.stream = true;
    }
    let expected = alone(&engine, &requests, &ExecutorConfig::default());
    let executor = Executor::load(engine, ExecutorConfig::default()).expect("the limits are sound");
    let ids: Vec<_> = requests.iter().map(|r| executor.submit(r.clone()).expect("the request is sound")).collect();
    // Every second one once it has said something, so that its rows are under way.
    let mut first_words = vec![Vec::new(); ids.len()];
    for (at, id) in ids.iter().enumerate().step_by(2) {
        first_words[at] = executor.await_responses(Some(*id), None, 1).expect("it goes on").remove(0).tokens;
        executor.cancel(*id).expect("it is known");
    }
    for ((at, id), mut said) in ids.iter().enumerate().zip(first_words) {
        let finish = loop {
            let response = executor.await_responses(Some(*id), None, 1).expect("it goes on").pop().expect("never none");
            assert_eq!(response.error, None);
            said.extend(&response.tokens);
            if response.last {
                break response.finish;
            }
        };
        if at % 2 == 0 {
            assert!(matches!(finish, Some(FinishReason::Cancelled | FinishReason::Length)), "{finish:?}");
            assert_eq!(said, expected[at].sequences[0].0[..said.len()], "request {at}");
        } else {
            assert_eq!(said, expected[at].sequences[0].0, "request {at}");
        }
    }
    assert_eq!(executor.stats().running, 0);
}
