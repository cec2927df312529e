//! Sliding windows and several KV groups: no family here has them yet, so a built engine's plan is given them, for both devices.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use trtllm::builder::{BuildOptions, Source};
use trtllm::engine::{Engine, EngineWriter, LoadMode, Plan, Precision, SectionKind, Target};
use trtllm::types::{AttentionSpec, Op};

use crate::common::{engine_of, logits_of, tests_path};
use crate::{TOLERANCE, compare, cut, gpu, load, some_tokens};

/// Every second layer sees `window` tokens, from a group of its own.
fn with_window(mut plan: Plan, window: usize) -> Plan {
    let all = plan.kv_groups[0].layers.clone();
    let part = |first: usize| all.iter().copied().skip(first).step_by(2).collect::<Vec<_>>();
    let mut narrow = plan.kv_groups[0].clone();
    (plan.kv_groups[0].layers, narrow.layers, narrow.window) = (part(0), part(1), Some(window));
    plan.kv_groups.push(narrow);
    let moved = |spec: &mut AttentionSpec| (spec.group, spec.layer) = (spec.layer % 2, spec.layer / 2);
    for step in &mut plan.steps {
        match &mut step.op {
            Op::FusedAttention { attention, .. } | Op::Attention(attention) | Op::CacheAppend(attention) => {
                moved(attention)
            }
            _ => {}
        }
    }
    plan
}

fn rewritten(engine: &Engine, path: &Path, window: usize) -> Arc<Engine> {
    let mut plan = with_window(engine.plan().clone(), window);
    let mut writer = EngineWriter::create(path).expect("the folder takes a file");
    for (index, spec) in plan.weights.iter_mut().enumerate() {
        writer.begin_weight(spec.packing).expect("writes");
        writer.write(engine.weight(index)).expect("writes");
        let placement = writer.end_weight().expect("a weight was begun");
        (spec.offset, spec.bytes, spec.checksum) = (placement.offset, placement.bytes, placement.checksum);
    }
    let config = engine.config().expect("every engine has one");
    writer.finish(&plan, &[(SectionKind::Config, config)]).expect("writes");
    Arc::new(Engine::open(path, LoadMode::Read, &mut |_| ControlFlow::Continue(())).expect("the engine opens"))
}

/// What the plans that are made here mean: a window that holds all is none, and a shorter one shows.
#[test]
fn a_window_as_long_as_the_context_changes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = BuildOptions { precision: Some(Precision::Bf16), ..Default::default() };
    let whole = engine_of(&Source::Checkpoint(tests_path("models/tiny")), &options);
    let tokens = some_tokens(60, whole.plan().model.vocab_size, 2);
    let logits = |engine: &Arc<Engine>| {
        let groups = engine.plan().kv_groups.len();
        logits_of(&mut *load(engine, tokens.len(), 1), groups, &tokens, &cut(60, &[20, 1, 1]))
    };
    let windowed = |window| logits(&rewritten(&whole, &folder.path().join("windowed"), window));
    let expected = logits(&whole);
    assert_eq!(windowed(60), expected);
    assert_ne!(windowed(20), expected);
}

#[test]
fn windows_and_groups() {
    if !gpu() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = Source::Checkpoint(tests_path("models/tiny"));
    for (invariant, kv_precision) in [(false, None), (true, None), (false, Some(Precision::Fp8))] {
        let engines = [Target::Cuda, Target::Cpu].map(|target| {
            let invariant = invariant && target == Target::Cuda;
            let precision = Some(Precision::Bf16);
            let options =
                BuildOptions { target, precision, kv_precision, invariant, tune: false, ..Default::default() };
            engine_of(&source, &options)
        });
        for window in [1, 17, 48] {
            let windowed = [0, 1].map(|at| rewritten(&engines[at], &folder.path().join(at.to_string()), window));
            let tokens = some_tokens(200, windowed[0].plan().model.vocab_size, 21);
            // An e4m3 cache holds three bits of a mantissa; both devices round to the same codes but for a few.
            let tolerance = if kv_precision.is_some() { 3.0 * TOLERANCE } else { TOLERANCE };
            for pieces in [vec![], vec![1; 200], vec![70, 1, 1, 60]] {
                let name = format!("window {window}, invariant {invariant}, cache {kv_precision:?}");
                compare(&name, &windowed, &tokens, &cut(200, &pieces), tolerance);
            }
        }
    }
}
