//! CUDA engines against the CPU backend on the same weights. Without a GPU every test here is skipped, and says so.

mod common;
#[path = "cuda/families.rs"]
mod families;
#[path = "cuda/faults.rs"]
mod faults;
#[path = "cuda/golden.rs"]
mod golden;
#[path = "cuda/memory.rs"]
mod memory;
#[path = "cuda/quantized.rs"]
mod quantized;
#[path = "cuda/serving.rs"]
mod serving;

use std::sync::Arc;

use common::{Random, engine_of, logits_from, logits_of, tests_path};
use trtllm::backend::cuda::{CubinStore, Driver, RealDriver, Tactics, Timings, Tuner};
use trtllm::builder::{BuildOptions, Source, plan};
use trtllm::engine::{BLOCK_TOKENS, Engine, Limits, Precision, Target};
use trtllm::runtime::{DeviceOptions, Forward, OpenDevice};

/// The GPU, or why a test is skipped. Where `TRTLLM_TEST_GPU` says that there is one, it must open.
fn driver() -> Option<Arc<dyn Driver>> {
    let driver = RealDriver::open(0).inspect_err(|error| println!("skipped: {error}"));
    assert!(driver.is_ok() || std::env::var_os("TRTLLM_TEST_GPU").is_none(), "there is a GPU, which does not open");
    driver.ok()
}

fn gpu() -> bool {
    driver().is_some()
}

fn load(engine: &Arc<Engine>, tokens: usize, rows: usize) -> Box<dyn Forward> {
    let device = OpenDevice::new(engine.plan().target, &DeviceOptions::default()).expect("the device opens");
    let kv_blocks = rows * tokens.div_ceil(BLOCK_TOKENS);
    device.load(Arc::clone(engine), Limits { tokens, logit_rows: tokens, rows, kv_blocks }).expect("the engine loads")
}

/// The same model for CUDA and for the CPU.
fn pair(source: &Source, options: &BuildOptions) -> [Arc<Engine>; 2] {
    [Target::Cuda, Target::Cpu].map(|target| {
        engine_of(
            source,
            &BuildOptions {
                target,
                invariant: target == Target::Cuda && options.invariant,
                tune: false,
                ..options.clone()
            },
        )
    })
}

/// Norm of the difference over the norm of the reference, over all logits.
fn relative(found: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = std::iter::zip(found, wanted).map(|(a, b)| square(a - b)).sum();
    let norm: f64 = wanted.iter().map(|b| square(*b)).sum();
    if difference.is_nan() { f64::INFINITY } else { (difference / norm).sqrt() }
}

/// Wherever the CPU's best token leads by more than `margin`, CUDA has the same one.
fn check_best(found: &[f32], wanted: &[f32], vocab: usize, margin: f32) {
    let best = |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(index, _)| index);
    for (position, (found, wanted)) in found.chunks(vocab).zip(wanted.chunks(vocab)).enumerate() {
        let top = best(wanted);
        let second = wanted.iter().enumerate().filter(|(i, _)| *i != top).fold(f32::MIN, |m, (_, v)| m.max(*v));
        if wanted[top] - second > margin {
            assert_eq!(best(found), top, "at position {position}");
        }
    }
}

/// Logits of one request on both devices, in pieces.
fn compare(name: &str, engines: &[Arc<Engine>; 2], tokens: &[u32], pieces: &[usize], tolerance: f64) {
    let [found, wanted] = engines.each_ref().map(|engine| {
        let groups = engine.plan().kv_groups.len();
        logits_of(&mut *load(engine, tokens.len(), 1), groups, tokens, pieces)
    });
    let error = relative(&found, &wanted);
    println!("{name}, pieces {:?}: {error:.2e}", &pieces[..pieces.len().min(4)]);
    assert!(error <= tolerance, "{name}: {error} is over {tolerance}");
    let largest = common::largest_difference(&found, &wanted);
    check_best(&found, &wanted, engines[0].plan().model.vocab_size, 2.0 * largest);
}

fn some_tokens(count: usize, vocab: usize, seed: u64) -> Vec<u32> {
    let mut random = Random(seed);
    (0..count).map(|_| (random.next() % vocab as u64) as u32).collect()
}

fn cut(total: usize, pieces: &[usize]) -> Vec<usize> {
    let mut pieces = pieces.to_vec();
    let rest = total - pieces.iter().sum::<usize>();
    if rest > 0 {
        pieces.push(rest);
    }
    pieces
}

/// Activations are rounded to 16 bits about ten times in each of the tiny model's layers, 2^-9 each at worst and 2^-10 in the
/// mean for bf16: with 4 layers' errors adding up like random walks that is below 1e-2 of the logits.
const TOLERANCE: f64 = 1e-2;

