//! CUDA engines against Hugging Face transformers in f32 (fixtures: `tests/golden/README.md`).

use trtllm::builder::{BuildOptions, Source};
use trtllm::engine::{Precision, Target};

use crate::common::{engine_of, expected, logits_of, tests_path, tokens};
use crate::{TOLERANCE, check_best, gpu, load, relative};

/// Each with what transformers 5.23 itself, in bf16 and in f16 on a CPU, is off by from its f32 logits, as `relative` measures.
const FIXTURES: [(&str, [f64; 2]); 18] = [
    ("llama_base", [1.22e-2, 1.60e-3]),
    ("llama_tied", [1.54e-2, 2.04e-3]),
    ("llama3_rope", [1.09e-2, 1.47e-3]),
    ("llama_yarn_mscale", [1.51e-2, 2.00e-3]),
    ("llama_bias", [9.64e-3, 9.74e-4]),
    ("gpt2", [7.15e-3, 9.87e-4]),
    ("mistral", [1.05e-2, 1.28e-3]),
    ("qwen2", [1.37e-2, 1.68e-3]),
    ("qwen2_sliding", [1.20e-2, 1.36e-3]),
    ("qwen3", [2.87e-2, 3.83e-3]),
    ("qwen3_biased", [1.09e-2, 1.29e-3]),
    ("gemma2", [1.38e-2, 1.68e-3]),
    ("gemma3", [3.00e-2, 3.81e-3]),
    ("gemma3_layers", [9.59e-3, 1.21e-3]),
    ("phi3", [2.26e-2, 2.66e-3]),
    ("phi3_long", [3.16e-2, 3.70e-3]),
    ("phi3_partial", [1.04e-2, 1.26e-3]),
    ("tiny", [3.52e-3, 4.36e-4]),
];

#[test]
fn logits_match_transformers() {
    if !gpu() {
        return;
    }
    for (fixture, own) in FIXTURES {
        let golden = expected(&format!("golden/{fixture}/expected.safetensors"));
        let prompt = tokens(&golden["tokens"]);
        let checkpoint = if fixture == "tiny" { "models/tiny".into() } else { format!("golden/{fixture}") };
        // An f16 mantissa has three bits more than one of bf16; weights that make more of rounding do so in transformers too.
        let tolerances = [TOLERANCE.max(own[0]), (TOLERANCE / 8.0).max(own[1])];
        for (precision, tolerance) in std::iter::zip([Precision::Bf16, Precision::F16], tolerances) {
            let options = BuildOptions {
                target: Target::Cuda,
                precision: Some(precision),
                // Of its two ropes the fixture has the short one.
                max_positions: (fixture == "phi3").then_some(128),
                tune: false,
                ..BuildOptions::default()
            };
            let engine = engine_of(&Source::Checkpoint(tests_path(&checkpoint)), &options);
            let groups = engine.plan().kv_groups.len();
            let found = logits_of(&mut *load(&engine, prompt.len(), 1), groups, &prompt, &[prompt.len()]);
            let error = relative(&found, &golden["logits"]);
            println!("{fixture} {precision:?}: {error:.2e}");
            assert!(error <= tolerance, "{fixture} {precision:?}: {error} is over {tolerance}");
            // What rounding may move a logit by, as a share of all.
            let largest = golden["logits"].iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let margin = 2.0 * tolerance as f32 * largest;
            check_best(&found, &golden["logits"], engine.plan().model.vocab_size, margin);
        }
    }
}
