//! A model that works one step ahead: what is launched behind a step whose tokens nobody has seen, and what becomes of it
//! when a request ends, a step fails or the device is lost.

use std::time::Instant;

use proptest::prelude::*;

use super::alone::{EOS, expected};
use super::fake::{Faults, STEP_TIME, id};
use super::traces::{
    Arrival, Outcome, Setting, arrival, check, core, crowded, plain, run, run_to_end, setting, tiny, tokens_of,
};
use super::{FinishReason, Input, Response};
use crate::error::Status;
use crate::executor::plan::{Chooser, StepLimits, StepPlan};
use crate::executor::scheduler::Scheduler;
use crate::executor::task::{Flying, Task, TaskId};
use crate::kv::{GroupSpec, KvConfig, KvManager, PrefixKey};
use crate::sampling::SamplingParams;

/// Checks what holds on a faulty model too: one last response, and nothing said that the request alone would not say.
fn check_faulty(setting: &Setting, arrival: &Arrival, responses: &[Response]) {
    let Input::Tokens(prompt) = &arrival.request.input else { panic!("traces submit tokens") };
    assert_eq!(responses.iter().filter(|r| r.last).count(), usize::from(!responses.is_empty()));
    assert!(responses.last().is_none_or(|r| r.last && r.finish.is_some()));
    for sequence in 0..arrival.request.sampling.n {
        let alone = expected(prompt, &arrival.request.sampling, sequence, &setting.windows);
        assert!(alone.is_none_or(|alone| alone.starts_with(&tokens_of(responses, sequence))));
    }
}

