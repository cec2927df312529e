//! Seeded traces of several clients: one number, one trace. Every request must say what it says alone, whatever else
//! runs, however small the pool, whoever gives up; every block must have the right owners after every step.

mod coverage;
mod owners;
mod play;
pub(super) mod random;
mod script;
mod verdict;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use self::coverage::Coverage;
use self::owners::Auditor;
use self::play::{BLANKS, Play, Stage};
use self::random::Random;
use self::script::{Script, World};
use super::alone::POISON;
use super::core::Core;
use super::exchange::Exchange;
use super::fake::{Fake, Faults, tokenizer};
use super::intake::Intake;
use super::parts::{ExecutorParts, assemble};
use super::traces::Setting;
use super::{ExecutorConfig, Input, Request};
use crate::sampling::LogitBias;

const DEFAULT_TRACES: u64 = 500;

const WORLD: World =
    World { vocabulary: 0..20, poison: Some(POISON), block_tokens: 1..5, most: 16, letters: true, shutdowns: true };

/// What at least comes of [`DEFAULT_TRACES`] traces.
const LEAST: &[(&str, u64)] = &[
    ("requests", 1500),
    ("preemptions", 25),
    ("prefix hits in tokens", 1500),
    ("shared blocks", 800),
    ("evicted blocks", 2000),
    ("blocks that left a window", 10_000),
    ("cancels in the inbox", 20),
    ("cancels while waiting", 50),
    ("cancels in the prompt", 15),
    ("cancels in the output", 90),
    ("cancels after the end", 100),
    ("submissions that the full queue refused", 1500),
    ("orders refused as too large", 20),
    ("orders refused after a shutdown", 25),
    ("requests at a shutdown", 40),
    ("ends by a stop", 80),
    ("ends by time", 25),
    ("ends by NaN", 50),
    ("requests of several sequences", 200),
    ("context logits", 80),
    ("generation logits", 150),
    ("failed callbacks", 50),
    ("requests whose slow client got joined responses", 100),
];

#[test]
fn seeded_traces_hold() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    if let Some(seed) = number("TRTLLM_TRACE_SEED") {
        let mut coverage = Coverage::default();
        println!("{:#?}\n{:#?}", Script::new(seed, &WORLD), setting(seed));
        trace(seed, &mut coverage);
        return println!("{coverage}");
    }
    let traces = number("TRTLLM_TRACES").unwrap_or(DEFAULT_TRACES);
    let coverage = run_all(traces);
    println!("{traces} traces\n{coverage}");
    for (what, least) in LEAST {
        let least = least * traces.min(DEFAULT_TRACES) / DEFAULT_TRACES;
        assert!(
            coverage.of(what) >= least,
            "{what}: {} in {traces} traces, at least {least} expected",
            coverage.of(what)
        );
    }
}

/// Runs the traces of seeds below `traces` on all processors.
fn run_all(traces: u64) -> Coverage {
    let next = AtomicU64::new(0);
    let worker = || {
        let mut coverage = Coverage::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= traces {
                return coverage;
            }
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| trace(seed, &mut coverage))) {
                eprintln!(
                    "this trace again: TRTLLM_TRACE_SEED={seed} cargo test --release --lib seeded -- --nocapture"
                );
                resume_unwind(payload);
            }
        }
    };
    let mut all = Coverage::default();
    thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            match worker.join() {
                Ok(coverage) => all.merge(&coverage),
                Err(payload) => resume_unwind(payload),
            }
        }
    });
    all
}

/// The test model of a seed.
fn setting(seed: u64) -> Setting {
    let sizes = Script::new(seed, &WORLD).sizes;
    let mut random = Random(!seed);
    let windows = [vec![None], vec![Some(3)], vec![None, Some(5)], vec![Some(1), Some(7)]];
    let sampling = [None, Some(0), Some(9), Some(60), Some(1000)];
    Setting {
        rows: sizes.rows,
        tokens: sizes.tokens,
        logit_rows: random.within(1..9),
        blocks: sizes.blocks,
        block_tokens: sizes.block_tokens,
        windows: windows[random.within(0..windows.len())].clone(),
        reuse: sizes.reuse,
        depth: random.within(1..3),
        sampling: sampling[random.within(0..sampling.len())],
        faults: Faults::default(),
    }
}

/// An executor around the test model, with text.
fn executor(fake: Fake, reuse: bool) -> (Core, Intake) {
    let config = ExecutorConfig { prefix_reuse: reuse, max_sequence_tokens: 128, ..ExecutorConfig::default() };
    let parts = ExecutorParts { tokenizer: Some(tokenizer()), ..fake.parts(config) };
    assemble(parts).expect("the limits are sound")
}

fn trace(seed: u64, coverage: &mut Coverage) {
    let (script, setting) = (Script::new(seed, &WORLD), setting(seed));
    let fake = setting.fake();
    let auditor = Auditor::new(&setting.windows, setting.block_tokens, fake.memory.clone());
    let (core, intake) = executor(fake, setting.reuse);
    let exchange = Exchange::new(script.sizes.capacity, script.sizes.pending, BLANKS, *core.stats()).expect("memory");
    let stage = Stage { core, intake: &intake, exchange, auditor, coverage };
    let hearings = Play::new(stage, &script).run();

    let roomy = Setting { rows: 4, tokens: 64, logit_rows: 64, blocks: 256, depth: 1, sampling: None, ..setting };
    let (mut core, intake) = executor(roomy.fake(), false);
    for hearing in &hearings {
        hearing.check(&mut core, &intake, &roomy.windows, coverage);
    }
}
