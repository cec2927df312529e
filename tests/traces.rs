//! Seeded traces of several clients on the tiny model: the scripts of `src/executor/seeded`, with real threads and the
//! real clock. Whatever a request says, tokens and logits, is to the bit what it says alone.
//!
//! `TRTLLM_ENGINE_TRACES` sets how many; `TRTLLM_TRACE_SEED` runs one.

mod common;
#[path = "../src/executor/seeded/script.rs"]
mod script;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{Random, engine};
use script::{Cancel, Habit, Order, Script, Sizes, World};
use trtllm::engine::{BLOCK_TOKENS, Engine, Precision};
use trtllm::executor::{Executor, ExecutorConfig, FinishReason, Input, Request, RequestId, Response};
use trtllm::sampling::LogitBias;
use trtllm::{Error, Status};

const DEFAULT_TRACES: u64 = 20;
const WORLD: World = World {
    vocabulary: 6..1000,
    poison: None,
    block_tokens: BLOCK_TOKENS..BLOCK_TOKENS + 1,
    most: 40,
    letters: false,
    shutdowns: false,
};
/// What a step of a script is here.
const TICK: Duration = Duration::from_micros(300);
/// What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ticks for which a client repeats what the full queue refuses.
const REPEATS: usize = 20;

/// All responses so far; whoever receives one puts it here.
#[derive(Default)]
struct Heard(Mutex<HashMap<RequestId, Vec<Response>>>);

impl Heard {
    fn put(&self, response: Response) {
        let mut all = self.0.lock().expect("nobody panics here");
        all.entry(response.request).or_default().push(response);
    }

    /// Tokens of a request so far, and whether it is over.
    fn of(&self, id: RequestId) -> (usize, bool) {
        let all = self.0.lock().expect("nobody panics here");
        let responses = all.get(&id).map_or(&[][..], Vec::as_slice);
        (responses.iter().map(|r| r.tokens.len()).sum(), responses.last().is_some_and(|r| r.last))
    }
}

/// A request that was accepted.
struct Accepted {
    id: RequestId,
    request: Request,
    cancel: Option<Cancel>,
    cancelled: bool,
    /// Its callback fails, so that its end may not be heard.
    fails: bool,
    at: usize,
}

/// One client at work.
struct Player<'a> {
    executor: &'a Executor,
    heard: &'a Arc<Heard>,
    habit: Habit,
    pending: Vec<&'a Order>,
    accepted: Vec<Accepted>,
    tick: usize,
}

impl Player<'_> {
    fn play(mut self) -> Vec<Accepted> {
        let deadline = Instant::now() + PATIENCE;
        while !self.pending.is_empty() || !self.is_content() {
            self.submit();
            self.cancel();
            self.listen();
            thread::sleep(TICK);
            self.tick += 1;
            assert!(Instant::now() < deadline, "hang: {}", self.executor.stats().to_json());
        }
        self.accepted
    }

    /// Whether this client waits for nothing more.
    fn is_content(&self) -> bool {
        let over = |accepted: &Accepted| self.heard.of(accepted.id).1;
        matches!(self.habit, Habit::AtTheEnd | Habit::Fails { .. }) || self.accepted.iter().all(over)
    }

    fn submit(&mut self) {
        for order in std::mem::take(&mut self.pending) {
            if order.at > self.tick {
                self.pending.push(order);
                continue;
            }
            let request = Request { return_generation_logits: true, ..order.request.clone() };
            match self.hand_in(request.clone()) {
                Ok(id) => {
                    let (cancel, fails) = (order.cancel, matches!(self.habit, Habit::Fails { .. }));
                    self.accepted.push(Accepted { id, request, cancel, cancelled: false, fails, at: self.tick });
                }
                Err(error) if error.status() == Status::QueueFull && self.tick < order.at + REPEATS => {
                    self.pending.push(order);
                }
                Err(error) => assert!(matches!(error.status(), Status::QueueFull | Status::RequestTooLarge), "{error}"),
            }
        }
    }

    fn hand_in(&self, request: Request) -> Result<RequestId, Error> {
        let (heard, mut calls) = (Arc::clone(self.heard), 0);
        match self.habit {
            Habit::Callback => self.executor.submit_with_callback(request, Box::new(move |r| heard.put(r))),
            Habit::Fails { at } => {
                let callback = move |response| {
                    calls += 1;
                    if calls == at {
                        std::panic::resume_unwind(Box::new("a client's bug"));
                    }
                    heard.put(response);
                };
                self.executor.submit_with_callback(request, Box::new(callback))
            }
            _ => self.executor.submit(request),
        }
    }

    fn cancel(&mut self) {
        for accepted in &mut self.accepted {
            let (tokens, over) = self.heard.of(accepted.id);
            let due = match accepted.cancel {
                None => false,
                Some(Cancel::Steps(steps)) => self.tick >= accepted.at + steps,
                Some(Cancel::Tokens(least)) => tokens >= least,
                Some(Cancel::End) => over,
            };
            if due {
                (accepted.cancel, accepted.cancelled) = (None, true);
                self.executor.cancel(accepted.id).expect("the id was given");
            }
        }
    }

    fn listen(&self) {
        for accepted in &self.accepted {
            let (age, over) = (self.tick - accepted.at, self.heard.of(accepted.id).1);
            match self.habit {
                _ if over => {}
                Habit::One { every, most } if age.is_multiple_of(every) => self.receive(Some(accepted.id), most),
                Habit::Late { after } if age >= after => self.receive(Some(accepted.id), usize::MAX),
                Habit::Any { every, most } if age.is_multiple_of(every) => self.receive(None, most),
                _ => {}
            }
        }
    }

    /// Takes what there is. `NotFound` when another client has just taken the end.
    fn receive(&self, filter: Option<RequestId>, most: usize) {
        match self.executor.await_responses(filter, Some(TICK), most) {
            Ok(responses) => responses.into_iter().for_each(|response| self.heard.put(response)),
            Err(error) => assert!(matches!(error.status(), Status::Timeout | Status::NotFound), "{error}"),
        }
    }
}

