//! What the integration tests share: engines from the checkpoints in `tests/`, expected tensors, one-request forward passes.
#![allow(dead_code)] // Each test program uses its part.

pub mod quantized;
pub mod serving;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::SafeTensors;
use trtllm::builder::{self, BuildOptions, Source};
use trtllm::engine::{BLOCK_TOKENS, Engine, Limits, LoadMode, Precision};
use trtllm::runtime::{Batch, BatchRow, Forward, Session, open_device};

/// A folder or file below `tests/`.
pub fn tests_path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(relative)
}

/// The engine of a checkpoint below `tests/`, built into a temporary file that is gone when this returns.
pub fn engine(checkpoint: &str, precision: Precision, disabled_passes: &[&str]) -> Arc<Engine> {
    let disabled_passes = disabled_passes.iter().map(ToString::to_string).collect();
    engine_with(
        &tests_path(checkpoint),
        &BuildOptions { precision: Some(precision), disabled_passes, ..BuildOptions::default() },
    )
}

/// As [`engine`], from a checkpoint anywhere and with any options.
pub fn engine_with(checkpoint: &Path, options: &BuildOptions) -> Arc<Engine> {
    engine_of(&Source::Checkpoint(checkpoint.to_path_buf()), options)
}

/// The engine of any source, built with any options.
pub fn engine_of(source: &Source, options: &BuildOptions) -> Arc<Engine> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.engine");
    builder::build(source, &path, options, &mut |_, _| ControlFlow::Continue(())).expect("the engine builds");
    Arc::new(Engine::open(&path, LoadMode::Read, &mut |_| ControlFlow::Continue(())).expect("the engine opens"))
}

/// The tiny model's engine as a file in `folder`.
pub fn engine_file(folder: &Path, precision: Precision) -> PathBuf {
    let path = folder.join(format!("{precision:?}.engine"));
    let options = BuildOptions { precision: Some(precision), ..BuildOptions::default() };
    let source = Source::Checkpoint(tests_path("models/tiny"));
    builder::build(&source, &path, &options, &mut |_, _| ControlFlow::Continue(())).expect("the checkpoint builds");
    path
}

/// A session for one request of up to `tokens` tokens on `threads` threads.
pub fn session(engine: &Arc<Engine>, tokens: usize, threads: usize, isa: Option<&str>) -> Session {
    let device = open_device(threads, isa).expect("the CPU opens");
    let kv_blocks = tokens.div_ceil(BLOCK_TOKENS);
    let limits = Limits { tokens, logit_rows: tokens, rows: 1, kv_blocks };
    Session::new(Arc::clone(engine), device, limits).expect("the session fits")
}

/// Logits after every token of one request, prefilled in pieces of the given lengths.
pub fn logits(session: &mut Session, tokens: &[u32], pieces: &[usize]) -> Vec<f32> {
    let groups = session.engine().plan().kv_groups.len();
    logits_of(session, groups, tokens, pieces)
}

/// The same for any model with `groups` KV groups.
pub fn logits_of(model: &mut dyn Forward, groups: usize, tokens: &[u32], pieces: &[usize]) -> Vec<f32> {
    logits_from(model, groups, tokens, pieces, 0)
}

/// As [`logits_of`], but in each piece for the tokens from position `first` of the piece on alone, or its last one.
pub fn logits_from(model: &mut dyn Forward, groups: usize, tokens: &[u32], pieces: &[usize], first: usize) -> Vec<f32> {
    assert_eq!(pieces.iter().sum::<usize>(), tokens.len());
    let blocks = u32::try_from(tokens.len().div_ceil(BLOCK_TOKENS)).expect("a short request");
    let (mut all, mut context) = (Vec::new(), 0);
    for piece in pieces {
        let end = context + piece;
        let batch = Batch {
            tokens: tokens[context..end].to_vec(),
            positions: (context as u32..end as u32).collect(),
            rows: vec![BatchRow { start: 0, len: *piece, context }],
            tables: (0..groups).flat_map(|_| 0..blocks).collect(),
            table_starts: (0..=groups).map(|g| g * blocks as usize).collect(),
            logit_rows: (first.min(piece - 1) as u32..*piece as u32).collect(),
            ..Batch::default()
        };
        all.extend_from_slice(model.forward(&batch).expect("the batch is valid"));
        context = end;
    }
    all
}

/// Tensors of a safetensors file below `tests/` as f32 (I32 is converted).
pub fn expected(file: &str) -> HashMap<String, Vec<f32>> {
    let bytes = std::fs::read(tests_path(file)).expect("the fixture is there");
    let tensors = SafeTensors::deserialize(&bytes).expect("the fixture is sound");
    let word = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).expect("four bytes");
    let convert = |view: safetensors::tensor::TensorView<'_>| -> Vec<f32> {
        let words = view.data().chunks_exact(4).map(word);
        match view.dtype() {
            safetensors::Dtype::F32 => words.map(f32::from_le_bytes).collect(),
            safetensors::Dtype::I32 => words.map(|w| i32::from_le_bytes(w) as f32).collect(),
            other => panic!("fixtures hold F32 and I32, not {other:?}"),
        }
    };
    tensors.tensors().into_iter().map(|(name, view)| (name, convert(view))).collect()
}

/// Token ids stored as I32.
pub fn tokens(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| *v as u32).collect()
}

/// Largest absolute difference; NaN counts as infinite.
pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let difference = |(a, b): (&f32, &f32)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() };
    std::iter::zip(a, b).map(difference).fold(0.0, f32::max)
}

#[path = "../../src/executor/seeded/random.rs"]
mod random;
pub use random::Random;

impl Random {
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        (1..items.len()).rev().for_each(|at| items.swap(at, self.within(0..at + 1)));
    }

    /// Token ids of the tiny model, without its special ones.
    pub fn tokens(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.within(6..1000) as u32).collect()
    }
}

/// A figure of this process from `/proc/self/status` (`VmRSS` in KiB, `Threads`).
pub fn process_figure(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find(|line| line.starts_with(name)).expect("the kernel reports it");
    line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).expect("a number")
}

/// This test program once more, running `test` alone with the variable `key` set to `value`.
pub fn rerun(test: &str, key: &str, value: &std::ffi::OsStr) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().expect("a test has a program"));
    command.args(["--exact", test, "--nocapture"]).env(key, value);
    command
}
