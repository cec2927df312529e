//! CUDA engines against Hugging Face transformers in f32 (fixtures: `tests/golden/README.md`).

use trtllm::builder::{BuildOptions, Source};
use trtllm::engine::{Precision, Target};

use crate::common::{engine_of, expected, logits_of, tests_path, tokens};
use crate::{TOLERANCE, check_best, gpu, load, relative};

const FIXTURES: [&str; 18] = [
    "llama_base",
    "llama_tied",
    "llama3_rope",
    "llama_yarn_mscale",
    "llama_bias",
    "gpt2",
    "mistral",
    "qwen2",
    "qwen2_sliding",
    "qwen3",
    "qwen3_biased",
    "gemma2",
    "gemma3",
    "gemma3_layers",
    "phi3",
    "phi3_long",
    "phi3_partial",
    "tiny",
];

#[test]
fn logits_match_transformers() {
    if !gpu() {
        return;
    }
    for fixture in FIXTURES {
        let golden = expected(&format!("golden/{fixture}/expected.safetensors"));
        let prompt = tokens(&golden["tokens"]);
        let checkpoint = if fixture == "tiny" { "models/tiny".into() } else { format!("golden/{fixture}") };
        // An f16 mantissa has three bits more than one of bf16.
        for (precision, tolerance) in [(Precision::Bf16, TOLERANCE), (Precision::F16, TOLERANCE / 8.0)] {
            let options = BuildOptions {
                target: Target::Cuda,
                precision: Some(precision),
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
