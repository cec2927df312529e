//! Whole models against Hugging Face transformers in f32 (fixtures: `tests/golden/README.md`).

mod common;

use common::{engine, engine_with, expected, largest_difference, logits, session, tests_path, tokens};
use trtllm::builder::BuildOptions;
use trtllm::engine::Precision;

const FIXTURES: &[&str] = &[
    "llama_base",
    "llama_tied",
    "llama3_rope",
    "llama_linear",
    "llama_yarn",
    "llama_yarn_mscale",
    "llama_bias",
    "llama_sharded",
    "qwen2",
    "qwen2_sliding",
    "qwen3",
    "qwen3_biased",
    "mistral",
    "phi3_long",
    "phi3_partial",
    "gemma2",
    "gemma3",
    "gemma3_layers",
    "gpt2",
    "gpt2_scaled",
];

/// The bound. Leaving out any part of a fixture's model moves a logit by 5e-4 or more (see the README there).
const TOLERANCE: f32 = 1e-4;

#[test]
fn f32_logits_match_transformers() {
    let mut worst = 0.0f32;
    for fixture in FIXTURES {
        let golden = expected(&format!("golden/{fixture}/expected.safetensors"));
        let prompt = tokens(&golden["tokens"]);
        let engine = engine(&format!("golden/{fixture}"), Precision::F32, &[]);
        let computed = logits(&mut session(&engine, prompt.len(), 2, None), &prompt, &[prompt.len()]);
        let difference = largest_difference(&computed, &golden["logits"]);
        println!("{fixture}: max |dlogit| {difference:.2e}");
        assert!(difference <= TOLERANCE, "{fixture}: {difference:.2e}");
        worst = worst.max(difference);
    }
    println!("largest over all fixtures: {worst:.2e}");
}

/// Which of a model's frequencies are in use follows from the positions that its engine serves: those for short contexts
/// where no request may outgrow them, for a sequence that both kinds of engine can hold.
#[test]
fn frequencies_for_short_contexts_are_those_of_engines_that_serve_no_others() {
    let golden = expected("golden/phi3/expected.safetensors");
    let prompt = tokens(&golden["tokens"]);
    let difference = |max_positions| {
        let options = BuildOptions {
            precision: Some(Precision::F32),
            max_positions: Some(max_positions),
            ..BuildOptions::default()
        };
        let engine = engine_with(&tests_path("golden/phi3"), &options);
        let computed = logits(&mut session(&engine, prompt.len(), 2, None), &prompt, &[prompt.len()]);
        largest_difference(&computed, &golden["logits"])
    };
    let (short, long) = (difference(128), difference(129));
    println!("phi3: max |dlogit| {short:.2e}; {long:.2e} where positions pass those of the pretraining");
    assert!(short <= TOLERANCE, "{short:.2e}");
    assert!(long >= 0.1, "{long:.2e}");
}

/// Behind the window a piece finds only what the cache kept of the pieces before it.
#[test]
fn a_window_is_the_same_however_the_prompt_is_cut() {
    for fixture in ["qwen2_sliding", "mistral", "gemma2", "gemma3"] {
        let golden = expected(&format!("golden/{fixture}/expected.safetensors"));
        let prompt = tokens(&golden["tokens"]);
        let engine = engine(&format!("golden/{fixture}"), Precision::F32, &[]);
        let whole = logits(&mut session(&engine, prompt.len(), 2, None), &prompt, &[prompt.len()]);
        for pieces in [vec![1; 80], vec![37, 1, 30, 12]] {
            let cut = logits(&mut session(&engine, prompt.len(), 2, None), &prompt, &pieces);
            assert!(whole == cut, "{fixture} in {} pieces", pieces.len());
        }
    }
}

#[test]
fn every_pass_keeps_the_logits() {
    for fixture in ["llama_bias", "qwen2_sliding", "phi3_long", "gemma2", "gemma3_layers", "gpt2"] {
        let golden = expected(&format!("golden/{fixture}/expected.safetensors"));
        let prompt = tokens(&golden["tokens"]);
        let run = |disabled: &[&str]| {
            let engine = engine(&format!("golden/{fixture}"), Precision::F32, disabled);
            let steps = engine.plan().steps.len();
            (logits(&mut session(&engine, prompt.len(), 2, None), &prompt, &[prompt.len()]), steps)
        };
        let names: Vec<&str> = trtllm::passes::PassSet::names().collect();
        let (fused, fused_steps) = run(&[]);
        let (plain, plain_steps) = run(&names);
        assert!(fused_steps < plain_steps, "{fixture}: {fused_steps} steps fused, {plain_steps} plain");
        assert!(largest_difference(&fused, &plain) <= 1e-5, "{fixture}: all passes off");
        for name in &names {
            let difference = largest_difference(&fused, &run(&[name]).0);
            assert!(difference <= 1e-5, "{fixture} without {name}: {difference:.2e}");
        }
    }
}

#[test]
fn the_bundled_model_matches_transformers() {
    let golden = expected("golden/tiny/expected.safetensors");
    let prompt = tokens(&golden["tokens"]);
    let engine = engine("models/tiny", Precision::F32, &[]);
    let computed = logits(&mut session(&engine, prompt.len(), 2, None), &prompt, &[prompt.len()]);
    let difference = largest_difference(&computed, &golden["logits"]);
    println!("tiny: max |dlogit| {difference:.2e}");
    assert!(difference <= TOLERANCE, "{difference:.2e}");
}

#[test]
fn greedy_text_of_the_bundled_model_matches_transformers() {
    let golden = expected("golden/tiny/expected.safetensors");
    let engine = engine("models/tiny", Precision::F32, &[]);
    for index in 0..2 {
        let mut sequence = tokens(&golden[&format!("prompt_{index}")]);
        let wanted = tokens(&golden[&format!("greedy_{index}")]);
        let start = sequence.len();
        let mut session = session(&engine, start + wanted.len(), 2, None);
        let vocabulary = engine.plan().model.vocab_size;
        while sequence.len() < start + wanted.len() {
            let rows = logits(&mut session, &sequence, &[sequence.len()]);
            let last = &rows[rows.len() - vocabulary..];
            let best = (0..vocabulary).max_by(|a, b| last[*a].total_cmp(&last[*b])).expect("a vocabulary");
            sequence.push(best as u32);
        }
        assert_eq!(sequence[start..], wanted, "prompt {index}");
    }
}
