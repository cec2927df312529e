//! How an executor with its threads ends: shut down, dropped, broken by a panic or by a lost device.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::clients::{PATIENCE, await_end, endless, executor, fake, request, slow, status};
use super::fake::{Fake, Faults};
use super::{ExecutorConfig, FinishReason, Response};
use crate::Status;

#[test]
fn shutdown_gives_everybody_one_last_response() {
    let executor = executor(slow(), ExecutorConfig { max_batch_size: 2, ..ExecutorConfig::default() });
    let ids = [(); 5].map(|()| executor.submit(endless()).unwrap());
    let (tell, told) = mpsc::channel();
    let callback = move |response: Response| tell.send((response.last, response.finish)).unwrap();
    executor.submit_with_callback(endless(), Box::new(callback)).unwrap();
    thread::sleep(Duration::from_millis(20));
    executor.shutdown().unwrap();
    executor.shutdown().unwrap();
    let called: Vec<_> = told.iter().collect();
    assert_eq!(called.iter().filter(|(last, _)| *last).collect::<Vec<_>>(), [&(true, Some(FinishReason::Cancelled))]);
    for id in ids {
        let responses = await_end(&executor, id);
        assert_eq!(responses.last().unwrap().finish, Some(FinishReason::Cancelled));
    }
    assert_eq!(status(executor.submit(endless())), Status::ShuttingDown);
    assert_eq!(status(executor.await_responses(None, None, 1)), Status::ShuttingDown);
    assert_eq!((status(executor.health()), executor.stats().kv.used), (Status::ShuttingDown, 0));
}

#[test]
fn shutdown_wakes_who_waits_for_anything() {
    let executor = executor(fake(40), ExecutorConfig::default());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| executor.await_responses(None, None, 1));
        thread::sleep(Duration::from_millis(10));
        executor.shutdown().unwrap();
        assert_eq!(status(waiting.join().unwrap()), Status::ShuttingDown);
    });
}

/// Each way for a model to end the loop, with and without a step in flight behind it.
fn fatal(faults: Faults) -> [Fake; 4] {
    let faulty = |late| Fake { faults: Faults { late, ..faults }, ..slow() };
    [faulty(false), faulty(true), faulty(false).ahead(100), faulty(true).ahead(100)]
}

/// Every request of a broken executor ends with `expected`, and so does whatever comes later.
fn ends_with(broken: Fake, expected: Status) {
    let executor = executor(broken, ExecutorConfig { max_batch_size: 1, ..ExecutorConfig::default() });
    let ids = [(); 3].map(|()| executor.submit(endless()).unwrap());
    for id in ids {
        let responses = await_end(&executor, id);
        let end = responses.last().unwrap();
        assert_eq!((end.finish, end.error.as_ref().unwrap().status()), (Some(FinishReason::Error), expected));
    }
    assert_eq!((status(executor.health()), status(executor.submit(request(&[1], 1)))), (expected, expected));
    assert_eq!(status(executor.await_responses(None, None, 1)), expected);
    executor.shutdown().unwrap();
}

#[test]
fn a_panic_in_the_loop_ends_every_request() {
    let panicking = fatal(Faults { panic_at: Some(200), ..Faults::default() });
    panicking.into_iter().for_each(|fake| ends_with(fake, Status::Panic));
}

#[test]
fn a_lost_device_ends_every_request() {
    let lost = fatal(Faults { lost_at: Some(200), ..Faults::default() });
    lost.into_iter().for_each(|fake| ends_with(fake, Status::DeviceLost));
}

#[test]
fn a_failing_step_shows_in_health_until_one_succeeds() {
    let mut broken = fake(40);
    broken.faults = Faults { error_at: Some(1), ..Faults::default() };
    let executor = executor(broken, ExecutorConfig::default());
    let id = executor.submit(request(&[1], 9)).unwrap();
    assert_eq!(await_end(&executor, id).last().unwrap().error.as_ref().unwrap().status(), Status::Internal);
    assert_eq!(status(executor.health()), Status::Internal);
    let id = executor.submit(request(&[1], 9)).unwrap();
    await_end(&executor, id);
    executor.health().unwrap();
}

#[test]
fn a_callback_may_own_the_executor_to_the_end() {
    let executor = Arc::new(executor(fake(40), ExecutorConfig::default()));
    let (owner, (tell, told)) = (executor.clone(), mpsc::channel());
    let (go, gate) = mpsc::channel::<()>();
    let callback = move |response: Response| {
        if response.last {
            gate.recv().unwrap();
            tell.send(Arc::strong_count(&owner)).unwrap();
        }
    };
    executor.submit_with_callback(request(&[1], 2), Box::new(callback)).unwrap();
    drop(executor);
    go.send(()).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE.unwrap()), Ok(1));
    // The channel closes when the callback, and with it the executor, is gone.
    assert_eq!(told.recv_timeout(PATIENCE.unwrap()), Err(mpsc::RecvTimeoutError::Disconnected));
}
