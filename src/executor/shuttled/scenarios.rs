//! Submit, await, cancel, callbacks and shutdown, all against each other.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::thread::{self, JoinHandle};
use shuttle::{Config, Runner};

use super::service::Executor;
use crate::Status;
use crate::executor::alone::expected;
use crate::executor::clients::{fake, request};
use crate::executor::{ExecutorConfig, FinishReason, RequestId, Response};

/// Schedules of each kind for each scenario, unless `TRTLLM_SCHEDULES` says how many.
const DEFAULT_SCHEDULES: usize = 200;
/// Most preemptions of a schedule of the second kind.
const PREEMPTIONS: usize = 4;
const SEED: u64 = 2026;

/// Runs a scenario under many schedules; the same ones every time.
fn explore(scenario: fn()) {
    let schedules = std::env::var("TRTLLM_SCHEDULES").map_or(DEFAULT_SCHEDULES, |n| n.parse().expect("a number"));
    let run = |scheduler: Box<dyn Scheduler + Send>| {
        let mut config = Config::new();
        config.stack_size = 1 << 20;
        assert_eq!(Runner::new(scheduler, config).run(scenario), schedules);
    };
    run(Box::new(RandomScheduler::new_from_seed(SEED, schedules)));
    run(Box::new(PctScheduler::new_from_seed(SEED, PREEMPTIONS, schedules)));
}

fn executor(max_queue: usize) -> Arc<Executor> {
    let config = ExecutorConfig { max_batch_size: 2, max_queue, ..ExecutorConfig::default() };
    Arc::new(Executor::new(fake(12).ahead(9).parts(config)).unwrap())
}

/// Does something with the executor on a thread of its own.
fn spawn<T: Send + 'static>(
    executor: &Arc<Executor>,
    work: impl FnOnce(&Arc<Executor>) -> T + Send + 'static,
) -> JoinHandle<T> {
    let executor = executor.clone();
    thread::spawn(move || work(&executor))
}

/// All responses of a request.
fn hear_out(executor: &Executor, id: RequestId) -> Vec<Response> {
    let mut all: Vec<Response> = Vec::new();
    while !all.last().is_some_and(|response| response.last) {
        all.extend(executor.await_responses(Some(id), None, 2).unwrap());
    }
    assert_eq!(status(executor.await_responses(Some(id), None, 1)), Some(Status::NotFound));
    all
}

fn status<T>(result: crate::Result<T>) -> Option<Status> {
    result.err().map(|error| error.status())
}

fn is_empty(executor: &Executor) -> bool {
    let stats = executor.stats();
    (stats.requests, stats.running, stats.waiting, stats.kv.used) == (0, 0, 0, 0)
}

#[test]
fn clients_submit_await_and_cancel() {
    explore(|| {
        let executor = executor(4);
        let client = |number: u32| {
            spawn(&executor, move |executor| {
                let submitted = request(&[number, 7, 3], 2);
                let id = executor.submit(submitted.clone()).unwrap();
                if number == 1 {
                    executor.cancel(id).unwrap();
                }
                let responses = hear_out(executor, id);
                let tokens: Vec<u32> = responses.iter().flat_map(|response| response.tokens.clone()).collect();
                let alone = expected(&[number, 7, 3], &submitted.sampling, 0, &[None]).unwrap();
                let cut = responses.last().unwrap().finish == Some(FinishReason::Cancelled);
                assert!(if cut { number == 1 && alone.starts_with(&tokens) } else { alone == tokens });
            })
        };
        [1, 2].map(client).into_iter().for_each(|client| client.join().unwrap());
        executor.shutdown().unwrap();
        assert!(is_empty(&executor));
    });
}

#[test]
fn one_cancels_what_another_awaits() {
    explore(|| {
        let executor = executor(4);
        let id = executor.submit(request(&[5], 3)).unwrap();
        let canceller = spawn(&executor, move |executor| executor.cancel(id).unwrap());
        let responses = hear_out(&executor, id);
        assert_eq!(responses.iter().filter(|response| response.last).count(), 1);
        canceller.join().unwrap();
    });
}

#[test]
fn two_that_wait_for_anything_share_all_there_is() {
    explore(|| {
        let executor = executor(4);
        let one = |executor: &Arc<Executor>| executor.await_responses(None, None, 1).unwrap().remove(0);
        let listeners = [(); 2].map(|()| spawn(&executor, one));
        let ids = [1, 2].map(|token| executor.submit(request(&[token], 1)).unwrap());
        let mut heard = listeners.map(|listener| listener.join().unwrap().request);
        heard.sort();
        assert_eq!(heard, ids);
    });
}

