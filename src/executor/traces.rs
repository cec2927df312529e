//! Random concurrent traces on the executor without threads: every request must get what it gets when it is alone,
//! whatever else runs, however small the pool, whoever is cancelled; and the cache must stay consistent.

use std::time::Instant;

use proptest::prelude::*;

use super::alone::{POISON, expected, expected_logits};
use super::fake::{Fake, Faults, id};
use super::{ExecutorConfig, FinishReason, Input, Request, Response};
use crate::engine::Limits;
use crate::error::{Error, Status};
use crate::executor::core::Core;
use crate::executor::intake::Intake;
use crate::executor::parts::assemble;
use crate::sampling::{LogitBias, SamplingParams};

/// More steps than any of these traces needs; a livelock reaches it.
const MANY_STEPS: usize = 3000;

#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) rows: usize,
    pub(super) tokens: usize,
    pub(super) logit_rows: usize,
    pub(super) blocks: usize,
    pub(super) block_tokens: usize,
    pub(super) windows: Vec<Option<usize>>,
    pub(super) reuse: bool,
    /// Steps in flight, and the most adjustments if the model samples.
    pub(super) depth: usize,
    pub(super) sampling: Option<usize>,
    pub(super) faults: Faults,
}

#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) request: Request,
    pub(super) at: usize,
    pub(super) cancel_at: Option<usize>,
}

/// All that one trace delivered, by request.
pub(super) struct Outcome {
    pub(super) responses: Vec<Vec<Response>>,
    pub(super) steps: usize,
    /// Tokens that the model computed.
    pub(super) computed: usize,
    pub(super) errors: Vec<Error>,
}

impl Setting {
    pub(super) fn fake(&self) -> Fake {
        let Self { rows, tokens, logit_rows, blocks, block_tokens, depth, sampling, faults, .. } = *self;
        let limits = Limits { tokens, logit_rows: logit_rows.max(rows), rows, kv_blocks: blocks };
        Fake { depth, sampling, faults, ..Fake::new(limits, block_tokens, &self.windows) }
    }
}

pub(super) fn core(setting: &Setting) -> (Core, Intake) {
    let config = ExecutorConfig { prefix_reuse: setting.reuse, ..ExecutorConfig::default() };
    assemble(setting.fake().parts(config)).unwrap()
}

/// Runs a trace on a model without faults.
pub(super) fn run(setting: &Setting, trace: &[Arrival]) -> Outcome {
    let outcome = run_to_end(setting, trace);
    assert_eq!(outcome.errors, []);
    outcome
}

/// Runs a trace to its end, or until the device is lost; requests that the pool can never hold, and those that come after
/// the loss, are refused and have no responses.
pub(super) fn run_to_end(setting: &Setting, trace: &[Arrival]) -> Outcome {
    let (mut core, intake) = core(setting);
    let (now, mut out) = (Instant::now(), Vec::new());
    let last_event = trace.iter().map(|a| a.at.max(a.cancel_at.unwrap_or(0))).max().unwrap_or(0);
    let (mut step, mut computed, mut errors) = (0, 0, Vec::new());
    while step <= last_event || !core.is_idle() {
        for (number, arrival) in trace.iter().enumerate() {
            if arrival.at == step {
                let job = intake.accept(id(number), arrival.request.clone(), now);
                job.into_iter().for_each(|job| core.add(job, now, &mut out));
            }
            if arrival.cancel_at == Some(step) {
                core.cancel(id(number), now, &mut out);
            }
        }
        match core.step(now, &mut out) {
            Ok(iteration) => computed += iteration.map_or(0, |i| i.tokens),
            Err(error) => errors.push(error),
        }
        core.verify();
        step += 1;
        assert!(step < MANY_STEPS, "livelock");
        if errors.last().is_some_and(|e| e.status() == Status::DeviceLost) {
            assert!(core.is_idle());
            break;
        }
    }
    assert_eq!((core.stats().kv.used, core.stats().running, core.stats().waiting), (0, 0, 0));
    let of = |number| out.iter().filter(|r| r.request == id(number)).cloned().collect();
    Outcome { responses: (0..trace.len()).map(of).collect(), steps: step, computed, errors }
}

pub(super) fn tokens_of(responses: &[Response], sequence: u32) -> Vec<u32> {
    responses.iter().filter(|r| r.sequence == sequence).flat_map(|r| r.tokens.clone()).collect()
}

/// Checks one request's responses against the request run alone.
pub(super) fn check(setting: &Setting, arrival: &Arrival, responses: &[Response]) {
    let Input::Tokens(prompt) = &arrival.request.input else { panic!("traces submit tokens") };
    let params = &arrival.request.sampling;
    if responses.is_empty() {
        return;
    }
    assert_eq!(responses.iter().filter(|r| r.last).count(), 1);
    let last = responses.last().unwrap();
    assert!(last.last && last.finish.is_some());
    let generated: usize = responses.iter().map(|r| r.tokens.len()).sum();
    assert_eq!((last.stats.prompt_tokens, last.stats.generated_tokens), (prompt.len(), generated));
    for sequence in 0..params.n {
        let ours = tokens_of(responses, sequence);
        let finish = responses.iter().filter(|r| r.sequence == sequence).find_map(|r| r.finish);
        match (expected(prompt, params, sequence, &setting.windows), finish) {
            (None, finish) => assert!(matches!(finish, Some(FinishReason::Error | FinishReason::Cancelled) | None)),
            (Some(alone), Some(FinishReason::Eos | FinishReason::Length)) => assert_eq!(ours, alone),
            (Some(alone), Some(FinishReason::Cancelled) | None) => {
                assert!(arrival.cancel_at.is_some() || last.finish == Some(FinishReason::Error));
                assert!(alone.starts_with(&ours));
            }
            // Another sequence of this request ran into NaN.
            (Some(alone), Some(FinishReason::Error)) => {
                assert!((0..params.n).any(|s| expected(prompt, params, s, &setting.windows).is_none()));
                assert!(alone.starts_with(&ours));
            }
            (_, finish) => panic!("{finish:?}"),
        }
    }
    check_logits(setting, arrival, prompt, responses);
}