/// All that one sequence said, logits as bits.
#[derive(Debug, PartialEq)]
struct Said {
    tokens: Vec<u32>,
    logits: Vec<u32>,
    finish: Option<FinishReason>,
}

fn bits<'a>(logits: impl Iterator<Item = &'a Vec<f32>>) -> Vec<u32> {
    logits.flatten().map(|logit| logit.to_bits()).collect()
}

fn said(responses: &[Response], sequence: u32) -> Said {
    let ours = || responses.iter().filter(|response| response.sequence == sequence);
    Said {
        tokens: ours().flat_map(|response| response.tokens.clone()).collect(),
        logits: bits(ours().map(|response| &response.generation_logits)),
        finish: ours().find_map(|response| response.finish),
    }
}

/// Compares with the request alone; true if it came to its own end.
fn check(request: &Request, cut: bool, company: &[Response], alone: &[Response]) -> bool {
    let last = company.last().and_then(|response| response.finish);
    for sequence in 0..request.sampling.n {
        let (ours, whole) = (said(company, sequence), said(alone, sequence));
        match ours.finish {
            Some(FinishReason::Eos | FinishReason::Stop | FinishReason::Length) => {
                assert!(ours == whole, "{request:?}")
            }
            _ => {
                assert!(cut, "{:?} {request:?}", ours.finish);
                assert!(
                    whole.tokens.starts_with(&ours.tokens) && whole.logits.starts_with(&ours.logits),
                    "{request:?}"
                );
            }
        }
    }
    let context = |responses: &[Response]| bits(responses.iter().map(|response| &response.context_logits));
    assert!(context(company) == context(alone) || cut && context(company).is_empty(), "{request:?}");
    matches!(last, Some(FinishReason::Eos | FinishReason::Stop | FinishReason::Length))
}

fn load(engine: &Arc<Engine>, sizes: &Sizes) -> Executor {
    let config = ExecutorConfig {
        max_batch_size: sizes.rows,
        max_batch_tokens: sizes.tokens,
        max_queue: sizes.capacity.saturating_sub(sizes.rows).max(1),
        max_pending_responses: sizes.pending,
        kv_tokens: sizes.blocks * sizes.block_tokens,
        prefix_reuse: sizes.reuse,
        threads: 2,
        ..ExecutorConfig::default()
    };
    Executor::load(Arc::clone(engine), config).expect("the limits are sound")
}

/// What traces came to.
#[derive(Debug, Default)]
struct Seen {
    requests: usize,
    whole: usize,
    cut: usize,
    preemptions: u64,
    prefix_hit_tokens: u64,
}

