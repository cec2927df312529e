//! The executor with its threads: clients that submit, cancel, await, call back, stop caring or shut it down.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::alone::{POISON, expected};
use super::fake::Fake;
use super::{Executor, ExecutorConfig, FinishReason, Input, Request, RequestId, Response};
use crate::Status;
use crate::engine::Limits;
use crate::sampling::{LogitBias, SamplingParams};

/// Longer than anything here takes; what hangs fails instead.
pub(super) const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

pub(super) fn fake(blocks: usize) -> Fake {
    Fake::new(Limits { tokens: 8, logit_rows: 4, rows: 4, kv_blocks: blocks }, 2, &[None])
}

pub(super) fn executor(fake: Fake, config: ExecutorConfig) -> Executor {
    Executor::new(fake.parts(config)).unwrap()
}

pub(super) fn request(prompt: &[u32], max_tokens: u32) -> Request {
    let logit_bias = vec![LogitBias { token: POISON, bias: f32::NEG_INFINITY }];
    let sampling = SamplingParams { max_tokens, logit_bias, ignore_eos: true, ..SamplingParams::default() };
    Request { sampling, ..Request::new(Input::Tokens(prompt.to_vec())) }
}

/// A model on which [`endless`] does not end within a test.
pub(super) fn slow() -> Fake {
    Fake { delay: Duration::from_millis(1), ..fake(4000) }
}

pub(super) fn endless() -> Request {
    request(&[1, 2, 3], 4000)
}

pub(super) fn await_end(executor: &Executor, id: RequestId) -> Vec<Response> {
    let mut all = Vec::new();
    while !all.last().is_some_and(|r: &Response| r.last) {
        all.extend(executor.await_responses(Some(id), PATIENCE, 3).unwrap());
    }
    all
}

pub(super) fn status<T: std::fmt::Debug>(result: crate::Result<T>) -> Status {
    result.unwrap_err().status()
}

#[test]
fn clients_on_many_threads_get_what_they_would_alone() {
    serve_many(fake(24));
}

#[test]
fn clients_on_many_threads_get_the_same_of_a_device_that_works_ahead() {
    serve_many(fake(24).ahead(9));
}

fn serve_many(fake: Fake) {
    let executor = executor(fake, ExecutorConfig::default());
    thread::scope(|scope| {
        for client in 0..4u32 {
            let executor = &executor;
            scope.spawn(move || {
                for round in 0..40u32 {
                    let prompt: Vec<u32> = (0..1 + (client * 7 + round) % 9).collect();
                    let submitted = request(&prompt, 1 + round % 12);
                    let id = executor.submit(submitted.clone()).unwrap();
                    let cancelled = round % 5 == client;
                    if cancelled {
                        executor.cancel(id).unwrap();
                    }
                    let responses = await_end(executor, id);
                    let tokens: Vec<u32> = responses.iter().flat_map(|r| r.tokens.clone()).collect();
                    let alone = expected(&prompt, &submitted.sampling, 0, &[None]).unwrap();
                    assert!(if cancelled { alone.starts_with(&tokens) } else { alone == tokens });
                    assert_eq!(status(executor.await_responses(Some(id), PATIENCE, 1)), Status::NotFound);
                    executor.cancel(id).unwrap();
                }
            });
        }
    });
    let stats = executor.stats();
    assert_eq!((stats.requests, stats.kv.used, stats.running, stats.waiting), (0, 0, 0, 0));
    assert_eq!(stats.totals.completed + stats.totals.cancelled, 160);
    let iterations = executor.take_iteration_stats().unwrap();
    assert_eq!(iterations.last().unwrap().iteration, stats.iterations);
    assert!(executor.take_iteration_stats().unwrap().is_empty());
}

#[test]
fn any_awaits_every_request_once() {
    let executor = executor(fake(40), ExecutorConfig::default());
    let ids: Vec<RequestId> = (1..9).map(|n| executor.submit(request(&[n], n)).unwrap()).collect();
    let mut ends = HashMap::<RequestId, usize>::new();
    while ends.len() < ids.len() {
        for response in executor.await_responses(None, PATIENCE, 5).unwrap() {
            *ends.entry(response.request).or_default() += usize::from(response.last);
            ends.retain(|_, n| *n > 0);
        }
    }
    assert!(ids.iter().all(|id| ends[id] == 1));
    assert_eq!(status(executor.await_responses(None, Some(Duration::from_millis(5)), 1)), Status::Timeout);
}

#[test]
fn a_request_without_streaming_answers_once() {
    let executor = executor(fake(40), ExecutorConfig::default());
    let mut request = Request { stream: false, ..request(&[4, 5], 6) };
    request.sampling.n = 2;
    let id = executor.submit(request).unwrap();
    let responses = await_end(&executor, id);
    assert_eq!(responses.iter().map(|r| (r.tokens.len(), r.finish.is_some())).collect::<Vec<_>>(), [(6, true); 2]);
}

#[test]
fn what_does_not_exist_is_said_at_once() {
    let executor = executor(fake(40), ExecutorConfig::default());
    for unknown in [RequestId(0), RequestId(77)] {
        assert_eq!(status(executor.await_responses(Some(unknown), None, 1)), Status::NotFound);
        assert_eq!(status(executor.cancel(unknown)), Status::NotFound);
    }
    assert_eq!(status(executor.await_responses(None, None, 0)), Status::InvalidArgument);
}