fn check_logits(setting: &Setting, arrival: &Arrival, prompt: &[u32], responses: &[Response]) {
    let context: Vec<f32> = responses.iter().flat_map(|r| r.context_logits.clone()).collect();
    if arrival.request.return_context_logits && !context.is_empty() && !prompt.contains(&POISON) {
        let all: Vec<f32> =
            (1..=prompt.len()).flat_map(|end| expected_logits(&prompt[..end], &setting.windows)).collect();
        assert!(context == all, "context logits differ");
    }
    for sequence in 0..arrival.request.sampling.n {
        let of_sequence = || responses.iter().filter(|r| r.sequence == sequence);
        if arrival.request.return_generation_logits && of_sequence().all(|r| r.error.is_none()) {
            let logits: Vec<f32> = of_sequence().flat_map(|r| r.generation_logits.clone()).collect();
            let said = [prompt, &tokens_of(responses, sequence)].concat();
            let all = (prompt.len()..said.len()).flat_map(|end| expected_logits(&said[..end], &setting.windows));
            assert!(logits == all.collect::<Vec<f32>>(), "generation logits differ");
        }
    }
    for r in responses.iter().filter(|_| arrival.request.sampling.logprobs.is_some()) {
        assert!(r.logprobs.iter().map(|info| info.chosen.token).eq(r.tokens.iter().copied()));
    }
}

pub(super) fn setting() -> impl Strategy<Value = Setting> {
    let windows = prop::sample::select(vec![vec![None], vec![Some(3)], vec![None, Some(5)], vec![Some(1), Some(7)]]);
    let device = (1usize..3, prop::option::weighted(0.8, prop::sample::select(vec![0usize, 9, 60, 1000])));
    (1usize..5, 1usize..9, 1usize..9, 3usize..30, 1usize..5, windows, any::<bool>(), device).prop_map(
        |(rows, tokens, logit_rows, blocks, block_tokens, windows, reuse, (depth, sampling))| Setting {
            rows: rows.min(tokens),
            tokens,
            logit_rows,
            blocks,
            block_tokens,
            windows,
            reuse,
            depth,
            sampling,
            faults: Faults::default(),
        },
    )
}

pub(super) fn arrival() -> impl Strategy<Value = Arrival> {
    // Prompts are beginnings of a few texts, so that prefixes are shared; sometimes one holds the poison.
    let prompt = (0u32..3, 1usize..16, prop::option::weighted(0.1, any::<prop::sample::Index>())).prop_map(
        |(text, len, poison)| {
            let mut prompt: Vec<u32> = (0..len as u32).map(|i| (i * (text + 3) + text) % 20).collect();
            if let Some(at) = poison {
                prompt[at.index(len)] = POISON;
            }
            prompt
        },
    );
    let logprobs = prop::option::weighted(0.2, 0u32..3);
    let params = (0u32..2, 0u64..3, 1u32..12, 1u32..4, any::<bool>(), 0u32..4, logprobs).prop_map(
        |(temperature, seed, max_tokens, n, penalised, min_tokens, logprobs)| SamplingParams {
            temperature: temperature as f32,
            seed,
            max_tokens,
            n,
            min_tokens: min_tokens.min(max_tokens),
            repetition_penalty: if penalised { 1.3 } else { 1.0 },
            presence_penalty: if penalised { 0.2 } else { 0.0 },
            logprobs,
            // The model may choose the poison; those requests fail, the others must not.
            ..SamplingParams::default()
        },
    );
    let flags = (any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.2), 0u8..2);
    (prompt, params, flags, 0usize..12, prop::option::weighted(0.25, 0usize..30)).prop_map(
        |(prompt, sampling, (stream, context, generation, salt), at, cancel)| Arrival {
            request: Request {
                sampling,
                stream,
                return_context_logits: context,
                return_generation_logits: generation,
                salt: vec![salt],
                ..Request::new(Input::Tokens(prompt))
            },
            at,
            cancel_at: cancel.map(|c| at + c),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn nobody_notices_the_others(setting in setting(), trace in prop::collection::vec(arrival(), 1..7)) {
        let outcome = run(&setting, &trace);
        for (arrival, responses) in trace.iter().zip(&outcome.responses) {
            check(&setting, arrival, responses);
        }
    }
}

pub(super) fn plain(prompt: Vec<u32>, max_tokens: u32) -> Request {
    let logit_bias = vec![LogitBias { token: POISON, bias: f32::NEG_INFINITY }];
    let sampling = SamplingParams { max_tokens, logit_bias, ignore_eos: true, ..SamplingParams::default() };
    Request { sampling, ..Request::new(Input::Tokens(prompt)) }
}

pub(super) fn tiny(reuse: bool) -> Setting {
    Setting {
        rows: 3,
        tokens: 5,
        logit_rows: 3,
        blocks: 12,
        block_tokens: 2,
        windows: vec![None],
        reuse,
        depth: 1,
        sampling: None,
        faults: Faults::default(),
    }
}

/// Three requests that together exceed the pool, so that the youngest is preempted.
pub(super) fn crowded() -> Vec<Arrival> {
    let text = |start: u32| (start..start + 7).collect::<Vec<u32>>();
    let arrival = |at, start| Arrival { request: plain(text(start), 9), at, cancel_at: None };
    vec![arrival(0, 0), arrival(1, 0), arrival(2, 5)]
}
