//! Many requests of every kind by several clients on the tiny model: each ends once, and nothing is left behind.
//!
//! `TRTLLM_SOAK_REQUESTS` sets how many; the long run is `TRTLLM_SOAK_REQUESTS=100000 cargo test --release --test soak`.

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{Random, engine, process_figure};
use trtllm::Status;
use trtllm::engine::Precision;
use trtllm::executor::{Executor, ExecutorConfig, FinishReason, Input, Request, RequestId, Response};

const CLIENTS: usize = 4;
const DEFAULT_REQUESTS: usize = 3_000;
/// From here on the bound on the growth of resident memory is the tight one; short runs still warm up when they measure.
const LONG_RUN: usize = 50_000;
const LONG_RUN_DRIFT_KIB: u64 = 1024;
const SHORT_RUN_DRIFT_KIB: u64 = 4 * 1024;

/// What the clients saw, all together.
#[derive(Debug, Default)]
struct Seen {
    accepted: AtomicUsize,
    refused: AtomicUsize,
    completed: AtomicUsize,
    cancelled: AtomicUsize,
    expired: AtomicUsize,
    stopped: AtomicUsize,
    tokens: AtomicUsize,
}

impl Seen {
    /// Counts a request by its last response.
    fn count(&self, last: &Response) {
        let counter = match last.finish.expect("a last response ends its sequence") {
            FinishReason::Eos | FinishReason::Stop | FinishReason::Length => &self.completed,
            FinishReason::Cancelled => &self.cancelled,
            FinishReason::TimeLimit => &self.expired,
            FinishReason::Error => panic!("{:?}", last.error),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if last.finish == Some(FinishReason::Stop) {
            self.stopped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn add(counter: &AtomicUsize, count: usize) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// The responses of one request as they come, and whether they make sense.
#[derive(Debug)]
struct Hearing {
    sequences: u32,
    most_tokens: usize,
    /// Tokens so far and whether the sequence has ended, by sequence.
    heard: HashMap<u32, (usize, bool)>,
    ended: bool,
}

impl Hearing {
    fn new(request: &Request) -> Self {
        let (sequences, most_tokens) = (request.sampling.n, request.sampling.max_tokens as usize);
        Self { sequences, most_tokens, heard: HashMap::new(), ended: false }
    }

    fn hear(&mut self, response: &Response, seen: &Seen) {
        assert!(!self.ended, "a response after the last: {response:?}");
        assert!(response.sequence < self.sequences, "{response:?}");
        let (tokens, ended) = self.heard.entry(response.sequence).or_default();
        assert!(!*ended, "a response after the sequence's last: {response:?}");
        *tokens += response.tokens.len();
        *ended = response.finish.is_some();
        assert!(*tokens <= self.most_tokens, "{response:?}");
        Seen::add(&seen.tokens, response.tokens.len());
        self.ended = response.last;
        if response.last {
            assert!(self.heard.values().all(|(_, ended)| *ended), "{:?}", self.heard);
            seen.count(response);
        }
    }
}

/// Hearings of requests with a callback, by the number its client gave it.
type Called = Arc<Mutex<HashMap<usize, Hearing>>>;

struct Client<'a> {
    executor: &'a Executor,
    seen: &'a Arc<Seen>,
    random: Random,
    awaited: Vec<(RequestId, Hearing)>,
    called: Called,
}

impl Client<'_> {
    /// Submits `count` requests in handfuls and hears all of them out.
    fn run(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            let handful = self.random.within(1..9).min(left);
            let ids: Vec<RequestId> = (0..handful).filter_map(|number| self.submit(number)).collect();
            let cancelled: Vec<_> = ids.into_iter().filter(|_| self.random.chance(20)).collect();
            for id in cancelled {
                if self.random.chance(70) {
                    thread::sleep(Duration::from_micros(self.random.within(0..4000) as u64));
                }
                self.executor.cancel(id).expect("the id was given");
            }
            self.hear_out();
            left -= handful;
        }
    }

    fn submit(&mut self, number: usize) -> Option<RequestId> {
        if self.random.chance(5) {
            self.submit_invalid();
            return None;
        }
        let (request, hearing) = self.request();
        let id = if self.random.chance(30) {
            self.called.lock().expect("no callback panics").insert(number, hearing);
            let (called, seen) = (Arc::clone(&self.called), Arc::clone(self.seen));
            let callback = move |response: Response| {
                let mut called = called.lock().expect("no callback panics");
                called.get_mut(&number).expect("it goes on").hear(&response, &seen);
            };
            self.executor.submit_with_callback(request, Box::new(callback)).expect("the request is sound")
        } else {
            let id = self.executor.submit(request).expect("the request is sound");
            self.awaited.push((id, hearing));
            id
        };
        Seen::add(&self.seen.accepted, 1);
        Some(id)
    }

    fn request(&mut self) -> (Request, Hearing) {
        let random = &mut self.random;
        let mut tokens = if random.chance(30) { vec![50; random.within(1..40)] } else { Vec::new() };
        let own = random.within(1..24);
        tokens.extend(random.tokens(own));
        let input = if random.chance(10) { Input::Text("Once upon a time".into()) } else { Input::Tokens(tokens) };
        let mut request = Request::new(input);
        request.stream = random.chance(50);
        let sampling = &mut request.sampling;
        sampling.max_tokens = random.within(1..17) as u32;
        sampling.n = if random.chance(10) { 2 } else { 1 };
        if random.chance(50) {
            sampling.temperature = 1.5;
            sampling.seed = random.next();
        }
        if random.chance(20) {
            sampling.stop_strings = ["e", " the", "."].map(str::to_string).into();
        }
        if random.chance(10) {
            sampling.logprobs = Some(2);
        }
        if random.chance(10) {
            request.time_limit = Some(Duration::from_micros(random.within(0..20_000) as u64));
        }
        let hearing = Hearing::new(&request);
        (request, hearing)
    }

    fn submit_invalid(&mut self) {
        let mut request = Request::new(Input::Tokens(vec![7; 4]));
        let status = match self.random.within(0..5) {
            0 => set(&mut request.input, Input::Tokens(Vec::new()), Status::InvalidArgument),
            1 => set(&mut request.input, Input::Tokens(vec![1000]), Status::InvalidArgument),
            2 => set(&mut request.sampling.temperature, f32::NAN, Status::InvalidArgument),
            3 => set(&mut request.sampling.n, 0, Status::InvalidArgument),
            _ => set(&mut request.input, Input::Tokens(vec![7; 2000]), Status::RequestTooLarge),
        };
        let refusal = if self.random.chance(50) {
            self.executor.submit(request)
        } else {
            self.executor.submit_with_callback(request, Box::new(|response| panic!("refused, yet {response:?}")))
        };
        assert_eq!(refusal.expect_err("the request is invalid").status(), status);
        Seen::add(&self.seen.refused, 1);
    }

    fn hear_out(&mut self) {
        for (id, mut hearing) in self.awaited.drain(..) {
            while !hearing.ended {
                let most = self.random.within(1..5);
                let responses = self.executor.await_responses(Some(id), Some(PATIENCE), most);
                responses.expect("every request ends").iter().for_each(|response| hearing.hear(response, self.seen));
            }
            let after = self.executor.await_responses(Some(id), Some(PATIENCE), 1);
            assert_eq!(after.expect_err("nothing follows the last response").status(), Status::NotFound);
        }
        let deadline = Instant::now() + PATIENCE;
        while self.called.lock().expect("no callback panics").values().any(|hearing| !hearing.ended) {
            assert!(Instant::now() < deadline, "a request with a callback never ended");
            thread::sleep(Duration::from_micros(200));
        }
        self.called.lock().expect("no callback panics").clear();
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

fn set<T, S>(place: &mut T, value: T, status: S) -> S {
    *place = value;
    status
}

/// What must not grow.
#[derive(Debug, Clone, Copy)]
struct Footprint {
    rss_kib: u64,
    threads: u64,
    files: usize,
}

impl Footprint {
    fn take() -> Self {
        let files = std::fs::read_dir("/proc/self/fd").expect("Linux has it").count();
        // Threads that were joined are still listed for a moment.
        let threads = (0..20).map(|_| {
            thread::sleep(Duration::from_millis(10));
            process_figure("Threads")
        });
        Self { rss_kib: process_figure("VmRSS"), threads: threads.min().unwrap_or(0), files }
    }
}

fn serve(executor: &Executor, seen: &Arc<Seen>, requests: usize, seed: u64) {
    thread::scope(|scope| {
        let start = |client| {
            let count = requests / CLIENTS + usize::from(client < requests % CLIENTS);
            let random = Random(seed * CLIENTS as u64 + client as u64);
            let mut client = Client { executor, seen, random, awaited: Vec::new(), called: Called::default() };
            scope.spawn(move || client.run(count))
        };
        // Joined one by one: the scope itself waits for the work, not for the threads' end.
        let clients: Vec<_> = (0..CLIENTS).map(start).collect();
        clients.into_iter().for_each(|client| client.join().expect("the client is content"));
    });
    wait_until_idle(executor);
}

/// The statistics follow the last response by a moment.
fn wait_until_idle(executor: &Executor) {
    let deadline = Instant::now() + PATIENCE;
    while executor.stats().kv.used + executor.stats().requests + executor.stats().running > 0 {
        assert!(Instant::now() < deadline, "never idle: {:?}", executor.stats());
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_request_ends_once_and_nothing_is_left() {
    let requests = std::env::var("TRTLLM_SOAK_REQUESTS").map_or(DEFAULT_REQUESTS, |n| n.parse().expect("a number"));
    // A pool so small that sequences are evicted and preempted all the time.
    let config = ExecutorConfig { kv_tokens: 160, max_batch_tokens: 64, threads: 2, ..ExecutorConfig::default() };
    let executor = Executor::load(engine("models/tiny", Precision::Bf16, &[]), config).expect("the engine loads");
    let blocks = executor.stats().kv.free;
    let (seen, start) = (Arc::new(Seen::default()), Instant::now());
    serve(&executor, &seen, requests / 10, 1);
    let warm = Footprint::take();
    serve(&executor, &seen, requests - requests / 10, 2);
    let end = Footprint::take();
    let stats = executor.stats();

    let drift = end.rss_kib.saturating_sub(warm.rss_kib);
    println!("{requests} requests in {:.1} s: {seen:?}", start.elapsed().as_secs_f32());
    println!("{warm:?} after the first tenth, {end:?} at the end; {}", stats.to_json());
    let load = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let ended = [&seen.completed, &seen.cancelled, &seen.expired].map(load);
    assert_eq!(ended.iter().sum::<usize>(), load(&seen.accepted));
    assert_eq!(load(&seen.accepted) + load(&seen.refused), requests);
    let totals = [stats.totals.completed, stats.totals.cancelled, stats.totals.expired].map(|total| total as usize);
    assert_eq!((totals, stats.totals.failed), (ended, 0));
    assert!(ended.iter().all(|count| *count > 0) && load(&seen.stopped) > 0 && stats.totals.preemptions > 0);
    assert_eq!((stats.kv.used, stats.kv.free + stats.kv.cached), (0, blocks));
    assert_eq!((end.threads, end.files), (warm.threads, warm.files));
    let bound = if requests >= LONG_RUN { LONG_RUN_DRIFT_KIB } else { SHORT_RUN_DRIFT_KIB };
    assert!(drift <= bound, "resident memory grew by {drift} KiB");
}
