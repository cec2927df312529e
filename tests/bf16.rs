//! What bf16 costs: the mean KL divergence from Hugging Face f32 over a fixed text, held against Hugging Face's own bf16.

mod common;

use common::{engine, expected, logits, session, tests_path, tokens};
use trtllm::engine::Precision;

/// Log-probabilities of one row in f64.
fn log_softmax(row: &[f32]) -> Vec<f64> {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|x| f64::from(x - top).exp()).sum();
    row.iter().map(|x| f64::from(x - top) - sum.ln()).collect()
}

/// KL(reference || computed) of one position: the reference's most likely tokens one by one, all others as one event.
fn divergence(computed: &[f32], top_tokens: &[u32], top_log_probs: &[f32], rest: f64) -> f64 {
    let log_q = log_softmax(computed);
    let listed: f64 = std::iter::zip(top_tokens, top_log_probs)
        .map(|(token, log_p)| f64::from(*log_p).exp() * (f64::from(*log_p) - log_q[*token as usize]))
        .sum();
    let others = (0..computed.len()).filter(|token| !top_tokens.contains(&(*token as u32)));
    let rest_q: f64 = others.map(|token| log_q[token].exp()).sum();
    if rest > 0.0 { listed + rest * (rest / rest_q).ln() } else { listed }
}

fn mean_divergence(precision: Precision, isa: Option<&str>) -> f64 {
    let golden = expected("golden/kl/tokens.safetensors");
    let text = tokens(&golden["tokens"]);
    let (top_tokens, top_log_probs) = (tokens(&golden["top_tokens"]), &golden["top_log_probs"]);
    let (window, top) = (512, top_tokens.len() / text.len());
    let engine = engine("models/tiny", precision, &[]);
    let vocabulary = engine.plan().model.vocab_size;
    let mut session = session(&engine, window, 2, isa);
    let mut sum = 0.0;
    for (w, tokens) in text.chunks(window).enumerate() {
        let rows = logits(&mut session, tokens, &[tokens.len()]);
        for (i, row) in rows.chunks(vocabulary).enumerate() {
            let position = w * window + i;
            let at = position * top..(position + 1) * top;
            sum += divergence(row, &top_tokens[at.clone()], &top_log_probs[at], f64::from(golden["rest"][position]));
        }
    }
    sum / text.len() as f64
}

/// Hugging Face's own bf16 against its f32, from the fixture.
fn transformers_bf16() -> f64 {
    let json = std::fs::read(tests_path("golden/kl/expected.json")).expect("the fixture is there");
    let json: serde_json::Value = serde_json::from_slice(&json).expect("the fixture is JSON");
    json["hf_bf16_mean_kl"].as_f64().expect("a number")
}

#[test]
fn f32_has_no_divergence() {
    let mean = mean_divergence(Precision::F32, None);
    println!("f32: mean KL {mean:.3e}");
    // The fixture stores f32 log-probabilities: their rounding alone leaves about 1e-9.
    assert!(mean.abs() <= 1e-8, "{mean:.3e}");
}

#[test]
fn bf16_diverges_no_more_than_one_and_a_half_times_transformers() {
    let bar = transformers_bf16();
    for isa in trtllm::backend::cpu::Isa::available() {
        let mean = mean_divergence(Precision::Bf16, Some(isa.name()));
        println!("bf16 on {}: mean KL {mean:.3e}, {:.2} x transformers' {bar:.3e}", isa.name(), mean / bar);
        assert!(mean <= 1.5 * bar, "{}: {mean:.3e} against {bar:.3e}", isa.name());
    }
}
