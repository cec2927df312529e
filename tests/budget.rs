//! The memory budget holds: what a process really takes for an engine under heavy use stays within it.

mod common;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use common::{Random, engine_file, process_figure, rerun};
use trtllm::engine::{Engine, LoadMode, Precision};
use trtllm::error::Error;
use trtllm::executor::{Executor, ExecutorConfig, Input, Request};

/// In a child: `budget mode path`.
const CHILD: &str = "TRTLLM_BUDGET_CHILD";
/// In the child's output, before KiB and preemptions.
const GROWTH: &str = "grown by";

fn open(path: &Path, mode: LoadMode) -> Arc<Engine> {
    Arc::new(Engine::open(path, mode, &mut |_| std::ops::ControlFlow::Continue(())).expect("the engine opens"))
}

fn load(engine: &Arc<Engine>, memory_budget: u64) -> trtllm::Result<Executor> {
    let config = ExecutorConfig { memory_budget, threads: 2, ..ExecutorConfig::default() };
    Executor::load(Arc::clone(engine), config)
}

/// The least budget, as the refusal of a tiny one names it.
fn needed(engine: &Arc<Engine>) -> u64 {
    let error = load(engine, 1).err().expect("one byte is too small");
    let Error::BudgetExceeded { why, .. } = error else { panic!("{error}") };
    why.split_whitespace().next().and_then(|figure| figure.parse().ok()).expect("the message begins with the figure")
}

#[test]
fn the_named_budget_suffices_and_one_byte_less_does_not() {
    for precision in [Precision::F32, Precision::Bf16] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = engine_file(folder.path(), precision);
        for mode in [LoadMode::Read, LoadMode::Map] {
            let engine = open(&path, mode);
            let needed = needed(&engine);
            assert!(needed > engine.weights_bytes() as u64);
            assert!(matches!(load(&engine, needed - 1), Err(Error::BudgetExceeded { .. })));
            let executor = load(&engine, needed).expect("the figure is the one that would do");
            let mut request = Request::new(Input::Tokens(vec![7; 8]));
            request.sampling.max_tokens = 4;
            let id = executor.submit(request).expect("one block holds it");
            let ended = |r: &trtllm::executor::Response| r.last && r.error.is_none();
            while !executor.await_responses(Some(id), None, 1).expect("it goes on").iter().any(ended) {}
        }
    }
}

#[test]
fn resident_memory_stays_within_the_budget() {
    if let Some(order) = std::env::var_os(CHILD) {
        return measure(&order.to_string_lossy());
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    for precision in [Precision::F32, Precision::Bf16] {
        let path = engine_file(folder.path(), precision);
        let least = needed(&open(&path, LoadMode::Map));
        for (mode, extra) in [("read", 0), ("map", 0), ("read", 2 << 20), ("map", 8 << 20), ("read", 64 << 20)] {
            let budget = least + extra;
            let order = format!("{budget} {mode} {}", path.display());
            let order = std::ffi::OsStr::from_bytes(order.as_bytes());
            let child = rerun("resident_memory_stays_within_the_budget", CHILD, order).output().expect("it runs");
            let text = String::from_utf8_lossy(&child.stdout);
            assert!(child.status.success(), "{text}{}", String::from_utf8_lossy(&child.stderr));
            let grown = text.split(GROWTH).nth(1).and_then(|rest| rest.split_whitespace().next());
            let grown: u64 = grown.and_then(|kib| kib.parse().ok()).expect("the child says it");
            println!("{precision:?}, {mode}: budget {} KiB, grown by {grown} KiB", budget / 1024);
            assert!(grown * 1024 <= budget, "{precision:?}, {mode}: {grown} KiB, the budget is {} KiB", budget / 1024);
            // Less than the weights would mean that the measurement sees nothing.
            assert!(grown >= 4096, "{grown} KiB");
        }
    }
}

/// Opens, loads and works hard in this process, and prints the peak of its growth.
fn measure(order: &str) {
    let mut words = order.splitn(3, ' ');
    let mut word = || words.next().expect("three words");
    let budget = word().parse().expect("bytes");
    let mode = if word() == "map" { LoadMode::Map } else { LoadMode::Read };
    let path = word();
    let before = process_figure("VmRSS");
    let engine = open(Path::new(path), mode);
    let executor = load(&engine, budget).expect("the budget suffices");
    let mut random = Random(budget);
    let capacity = executor.stats().kv.free * trtllm::engine::BLOCK_TOKENS;
    let longest = capacity.min(400);
    for _ in 0..2 {
        let ids: Vec<_> = (0..32)
            .map(|index| {
                let length = random.within(1..longest.max(3) - 1);
                let mut request = Request::new(Input::Tokens(random.tokens(length)));
                request.sampling.max_tokens = random.within(1..17.min(longest - length + 1)) as u32;
                request.sampling.temperature = 1.0;
                request.sampling.seed = index;
                request.sampling.logprobs = Some(5);
                executor.submit(request).expect("the request fits")
            })
            .collect();
        for id in ids {
            while !executor.await_responses(Some(id), None, 100).expect("it goes on").iter().any(|r| r.last) {}
        }
    }
    assert_eq!(executor.stats().totals.completed, 64);
    println!("{GROWTH} {} KiB", process_figure("VmHWM").saturating_sub(before));
}

#[test]
fn absurd_limits_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let engine = open(&engine_file(folder.path(), Precision::F32), LoadMode::Map);
    let refusal = |change: &dyn Fn(&mut ExecutorConfig)| {
        let mut config = ExecutorConfig { threads: 1, ..ExecutorConfig::default() };
        change(&mut config);
        Executor::load(Arc::clone(&engine), config.clone()).err().unwrap_or_else(|| panic!("{config:?} was accepted"))
    };
    let argument = |change: &dyn Fn(&mut ExecutorConfig), name: &str| {
        let error = refusal(change);
        assert!(matches!(&error, Error::InvalidArgument { what, .. } if what == name), "{name}: {error}");
    };
    for absurd in [0, usize::MAX, 1 << 40] {
        argument(&|c| c.max_batch_size = absurd, "max_batch_size");
        argument(&|c| c.max_batch_tokens = absurd, "max_batch_tokens");
        argument(&|c| c.max_queue = absurd, "max_queue");
        argument(&|c| c.max_pending_responses = absurd, "max_pending_responses");
    }
    argument(&|c| c.threads = usize::MAX, "threads");
    argument(&|c| c.kv_tokens = usize::MAX, "kv_tokens");
    argument(&|c| c.isa = Some("abacus".into()), "isa");
    // Blocks that fit a block table, and no machine.
    let error = refusal(&|c| c.kv_tokens = 1 << 35);
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    let (large, small) = (1 << 20, 64 << 20);
    let changes: [&dyn Fn(&mut ExecutorConfig); 2] = [&|c| c.max_batch_tokens = large, &|c| c.kv_tokens = large];
    for change in changes {
        let error = refusal(&|c| {
            c.memory_budget = small;
            change(c);
        });
        assert!(matches!(error, Error::BudgetExceeded { .. }), "{error}");
    }
}
