//! What the integration tests share: engines from the checkpoints in `tests/`, expected tensors, one-request forward passes.
#![allow(dead_code)] // Each test program uses its part.

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
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.engine");
    let options = BuildOptions {
        precision: Some(precision),
        disabled_passes: disabled_passes.iter().map(ToString::to_string).collect(),
        max_positions: None,
    };
    let source = Source::Checkpoint(tests_path(checkpoint));
    builder::build(&source, &path, &options, &mut |_, _| ControlFlow::Continue(())).expect("the checkpoint builds");
    Arc::new(Engine::open(&path, LoadMode::Read, &mut |_| ControlFlow::Continue(())).expect("the engine opens"))
}

/// A session for one request of up to `tokens` tokens on `threads` threads.
pub fn session(engine: &Arc<Engine>, tokens: usize, threads: usize, isa: Option<&str>) -> Session {
    let device = open_device(engine.plan().target, threads, isa).expect("the CPU opens");
    let kv_blocks = tokens.div_ceil(BLOCK_TOKENS);
    let limits = Limits { tokens, logit_rows: tokens, rows: 1, kv_blocks };
    Session::new(Arc::clone(engine), device, limits).expect("the session fits")
}

/// Logits after every token of one request, prefilled in pieces of the given lengths.
pub fn logits(session: &mut Session, tokens: &[u32], pieces: &[usize]) -> Vec<f32> {
    assert_eq!(pieces.iter().sum::<usize>(), tokens.len());
    let groups = session.engine().plan().kv_groups.len();
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
            logit_rows: (0..*piece as u32).collect(),
        };
        all.extend_from_slice(session.forward(&batch).expect("the batch is valid"));
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