fn faults() -> impl Strategy<Value = Faults> {
    let at = || prop::option::of(0usize..40);
    (at(), at(), any::<bool>()).prop_map(|(error_at, lost_at, late)| Faults {
        error_at,
        lost_at,
        late,
        ..Faults::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn faults_end_what_they_concern_and_nothing_twice(
        setting in setting(),
        faults in faults(),
        trace in prop::collection::vec(arrival(), 1..7),
    ) {
        let outcome = run_to_end(&Setting { faults, ..setting.clone() }, &trace);
        let status = |at: usize| outcome.errors.get(at).map(crate::Error::status);
        let lost = outcome.errors.iter().position(|e| e.status() == Status::DeviceLost);
        prop_assert!(lost.is_none_or(|at| at + 1 == outcome.errors.len() && at < 2));
        prop_assert!(outcome.errors.len() < 2 || status(0) == Some(Status::Internal));
        for (arrival, responses) in trace.iter().zip(&outcome.responses) {
            check_faulty(&setting, arrival, responses);
        }
    }
}

/// The setting of a device that works ahead.
fn ahead() -> Setting {
    Setting { depth: 2, sampling: Some(100), blocks: 40, ..tiny(true) }
}

#[test]
fn the_host_sees_a_token_when_the_next_step_is_launched() {
    let first_seen = |setting: &Setting| {
        let (mut core, intake) = core(setting);
        let (now, mut out) = (Instant::now(), Vec::new());
        core.add(intake.accept(id(0), plain(vec![1, 2, 3], 5), now).unwrap(), now, &mut out);
        (1..).find(|_| core.step(now, &mut out).unwrap().is_some() && !out.is_empty()).unwrap()
    };
    assert_eq!((first_seen(&tiny(true)), first_seen(&ahead())), (1, 2));
}

#[test]
fn a_device_without_requests_does_not_wait() {
    for setting in [tiny(true), ahead()] {
        let (mut core, intake) = core(&setting);
        let (now, mut out) = (Instant::now(), Vec::new());
        for request in 0..3 {
            core.add(intake.accept(id(request), plain(vec![1, 2, 3], 4), now).unwrap(), now, &mut out);
            while !core.is_idle() {
                let iteration = core.step(now, &mut out).unwrap();
                assert!(iteration.is_none_or(|iteration| iteration.device == STEP_TIME.device));
            }
            // Nothing to do, and the loop looks nevertheless.
            assert!(core.step(now, &mut out).unwrap().is_none());
        }
        let (stats, steps) = (core.stats(), 3 * 4);
        assert_eq!((stats.iterations, stats.last_step_device), (u64::from(steps), STEP_TIME.device));
        assert_eq!((stats.device_busy, stats.device_idle), (steps * STEP_TIME.device, (steps - 3) * STEP_TIME.idle));
    }
}

#[test]
fn no_step_computes_what_the_length_excludes() {
    for setting in [tiny(false), ahead(), Setting { sampling: None, ..ahead() }] {
        for max_tokens in 1..5 {
            let trace = [Arrival { request: plain(vec![1, 2, 3], max_tokens), at: 0, cancel_at: None }];
            let outcome = run(&setting, &trace);
            check(&setting, &trace[0], &outcome.responses[0]);
            assert_eq!(outcome.computed, 3 + max_tokens as usize - 1);
        }
    }
}

#[test]
fn a_stop_costs_one_row_that_nobody_sees() {
    let eos = |prompt: &Vec<u32>| {
        let params = SamplingParams { max_tokens: 40, ..SamplingParams::default() };
        expected(prompt, &params, 0, &[None]).filter(|tokens| tokens.last() == Some(&EOS))
    };
    let prompt = (0..100).map(|i| vec![i % 20, i / 20]).find(|prompt| eos(prompt).is_some()).unwrap();
    let said = eos(&prompt).unwrap();
    let mut request = plain(prompt, 40);
    request.sampling.ignore_eos = false;
    let outcome = |setting: &Setting| run(setting, &[Arrival { request: request.clone(), at: 0, cancel_at: None }]);
    for (setting, wasted) in [(Setting { blocks: 40, ..tiny(true) }, 0), (ahead(), 1)] {
        let Outcome { responses, computed, .. } = outcome(&setting);
        assert_eq!((tokens_of(&responses[0], 0), computed), (said.clone(), 2 + said.len() - 1 + wasted));
        assert_eq!(responses[0].last().unwrap().finish, Some(FinishReason::Eos));
    }
}

#[test]
fn a_lost_device_ends_every_request_with_that_status() {
    for (late, depth) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
        for lost_at in 0..12 {
            let faults = Faults { lost_at: Some(lost_at), late, ..Faults::default() };
            let outcome = run_to_end(&Setting { faults, depth, ..ahead() }, &crowded());
            assert_eq!(outcome.errors.iter().map(crate::Error::status).collect::<Vec<_>>(), [Status::DeviceLost]);
            let last = |responses: &Vec<Response>| responses.last().map(|r| (r.finish, r.error.clone()));
            let ends: Vec<_> = outcome.responses.iter().filter_map(last).collect();
            assert!(ends.iter().any(|(_, error)| error.is_some()));
            for (finish, error) in ends {
                let error = error.map(|e| e.status());
                assert!(finish == Some(FinishReason::Length) || error == Some(Status::DeviceLost));
            }
        }
    }
}

#[test]
fn a_failed_step_spares_who_is_only_in_the_next() {
    let faults = Faults { error_at: Some(0), late: true, ..Faults::default() };
    let (mut core, intake) = core(&Setting { faults, ..ahead() });
    let (now, mut out) = (Instant::now(), Vec::new());
    core.add(intake.accept(id(0), plain(vec![1, 2, 3], 5), now).unwrap(), now, &mut out);
    assert_eq!(core.step(now, &mut out), Ok(None));
    core.add(intake.accept(id(1), plain(vec![4, 5], 5), now).unwrap(), now, &mut out);
    core.step(now, &mut out).unwrap_err();
    while !core.is_idle() {
        core.step(now, &mut out).unwrap();
        core.verify();
    }
    let ends: Vec<_> = out.iter().filter(|r| r.last).map(|r| (r.request, r.finish.unwrap())).collect();
    assert_eq!(ends, [(id(0), FinishReason::Error), (id(1), FinishReason::Length)]);
}

#[test]
fn what_is_in_flight_is_not_admitted_again() {
    let groups = vec![GroupSpec { window: None }];
    let config = KvConfig { block_tokens: 2, blocks: 4, groups, prefix_reuse: false, sequence_tokens: 8, sequences: 2 };
    let limits = StepLimits { rows: 2, tokens: 8, logit_rows: 2, depth: 2 };
    let mut scheduler = Scheduler::new(KvManager::new(config).unwrap(), limits).unwrap();
    let task = |number: usize, tokens: usize| Task {
        id: TaskId { request: id(number), sequence: 0 },
        tokens: vec![0; tokens],
        key: PrefixKey::default(),
        reuse: false,
        logits_from: usize::MAX,
        most: 8,
        flying: Flying::default(),
    };
    let (old, young) = (task(0, 5), task(1, 1));
    let (old_id, young_id) = (old.id, young.id);
    scheduler.add(old);
    scheduler.add(young);
    let mut launched = Vec::new();
    for _ in 0..2 {
        let mut plan = StepPlan::default();
        scheduler.plan(&mut plan);
        plan.rows.iter_mut().for_each(|row| row.chooser = Chooser::Device { keeps_logits: false });
        plan.rows.iter().for_each(|row| scheduler.launch(row));
        launched.push(plan.rows);
    }
    for row in &launched[0] {
        assert!(scheduler.land(row));
        scheduler.commit(row).unwrap();
        scheduler.push(row.task, 0);
    }
    // The old one needs a block of the young one, whose last row has not landed; the step then fails at its launch.
    let mut plan = StepPlan::default();
    scheduler.plan(&mut plan);
    assert_eq!(plan.preempted, [young_id]);
    scheduler.remove(old_id, true);
    scheduler.plan(&mut plan);
    assert_eq!(plan.rows, []);
    let row = launched[1].iter().find(|row| row.task == young_id).unwrap();
    assert!(scheduler.land(row));
    scheduler.commit(row).unwrap();
    scheduler.push(young_id, 0);
    scheduler.plan(&mut plan);
    assert_eq!((plan.admitted.as_slice(), plan.tokens()), ([young_id].as_slice(), 3));
}