#[test]
fn the_queue_is_bounded_and_freed_by_taking_the_last_response() {
    let executor = executor(slow(), ExecutorConfig { max_batch_size: 1, max_queue: 1, ..ExecutorConfig::default() });
    let ids = [(); 2].map(|()| executor.submit(endless()).unwrap());
    assert_eq!(status(executor.submit(endless())), Status::QueueFull);
    executor.cancel(ids[1]).unwrap();
    await_end(&executor, ids[1]);
    executor.submit(endless()).unwrap();
}

#[test]
fn a_client_that_never_polls_costs_a_bounded_number_of_responses() {
    let config = ExecutorConfig { max_pending_responses: 4, ..ExecutorConfig::default() };
    let executor = executor(fake(200), config);
    let id = executor.submit(request(&[1], 300)).unwrap();
    while executor.stats().totals.completed == 0 {
        thread::yield_now();
    }
    let responses = executor.await_responses(Some(id), PATIENCE, usize::MAX).unwrap();
    assert_eq!(responses.len(), 5);
    assert_eq!(responses.iter().map(|r| r.tokens.len()).sum::<usize>(), 300);
}

#[test]
fn time_limits_hold_for_those_who_wait_too() {
    let executor = executor(slow(), ExecutorConfig { max_batch_size: 1, ..ExecutorConfig::default() });
    let limited = Request { time_limit: Some(Duration::from_millis(30)), ..endless() };
    executor.submit(endless()).unwrap();
    let id = executor.submit(limited).unwrap();
    let responses = await_end(&executor, id);
    assert_eq!((responses.len(), responses[0].finish), (1, Some(FinishReason::TimeLimit)));
}

/// Counts its own drops.
struct Owned(Arc<AtomicUsize>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn callbacks_run_on_one_other_thread_and_are_dropped_once() {
    let executor = executor(fake(40), ExecutorConfig::default());
    let (drops, (tell, told)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel());
    for n in 1..6 {
        let (owned, tell) = (Owned(drops.clone()), tell.clone());
        let callback = move |response: Response| {
            assert!(owned.0.load(Ordering::SeqCst) < 5);
            tell.send((thread::current().name().map(String::from), response)).unwrap();
        };
        let id = executor.submit_with_callback(request(&[n], n), Box::new(callback)).unwrap();
        if let Err(error) = executor.await_responses(Some(id), PATIENCE, 1) {
            assert!(matches!(error.status(), Status::InvalidArgument | Status::NotFound));
        }
    }
    drop(tell);
    let all: Vec<_> = told.iter().collect();
    executor.shutdown().unwrap();
    assert_eq!(drops.load(Ordering::SeqCst), 5);
    assert!(all.iter().all(|(name, _)| name.as_deref() == Some("trtllm-delivery")));
    assert_eq!(all.iter().filter(|(_, r)| r.last).count(), 5);
    assert_eq!(all.iter().map(|(_, r)| r.tokens.len()).sum::<usize>(), 1 + 2 + 3 + 4 + 5);
}

#[test]
fn a_refused_callback_is_dropped_before_the_error_returns() {
    let executor = executor(fake(40), ExecutorConfig::default());
    let drops = Arc::new(AtomicUsize::new(0));
    let owned = Owned(drops.clone());
    let callback = Box::new(move |_: Response| drop(owned.0.clone()));
    assert_eq!(status(executor.submit_with_callback(request(&[], 1), callback)), Status::InvalidArgument);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}

#[test]
fn a_callback_may_submit_and_cancel_but_not_shut_down() {
    let executor = Arc::new(executor(slow(), ExecutorConfig::default()));
    let (inner, (tell, told)) = (Arc::downgrade(&executor), mpsc::channel());
    let mut submitted = false;
    let callback = move |response: Response| {
        let executor = inner.upgrade().unwrap();
        if !submitted {
            submitted = true;
            assert_eq!(status(executor.shutdown()), Status::WouldDeadlock);
            tell.send((executor.submit(request(&[7], 2)).unwrap(), None)).unwrap();
            executor.cancel(response.request).unwrap();
        }
        if response.last {
            tell.send((response.request, response.finish)).unwrap();
        }
    };
    let id = executor.submit_with_callback(endless(), Box::new(callback)).unwrap();
    let (other, _) = told.recv_timeout(PATIENCE.unwrap()).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE.unwrap()).unwrap(), (id, Some(FinishReason::Cancelled)));
    assert_eq!(await_end(&executor, other).iter().map(|r| r.tokens.len()).sum::<usize>(), 2);
    executor.health().unwrap();
    executor.shutdown().unwrap();
}

#[test]
fn a_panicking_callback_loses_its_request_alone() {
    let executor = executor(slow(), ExecutorConfig::default());
    let drops = Arc::new(AtomicUsize::new(0));
    let owned = Owned(drops.clone());
    let callback = Box::new(move |_| panic!("a client's bug {}", owned.0.load(Ordering::SeqCst)));
    executor.submit_with_callback(endless(), callback).unwrap();
    while executor.stats().requests > 0 {
        thread::yield_now();
    }
    let id = executor.submit(request(&[2], 3)).unwrap();
    assert_eq!(await_end(&executor, id).last().unwrap().finish, Some(FinishReason::Length));
    assert_eq!((executor.stats().totals.cancelled, drops.load(Ordering::SeqCst)), (1, 1));
}
