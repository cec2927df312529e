//! An executor whose GPU is lost: every request ends, health says so, and the rest of the process goes on.

use std::time::Duration;

use super::*;
use crate::backend::cuda::fake::Counts;
use crate::error::Status;
use crate::executor::{Executor, ExecutorConfig, FinishReason, Input, Request, RequestId, Response};
use crate::runtime::{DeviceOptions, OpenDevice};
use crate::sampling::SamplingParams;

const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

fn request(prompt: usize, max_tokens: u32) -> Request {
    let sampling = SamplingParams { max_tokens, ignore_eos: true, ..SamplingParams::default() };
    Request { sampling, ..Request::new(Input::Tokens(vec![3; prompt])) }
}

fn config() -> ExecutorConfig {
    ExecutorConfig { max_batch_size: 3, max_batch_tokens: 24, threads: 1, ..ExecutorConfig::default() }
}

/// All responses of a request up to its last.
fn responses(executor: &Executor, id: RequestId) -> Vec<Response> {
    let mut all = Vec::new();
    while !all.last().is_some_and(|response: &Response| response.last) {
        all.extend(executor.await_responses(Some(id), PATIENCE, 16).unwrap());
    }
    all
}

fn answers(executor: &Executor) {
    let all = responses(executor, executor.submit(request(30, 5)).unwrap());
    assert_eq!(all.last().unwrap().finish, Some(FinishReason::Length));
    assert_eq!(all.iter().map(|response| response.tokens.len()).sum::<usize>(), 5);
    executor.health().unwrap();
}

#[test]
fn a_lost_gpu_ends_every_request_and_nothing_else() {
    let cuda = engine(Target::Cuda);
    let cpu = Executor::load(engine(Target::Cpu), config()).unwrap();
    // Some are waiting, some are prefilled in chunks and some decode, whichever call it is.
    for nth in (1..400).step_by(29) {
        let driver = FakeDriver::new();
        let executor = Executor::load_on(OpenDevice::Cuda(device(&driver)), cuda.clone(), config()).unwrap();
        answers(&executor);
        driver.lose_at(nth);
        // The device may be lost before the last of them comes.
        let submitted = [40, 5, 17, 60, 1].map(|prompt| executor.submit(request(prompt, 190)));
        for id in submitted {
            let error = match id {
                Ok(id) => {
                    let all = responses(&executor, id);
                    assert_eq!(all.iter().filter(|response| response.last).count(), 1);
                    let last = all.into_iter().next_back().unwrap();
                    assert_eq!(last.finish, Some(FinishReason::Error), "call {nth}");
                    last.error.unwrap()
                }
                Err(error) => error,
            };
            assert_eq!(error.status(), Status::DeviceLost, "call {nth}");
        }
        assert_eq!(executor.health().unwrap_err().status(), Status::DeviceLost);
        assert_eq!(executor.submit(request(1, 1)).unwrap_err().status(), Status::DeviceLost);
        assert_eq!(executor.await_responses(None, PATIENCE, 1).unwrap_err().status(), Status::DeviceLost);
        executor.shutdown().unwrap();
        drop(executor);
        assert_eq!((driver.alive(), driver.used_bytes()), (Counts::default(), 0));
        answers(&cpu);
    }
}

#[test]
fn an_engine_for_cuda_says_so_when_a_cpu_is_asked_to_run_it() {
    let device = OpenDevice::new(Target::Cpu, &DeviceOptions { threads: 1, ..DeviceOptions::default() }).unwrap();
    let error = Executor::load_on(device, engine(Target::Cuda), config()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("cuda"), "{error}");
}
