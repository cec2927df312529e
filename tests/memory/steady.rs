//! Steady steps take no memory: counted on the executor's loop and on the threads of the CPU backend.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trtllm::engine::{Engine, LoadMode};
use trtllm::executor::{Executor, ExecutorConfig, Input, Request};
use trtllm::sampling::{LogitBias, SamplingParams};

use crate::allocator;

/// Requests that run together.
const REQUESTS: usize = 4;
/// Steps during which nothing may be taken.
const STEPS: u64 = 400;
/// Responses that clients leave lying once, so that the memory for such a delay is there.
const DELAY: usize = 12;

/// Runs `REQUESTS` such requests at once and counts what the steady part of their steps takes, with the stack at the first;
/// nothing when this thread was so late that they have ended meanwhile.
pub fn taken(path: &Path, stream: bool, sampling: &SamplingParams) -> Option<(usize, String)> {
    let engine = Engine::open(path, LoadMode::Read, &mut |_| std::ops::ControlFlow::Continue(())).expect("it opens");
    let config = ExecutorConfig { threads: 2, max_batch_size: REQUESTS, kv_tokens: 8192, ..ExecutorConfig::default() };
    let executor = Executor::load(Arc::new(engine), config).expect("it loads");
    for number in 0..REQUESTS {
        executor.submit(request(number, stream, sampling)).expect("it fits");
    }
    let wait = || std::thread::sleep(Duration::from_micros(100));
    let take = || {
        if stream {
            // Nothing comes when all have ended.
            let _ = executor.await_responses(None, Some(Duration::from_millis(50)), 64);
        } else {
            wait();
        }
    };
    pass(&executor, (DELAY + REQUESTS) as u64, wait);
    pass(&executor, 100, take);
    let taken = allocator::taken_during(|| pass(&executor, STEPS, take));
    (executor.stats().running == REQUESTS).then_some(taken)
}

/// Serves until so many steps have passed or nothing runs any more.
fn pass(executor: &Executor, steps: u64, serve: impl Fn()) {
    let end = executor.stats().iterations + steps;
    let deadline = Instant::now() + Duration::from_secs(60);
    while executor.stats().iterations < end && (executor.stats().running > 0 || executor.stats().iterations == 0) {
        assert!(Instant::now() < deadline, "no steps");
        serve();
    }
}

fn request(number: usize, stream: bool, sampling: &SamplingParams) -> Request {
    let mut request = Request::new(Input::Tokens((0..20).map(|i| 50 + i + 100 * number as u32).collect()));
    request.stream = stream;
    request.sampling = SamplingParams { max_tokens: 1500, ignore_eos: true, seed: number as u64, ..sampling.clone() };
    request
}

/// Every kind of sampling.
pub fn kinds() -> Vec<(&'static str, SamplingParams)> {
    let base = SamplingParams::default;
    vec![
        ("greedy", base()),
        ("top-k, top-p and min-p", SamplingParams { temperature: 1.0, top_k: 100, top_p: 0.9, min_p: 0.01, ..base() }),
        (
            "penalties and biases",
            SamplingParams {
                temperature: 1.0,
                repetition_penalty: 1.1,
                presence_penalty: 0.1,
                frequency_penalty: 0.1,
                logit_bias: (0..100).map(|token| LogitBias { token: 6 + token, bias: 0.1 }).collect(),
                ..base()
            },
        ),
        ("log-probabilities", SamplingParams { temperature: 1.0, logprobs: Some(5), ..base() }),
        (
            "stops",
            SamplingParams {
                stop_strings: ["xyzzy", "the end of all of it", "zzz"].map(str::to_string).into(),
                stop_sequences: vec![vec![6, 6, 6, 6], vec![7, 7, 7]],
                ..base()
            },
        ),
    ]
}