#[test]
fn the_tiny_model_in_every_cut() {
    if !gpu() {
        return;
    }
    let source = Source::Checkpoint(tests_path("models/tiny"));
    for precision in [Precision::Bf16, Precision::F16, Precision::Fp8] {
        let cpu = if precision == Precision::Fp8 { Precision::Bf16 } else { precision };
        let options = |precision| BuildOptions { precision: Some(precision), tune: false, ..BuildOptions::default() };
        let engines = [
            engine_of(&source, &BuildOptions { target: Target::Cuda, ..options(precision) }),
            engine_of(&source, &options(if cpu == Precision::F16 { Precision::F32 } else { cpu })),
        ];
        let tokens = some_tokens(200, engines[0].plan().model.vocab_size, 7);
        // Quantised weights are off by 2^-4 at worst each.
        let tolerance = if precision == Precision::Fp8 { 0.1 } else { TOLERANCE };
        for pieces in [vec![], vec![1; 200], vec![1, 16, 17, 64], vec![150, 1, 1, 1], vec![31, 33, 15, 2, 1]] {
            compare(&format!("tiny {precision:?}"), &engines, &tokens, &cut(200, &pieces), tolerance);
        }
    }
}

/// A chunk, a decode step and a mixed one of every kind of engine: little enough for a tool that slows all down a
/// hundredfold.
#[test]
fn a_few_steps() {
    if !gpu() {
        return;
    }
    let source = Source::Checkpoint(tests_path("models/tiny"));
    for (precision, invariant) in [(Precision::Bf16, false), (Precision::Bf16, true), (Precision::Fp8, false)] {
        let options = BuildOptions {
            precision: Some(precision),
            target: Target::Cuda,
            invariant,
            tune: false,
            ..BuildOptions::default()
        };
        let engines = [
            engine_of(&source, &options),
            engine_of(&source, &BuildOptions { target: Target::Cpu, invariant: false, ..options }),
        ];
        let tokens = some_tokens(72, engines[0].plan().model.vocab_size, 17);
        let tolerance = if precision == Precision::Fp8 { 0.1 } else { TOLERANCE };
        compare(&format!("short {precision:?}"), &engines, &tokens, &[70, 1, 1], tolerance);
    }
}

#[test]
fn other_shapes() {
    if !gpu() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = |hidden: usize, inner: usize, heads: usize, kv: usize, head_dim: usize, vocab: usize| {
        format!(
            r#"{{"architectures": ["LlamaForCausalLM"], "vocab_size": {vocab}, "hidden_size": {hidden},
            "intermediate_size": {inner}, "num_hidden_layers": 2, "num_attention_heads": {heads}, "num_key_value_heads": {kv},
            "head_dim": {head_dim}, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
            "attention_bias": true, "torch_dtype": "bfloat16"}}"#
        )
    };
    let shapes = [
        (256, 512, 4, 1, 64, 1000),
        (512, 1024, 8, 2, 128, 4096),
        (192, 320, 6, 6, 96, 515),
        (512, 384, 4, 2, 256, 640),
        (100, 36, 5, 5, 32, 97),
    ];
    for (index, (hidden, inner, heads, kv, head_dim, vocab)) in shapes.into_iter().enumerate() {
        let path = folder.path().join(format!("{index}.json"));
        std::fs::write(&path, config(hidden, inner, heads, kv, head_dim, vocab)).expect("the folder takes it");
        let source = Source::Dummy { config: path, seed: index as u64 };
        for passes in
            [vec![], vec!["qkv".to_string(), "attention".into(), "residual_norm".into(), "gated_linear".into()]]
        {
            for invariant in [false, true] {
                let options = BuildOptions {
                    precision: Some(Precision::Bf16),
                    disabled_passes: passes.clone(),
                    invariant,
                    ..BuildOptions::default()
                };
                let engines = pair(&source, &options);
                let tokens = some_tokens(300, vocab, index as u64);
                let name = format!("{hidden} {heads}/{kv}x{head_dim} invariant {invariant} unfused {}", passes.len());
                for pieces in [vec![], vec![1, 1, 5, 130, 40], vec![290, 1, 1, 1]] {
                    compare(&name, &engines, &tokens, &cut(300, &pieces), TOLERANCE);
                }
            }
        }
    }
}

const LONG_CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 2048, "hidden_size": 512, "intermediate_size": 1536,
        "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "torch_dtype": "bfloat16"}"#;

fn long_source(folder: &tempfile::TempDir) -> Source {
    let config = folder.path().join("config.json");
    std::fs::write(&config, LONG_CONFIG).expect("the folder takes it");
    Source::Dummy { config, seed: 5 }
}