/// Plays one script; everything is over when this returns.
fn play(executor: &Executor, script: &Script) -> (Vec<Accepted>, HashMap<RequestId, Vec<Response>>) {
    assert_eq!(script.shutdown_at, None, "clients here stay to the end");
    let heard = Arc::new(Heard::default());
    let accepted: Vec<Accepted> = thread::scope(|scope| {
        let players = script.clients.iter().map(|client| Player {
            executor,
            heard: &heard,
            habit: client.habit,
            pending: client.orders.iter().collect(),
            accepted: Vec::new(),
            tick: 0,
        });
        let clients: Vec<_> = players.map(|player| scope.spawn(move || player.play())).collect();
        clients.into_iter().flat_map(|client| client.join().expect("the client is content")).collect()
    });
    let deadline = Instant::now() + PATIENCE;
    while executor.stats().requests > 0 {
        match executor.await_responses(None, Some(TICK), usize::MAX) {
            Ok(responses) => responses.into_iter().for_each(|response| heard.put(response)),
            Err(error) => assert_eq!(error.status(), Status::Timeout),
        }
        assert!(Instant::now() < deadline, "hang: {}", executor.stats().to_json());
    }
    executor.shutdown().expect("no callback runs here");
    assert_eq!(executor.stats().kv.used, 0);
    let heard = std::mem::take(&mut *heard.0.lock().expect("nobody panics here"));
    (accepted, heard)
}

fn trace(engine: &Arc<Engine>, alone: &Executor, seed: u64, seen: &mut Seen) {
    let script = Script::new(seed, &WORLD);
    let executor = load(engine, &script.sizes);
    let (accepted, heard) = play(&executor, &script);
    for Accepted { id, request, cancelled, fails, .. } in &accepted {
        let company = heard.get(id).map_or(&[][..], Vec::as_slice);
        let over = company.last().is_some_and(|response| response.last);
        assert_eq!(company.iter().filter(|response| response.last).count(), usize::from(over));
        let unlimited = Request { time_limit: None, ..request.clone() };
        let id = alone.submit(unlimited).expect("it was accepted in company");
        let mut whole: Vec<Response> = Vec::new();
        while !whole.last().is_some_and(|response| response.last) {
            whole.extend(alone.await_responses(Some(id), Some(PATIENCE), usize::MAX).expect("it goes on"));
        }
        assert!(over || *fails, "{request:?} never ends");
        let cut = *cancelled || request.time_limit.is_some() || !over;
        *(if check(request, cut, company, &whole) { &mut seen.whole } else { &mut seen.cut }) += 1;
    }
    let stats = executor.stats();
    seen.requests += accepted.len();
    seen.preemptions += stats.totals.preemptions;
    seen.prefix_hit_tokens += stats.prefix_hit_tokens;
}

#[test]
fn a_request_in_company_is_to_the_bit_what_it_is_alone() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let seeds = match number("TRTLLM_TRACE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TRTLLM_ENGINE_TRACES").unwrap_or(DEFAULT_TRACES),
    };
    let engines = [Precision::F32, Precision::Bf16].map(|precision| engine("models/tiny", precision, &[]));
    let roomy =
        Sizes { rows: 1, tokens: 512, blocks: 64, block_tokens: BLOCK_TOKENS, reuse: false, capacity: 2, pending: 64 };
    let alone = engines.each_ref().map(|engine| load(engine, &roomy));
    let (mut seen, start) = (Seen::default(), Instant::now());
    for seed in seeds.clone() {
        println!("seed {seed}");
        if seeds.end - seeds.start == 1 {
            println!("{:#?}", Script::new(seed, &WORLD));
        }
        let of = (seed % 2) as usize;
        trace(&engines[of], &alone[of], seed, &mut seen);
    }
    println!("{seeds:?} in {:.1} s: {seen:?}", start.elapsed().as_secs_f32());
    let traces = seeds.end - seeds.start;
    if traces >= DEFAULT_TRACES {
        assert!(seen.whole > 0 && seen.cut > 0 && seen.prefix_hit_tokens > 0, "{seen:?}");
        // The clock is the real one: in a few traces a fast machine may never be short of blocks.
        assert!(seen.preemptions > 0 || traces < 10 * DEFAULT_TRACES, "{seen:?}");
    }
}
