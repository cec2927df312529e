//! Requests served alone and in company, to compare what was said bit by bit.

use std::sync::Arc;

use trtllm::engine::Engine;
use trtllm::executor::{Executor, ExecutorConfig, Input, Request, RequestStats};

use super::Random;

/// All that a request said, logits as bits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    pub context_logits: Vec<u32>,
    /// By sequence: tokens and their logits.
    pub sequences: Vec<(Vec<u32>, Vec<u32>)>,
}

/// Greedy and sampled requests, some for several sequences, some for context logits, many of one prefix.
pub fn requests(count: usize) -> Vec<Request> {
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
pub fn alone(engine: &Arc<Engine>, requests: &[Request], base: &ExecutorConfig) -> Vec<Said> {
    let config = ExecutorConfig { max_batch_size: 1, prefix_reuse: false, ..base.clone() };
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
pub fn compare(
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