#[test]
fn long_chunks() {
    if !gpu() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = long_source(&folder);
    for (precision, tolerance) in [(Precision::Bf16, TOLERANCE), (Precision::Fp8, 0.15)] {
        let options = |target, precision| BuildOptions {
            target,
            precision: Some(precision),
            kv_precision: (precision == Precision::Fp8).then_some(Precision::Fp8),
            head_precision: (precision == Precision::Fp8).then_some(Precision::Fp8),
            tune: false,
            ..BuildOptions::default()
        };
        let engines = [
            engine_of(&source, &options(Target::Cuda, precision)),
            engine_of(&source, &options(Target::Cpu, Precision::Bf16)),
        ];
        let tokens = some_tokens(1500, 2048, 11);
        for pieces in [vec![], vec![1, 20, 50, 100, 200, 400], vec![1400, 16, 8, 4, 2, 1]] {
            compare(&format!("long {precision:?}"), &engines, &tokens, &cut(1500, &pieces), tolerance);
        }
    }
}

/// Few logits of long steps are wanted, as servers do: from the last attention on, fewer rows are computed than before.
#[test]
fn few_logits_of_long_steps() {
    if !gpu() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = long_source(&folder);
    for (precision, tolerance) in [(Precision::Bf16, TOLERANCE), (Precision::Fp8, 0.15)] {
        let options = BuildOptions { precision: Some(precision), ..BuildOptions::default() };
        let engines = pair(&source, &options);
        let tokens = some_tokens(600, 2048, 17);
        for first in [usize::MAX, 590, 580, 90] {
            for pieces in [vec![600], vec![500, 100]] {
                let [found, wanted] = engines.each_ref().map(|engine| {
                    let groups = engine.plan().kv_groups.len();
                    logits_from(&mut *load(engine, tokens.len(), 1), groups, &tokens, &pieces, first)
                });
                let error = relative(&found, &wanted);
                println!("{precision:?}, {pieces:?} from {first}: {error:.2e}");
                assert!(error <= tolerance, "{precision:?}, {pieces:?} from {first}: {error} is over {tolerance}");
            }
        }
    }
}

/// In an invariant engine a token's logits have the same bits however its request is cut into steps; in another they do not,
/// because other kernels compute long and short steps.
#[test]
fn only_the_invariant_mode_gives_equal_bits() {
    if !gpu() {
        return;
    }
    let source = Source::Checkpoint(tests_path("models/tiny"));
    for (invariant, precision) in [(true, Precision::Bf16), (true, Precision::Fp8), (false, Precision::Bf16)] {
        let engine = engine_of(
            &source,
            &BuildOptions {
                target: Target::Cuda,
                precision: Some(precision),
                invariant,
                tune: false,
                ..BuildOptions::default()
            },
        );
        let groups = engine.plan().kv_groups.len();
        let tokens = some_tokens(200, engine.plan().model.vocab_size, 3);
        let bits = |pieces: &[usize]| {
            let logits = logits_of(&mut *load(&engine, 200, 1), groups, &tokens, &cut(200, pieces));
            logits.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let whole = bits(&[]);
        let equal = [vec![1; 200], vec![1, 16, 17, 64], vec![150, 1, 1]].iter().all(|pieces| bits(pieces) == whole);
        assert_eq!(equal, invariant, "{precision:?}, invariant {invariant}");
    }
}

/// Tuned engines compute what others do. The second build measures nothing.
#[test]
fn tuning_changes_no_result() {
    let Some(driver) = driver() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = long_source(&folder);
    let cubins = CubinStore::compiling();
    for (precision, tolerance) in [(Precision::Bf16, TOLERANCE), (Precision::Fp8, 0.15)] {
        let options = |target| BuildOptions { target, precision: Some(precision), ..BuildOptions::default() };
        let plan = plan(&source, &options(Target::Cuda)).expect("the plan is made");
        let mut timings = Timings::open(folder.path().join("timings.json"));
        let mut tune = || {
            let mut tuner = Tuner { driver: &driver, cubins: &cubins, timings: &mut timings, threads: 8 };
            let mut tactics = Tactics::default();
            let summary = tuner.tune(&plan, &mut tactics, &mut |_| Ok(())).expect("the tuner runs");
            (summary, tactics)
        };
        let (first, found) = tune();
        println!("{precision:?}: {first:?}");
        assert!(first.measured > 100 && first.refused == 0 && !found.is_empty(), "{first:?}");
        let (second, again) = tune();
        assert_eq!((second.measured, second.remembered, again), (0, first.measured + first.remembered, found));

        let engines = [
            engine_of(&source, &options(Target::Cuda)),
            engine_of(&source, &BuildOptions { precision: Some(Precision::Bf16), ..options(Target::Cpu) }),
        ];
        assert!(engines[0].tactics().is_some());
        let tokens = some_tokens(1500, 2048, 13);
        for pieces in [vec![], vec![1, 5, 12, 20, 50, 100, 200, 400], vec![1400, 16, 8, 4, 2, 1]] {
            compare(&format!("tuned {precision:?}"), &engines, &tokens, &cut(1500, &pieces), tolerance);
        }
    }
}