#[test]
fn shutdown_meets_submit_await_and_shutdown() {
    explore(|| {
        let executor = executor(4);
        let client = spawn(&executor, |executor| match executor.submit(request(&[3, 4], 3)) {
            Ok(id) => assert_eq!(hear_out(executor, id).iter().filter(|response| response.last).count(), 1),
            Err(error) => assert_eq!(error.status(), Status::ShuttingDown),
        });
        let other = spawn(&executor, |executor| executor.shutdown().unwrap());
        executor.shutdown().unwrap();
        assert_eq!(status(executor.submit(request(&[1], 1))), Some(Status::ShuttingDown));
        client.join().unwrap();
        other.join().unwrap();
        assert!(is_empty(&executor));
    });
}

#[test]
fn shutdown_wakes_who_waits_for_anything() {
    explore(|| {
        let executor = executor(4);
        let listener = spawn(&executor, |executor| {
            let mut ends = 0;
            loop {
                match executor.await_responses(None, None, 2) {
                    Ok(responses) => ends += responses.iter().filter(|response| response.last).count(),
                    Err(error) => return (ends, error.status()),
                }
            }
        });
        executor.submit(request(&[3, 4], 2)).unwrap();
        executor.shutdown().unwrap();
        assert_eq!(listener.join().unwrap(), (1, Status::ShuttingDown));
    });
}

#[test]
fn a_full_queue_takes_more_when_an_end_was_taken() {
    explore(|| {
        let executor = Arc::new({
            let config = ExecutorConfig { max_batch_size: 1, max_queue: 0, ..ExecutorConfig::default() };
            Executor::new(fake(12).parts(config)).unwrap()
        });
        let client = |token: u32| {
            spawn(&executor, move |executor| {
                loop {
                    match executor.submit(request(&[token], 2)) {
                        Ok(id) => return hear_out(executor, id).len(),
                        Err(error) => assert_eq!(error.status(), Status::QueueFull),
                    }
                    thread::yield_now();
                }
            })
        };
        assert!([1, 2].map(client).map(|client| client.join().unwrap()).iter().all(|responses| *responses > 0));
    });
}

#[test]
fn waits_that_end_in_time_lose_nothing() {
    explore(|| {
        let executor = executor(4);
        let id = executor.submit(request(&[6], 2)).unwrap();
        let mut tokens = 0;
        loop {
            match executor.await_responses(Some(id), Some(Duration::ZERO), 1) {
                Ok(responses) => {
                    tokens += responses[0].tokens.len();
                    if responses[0].last {
                        break;
                    }
                }
                Err(error) => assert_eq!(error.status(), Status::Timeout),
            }
        }
        assert_eq!(tokens, 2);
    });
}

#[test]
fn callbacks_submit_and_cancel_while_the_executor_is_shut_down() {
    explore(|| {
        let (executor, heard) = (executor(4), Arc::new(Mutex::new(Vec::new())));
        let (inner, called) = (Arc::downgrade(&executor), heard.clone());
        let callback = move |response: Response| {
            if let Some(executor) = inner.upgrade().filter(|_| called.lock().unwrap().is_empty()) {
                assert_eq!(status(executor.shutdown()), Some(Status::WouldDeadlock));
                let submitted = executor.submit(request(&[8], 1)).map(|id| executor.cancel(id).unwrap());
                assert!(matches!(status(submitted), None | Some(Status::ShuttingDown)));
            }
            called.lock().unwrap().push(response.last);
        };
        executor.submit_with_callback(request(&[2, 3], 3), Box::new(callback)).unwrap();
        executor.shutdown().unwrap();
        let heard = heard.lock().unwrap();
        assert_eq!(heard.iter().filter(|last| **last).count(), 1);
        assert_eq!(heard.last(), Some(&true));
    });
}

#[test]
fn a_callback_is_the_last_owner() {
    explore(|| {
        let (executor, heard) = (executor(4), Arc::new(Mutex::new(0)));
        let (owner, ends) = (executor.clone(), heard.clone());
        let callback = move |response: Response| {
            let _owned = &owner;
            *ends.lock().unwrap() += usize::from(response.last);
        };
        executor.submit_with_callback(request(&[2], 2), Box::new(callback)).unwrap();
        let id = executor.submit(request(&[4], 2)).unwrap();
        hear_out(&executor, id);
        drop(executor);
        while Arc::strong_count(&heard) > 1 {
            thread::yield_now();
        }
        assert_eq!(*heard.lock().unwrap(), 1);
    });
}
