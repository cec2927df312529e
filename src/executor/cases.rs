//! Single traces on the executor without threads: what happens at one moment to one request.

use std::time::Instant;

use super::alone::{EOS, POISON, expected};
use super::fake::{Fake, id};
use super::traces::{Arrival, Outcome, Setting, check, core, crowded, plain, run, tiny};
use super::{ExecutorConfig, FinishReason, Request, Response};
use crate::engine::Limits;
use crate::error::Status;
use crate::executor::parts::assemble;
use crate::sampling::SamplingParams;

fn preemptions(outcome: &Outcome) -> usize {
    outcome.responses.iter().flatten().map(|r| r.stats.preemptions).sum()
}

#[test]
fn cancelling_anyone_at_any_step_is_consistent() {
    for (reuse, depth, sampling) in [(false, 1, None), (true, 1, None), (false, 2, Some(9)), (true, 2, Some(9))] {
        let setting = Setting { depth, sampling, ..tiny(reuse) };
        let undisturbed = run(&setting, &crowded());
        assert!(reuse || preemptions(&undisturbed) > 0, "the trace is there to preempt");
        for victim in 0..3 {
            for step in 0..=undisturbed.steps {
                let mut trace = crowded();
                trace[victim].cancel_at = Some(step);
                let outcome = run(&setting, &trace);
                trace.iter().zip(&outcome.responses).for_each(|(a, r)| check(&setting, a, r));
            }
        }
    }
}

#[test]
fn equal_prompts_share_their_blocks() {
    let trace = [0, 4].map(|at| Arrival { request: plain((0..9).collect(), 3), at, cancel_at: None });
    let cached = |reuse| {
        let outcome = run(&tiny(reuse), &trace);
        outcome.responses.map_last_stats()
    };
    assert_eq!((cached(true), cached(false)), (vec![0, 8], vec![0, 0]));
}

trait LastStats {
    fn map_last_stats(&self) -> Vec<usize>;
}

impl LastStats for Vec<Vec<Response>> {
    fn map_last_stats(&self) -> Vec<usize> {
        self.iter().map(|r| r.last().unwrap().stats.cached_tokens).collect()
    }
}

#[test]
fn siblings_find_the_prompt_in_the_cache() {
    let (setting, mut request) = (tiny(true), plain((0..8).collect(), 2));
    request.sampling.n = 3;
    let (mut core, intake) = core(&setting);
    let (now, mut out) = (Instant::now(), Vec::new());
    core.add(intake.accept(id(0), request, now).unwrap(), now, &mut out);
    while !core.is_idle() {
        core.step(now, &mut out).unwrap();
    }
    assert_eq!(core.stats().prefix_hit_tokens, 2 * 6);
    assert_eq!(out.iter().filter(|r| r.finish.is_some()).count(), 3);
}

#[test]
fn nan_fails_one_request_and_is_forgotten() {
    let mut poisoned: Vec<u32> = (0..8).collect();
    poisoned[1] = POISON;
    let good = plain((0..8).collect(), 4);
    let arrival = |request: &Request, at| Arrival { request: request.clone(), at, cancel_at: None };
    let trace = [arrival(&plain(poisoned, 4), 0), arrival(&good, 0), arrival(&good, 20)];
    let setting = Setting { blocks: 30, ..tiny(true) };
    let outcome = run(&setting, &trace);
    trace.iter().zip(&outcome.responses).for_each(|(a, r)| check(&setting, a, r));
    let failed = outcome.responses[0].last().unwrap();
    assert_eq!(failed.error.as_ref().map(|e| e.status()), Some(Status::Numeric));
    // The poisoned prompt was computed in chunks; none of its blocks is found by a later request.
    let cached = run(&setting, &[trace[0].clone(), Arrival { at: 20, ..trace[0].clone() }]);
    assert_eq!(cached.responses[1].last().unwrap().stats.cached_tokens, 0);
}

#[test]
fn a_failed_forward_fails_its_rows_and_the_rest_goes_on() {
    let limits = Limits { tokens: 8, logit_rows: 4, rows: 4, kv_blocks: 40 };
    let mut fake = Fake::new(limits, 2, &[None]);
    fake.faults.error_at = Some(2);
    let (mut core, intake) = assemble(fake.parts(ExecutorConfig::default())).unwrap();
    let (now, mut out) = (Instant::now(), Vec::new());
    core.add(intake.accept(id(0), plain(vec![1, 2], 6), now).unwrap(), now, &mut out);
    let failures = (0..4).filter(|_| core.step(now, &mut out).is_err()).count();
    core.add(intake.accept(id(1), plain(vec![1, 2], 6), now).unwrap(), now, &mut out);
    while !core.is_idle() {
        core.step(now, &mut out).unwrap();
        core.verify();
    }
    assert_eq!(failures, 1);
    assert_eq!(
        out.iter().filter(|r| r.last).map(|r| r.finish.unwrap()).collect::<Vec<_>>(),
        [FinishReason::Error, FinishReason::Length]
    );
    assert_eq!(core.stats().kv.used, 0);
}

#[test]
fn time_limits_end_running_and_waiting_requests() {
    let (mut core, intake) = core(&Setting { rows: 1, ..tiny(true) });
    let (now, mut out) = (Instant::now(), Vec::new());
    let limit = std::time::Duration::from_secs(5);
    for number in 0..2 {
        let request = Request { time_limit: Some(limit), ..plain(vec![1, 2, 3], 10) };
        core.add(intake.accept(id(number), request, now).unwrap(), now, &mut out);
    }
    core.step(now, &mut out).unwrap();
    core.step(now + limit, &mut out).unwrap();
    assert!(core.is_idle());
    assert!(out.iter().filter(|r| r.last).all(|r| r.finish == Some(FinishReason::TimeLimit)));
    assert_eq!((core.stats().totals.expired, core.stats().kv.used), (2, 0));
}

#[test]
fn eos_ends_a_sequence_unless_it_is_ignored() {
    let prompt = (0..100).map(|i| vec![i % 20, i / 20]).find(|prompt| {
        let params = SamplingParams { max_tokens: 40, ..SamplingParams::default() };
        expected(prompt, &params, 0, &[None]).is_some_and(|tokens| tokens.last() == Some(&EOS))
    });
    let mut arrival = Arrival { request: plain(prompt.unwrap(), 40), at: 0, cancel_at: None };
    let setting = Setting { blocks: 40, ..tiny(true) };
    for (ignore_eos, finish) in [(false, FinishReason::Eos), (true, FinishReason::Length)] {
        arrival.request.sampling.ignore_eos = ignore_eos;
        let outcome = run(&setting, std::slice::from_ref(&arrival));
        check(&setting, &arrival, &outcome.responses[0]);
        assert_eq!(outcome.responses[0].last().unwrap().finish, Some(finish));
    }
}

#[test]
fn what_can_never_be_scheduled_fails_instead_of_spinning() {
    let (mut core, mut intake) = core(&tiny(true));
    intake.pool_tokens = usize::MAX;
    let (now, mut out) = (Instant::now(), Vec::new());
    core.add(intake.accept(id(0), plain(vec![1; 100], 1), now).unwrap(), now, &mut out);
    assert_eq!(core.step(now, &mut out).unwrap_err().status(), Status::Internal);
    assert!(core.is_idle() && out.last().unwrap().last);
}

#[test]
fn a_cancelled_request_gives_its_blocks_back_before_the_next_step() {
    let (mut core, intake) = core(&tiny(true));
    let (now, mut out) = (Instant::now(), Vec::new());
    core.add(intake.accept(id(0), plain((0..9).collect(), 3), now).unwrap(), now, &mut out);
    core.step(now, &mut out).unwrap();
    assert!(core.stats().kv.used > 0);
    core.cancel(id(0), now, &mut out);
    core.step(now, &mut out).unwrap();
    assert_eq!(core.stats().kv.used, 0);
}
