//! What narrow types cost: the mean KL divergence from Hugging Face f32 over a fixed text, held against Hugging Face's own
//! bf16, and against what the rounding of e4m3 and of int8 predicts.

mod common;

use common::{engine_with, expected, logits, session, tests_path, tokens};
use trtllm::builder::BuildOptions;
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

fn plain(precision: Precision) -> BuildOptions {
    BuildOptions { precision: Some(precision), ..BuildOptions::default() }
}

/// Over the fixture's text: the mean divergence, and the mean variance of a position's logits.
fn measure(options: &BuildOptions, isa: Option<&str>) -> (f64, f64) {
    let golden = expected("golden/kl/tokens.safetensors");
    let text = tokens(&golden["tokens"]);
    let (top_tokens, top_log_probs) = (tokens(&golden["top_tokens"]), &golden["top_log_probs"]);
    let (window, top) = (512, top_tokens.len() / text.len());
    let engine = engine_with(&tests_path("models/tiny"), options);
    let vocabulary = engine.plan().model.vocab_size;
    let mut session = session(&engine, window, 2, isa);
    let (mut sum, mut variances) = (0.0, 0.0);
    for (w, tokens) in text.chunks(window).enumerate() {
        let rows = logits(&mut session, tokens, &[tokens.len()]);
        for (i, row) in rows.chunks(vocabulary).enumerate() {
            let position = w * window + i;
            let at = position * top..(position + 1) * top;
            sum += divergence(row, &top_tokens[at.clone()], &top_log_probs[at], f64::from(golden["rest"][position]));
            variances += variance(row);
        }
    }
    (sum / text.len() as f64, variances / text.len() as f64)
}

fn mean_divergence(options: &BuildOptions, isa: Option<&str>) -> f64 {
    measure(options, isa).0
}

fn variance(row: &[f32]) -> f64 {
    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / row.len() as f64;
    row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / row.len() as f64
}

/// Hugging Face's own bf16 against its f32, from the fixture.
fn transformers_bf16() -> f64 {
    let json = std::fs::read(tests_path("golden/kl/expected.json")).expect("the fixture is there");
    let json: serde_json::Value = serde_json::from_slice(&json).expect("the fixture is JSON");
    json["hf_bf16_mean_kl"].as_f64().expect("a number")
}

#[test]
fn f32_has_no_divergence() {
    let mean = mean_divergence(&plain(Precision::F32), None);
    println!("f32: mean KL {mean:.3e}");
    // The fixture stores f32 log-probabilities: their rounding alone leaves about 1e-9.
    assert!(mean.abs() <= 1e-8, "{mean:.3e}");
}

#[test]
fn bf16_diverges_no_more_than_one_and_a_half_times_transformers() {
    let bar = transformers_bf16();
    for isa in trtllm::backend::cpu::Isa::available() {
        let mean = mean_divergence(&plain(Precision::Bf16), Some(isa.name()));
        println!("bf16 on {}: mean KL {mean:.3e}, {:.2} x transformers' {bar:.3e}", isa.name(), mean / bar);
        assert!(mean <= 1.5 * bar, "{}: {mean:.3e} against {bar:.3e}", isa.name());
    }
}

#[test]
fn f16_diverges_less_than_transformers_bf16() {
    let (mean, bar) = (mean_divergence(&plain(Precision::F16), None), transformers_bf16());
    println!("f16: mean KL {mean:.3e}, {:.4} x transformers' bf16 {bar:.3e}", mean / bar);
    assert!(mean <= bar, "{mean:.3e} against {bar:.3e}");
}

/// With a 16-bit head, fp8 stays below Hugging Face's own bf16, which rounds activations and logits too.
///
/// An element of e4m3 is off by 2^-3 sqrt(1/24) = 2.6 % of itself (the spacing 2^-3/m over sqrt 12, mean over the mantissa m
/// from 1 to 2), and the errors of a row are independent: an fp8 head moves each logit by at most 2.6 % of the logits'
/// deviation s, as much only where the products it adds up have random signs. The divergence is at most half the variance of
/// that, (0.026 s)^2 / 2, as much only where many tokens are about as likely.
#[test]
fn fp8_diverges_no_more_than_its_rounding_explains() {
    let fp8 = Some(Precision::Fp8);
    let (_, variance) = measure(&plain(Precision::F32), None);
    let (bar, explained) = (transformers_bf16(), variance / 24.0 / 64.0 / 2.0);
    let base = plain(Precision::Fp8);
    for (name, options, most) in [
        ("f32 with an fp8 cache", BuildOptions { kv_precision: fp8, ..plain(Precision::F32) }, bar),
        ("fp8", base.clone(), bar),
        ("fp8 with an fp8 cache", BuildOptions { kv_precision: fp8, ..base.clone() }, bar),
        ("fp8 with an fp8 head", BuildOptions { head_precision: fp8, ..base }, explained),
    ] {
        let mean = mean_divergence(&options, None);
        println!(
            "{name}: mean KL {mean:.3e}; transformers' bf16 {bar:.3e}, a head's rounding explains {explained:.3e}"
        );
        // What is not narrow at all diverges by 1e-8.
        assert!((1e-7..most).contains(&mean), "{name}: {mean:.3e} against {most:.3e}");
    }
}

/// The largest element of a row of some hundred normal ones rarely exceeds four deviations. A code of 8 bits is then off by a
/// 127th of that over sqrt 12 = 0.9 % of the deviation, and a layer of rounded weights moves its output by that share, one that
/// rounds its input too by sqrt 2 times as much. A head alone moves each logit so, and the divergence is at most half the
/// variance of that.
///
/// With weights alone rounded everything stays below Hugging Face's own bf16, which rounds activations too. Where rows are
/// quantised as well, all layers together stay below what a head that rounds both may add: each layer is but one of the terms
/// of the residual stream.
#[test]
fn int8_diverges_no_more_than_its_rounding_explains() {
    let (_, variance) = measure(&plain(Precision::F32), None);
    let explained = variance * (4.0f64 / 127.0).powi(2) / 12.0 / 2.0;
    let bar = transformers_bf16();
    for (precision, most) in [(Precision::Int8, bar), (Precision::Int8W8a8, 2.0 * explained)] {
        for head_precision in [None, Some(precision)] {
            let options = BuildOptions { head_precision, ..plain(precision) };
            let mean = mean_divergence(&options, None);
            let head = head_precision.unwrap_or(Precision::Bf16);
            println!(
                "{precision} with a {head} head: mean KL {mean:.3e}; transformers' bf16 {bar:.3e}, a head's rounding explains \
                 {explained:.3e}"
            );
            assert!((1e-7..most).contains(&mean), "{precision}, {head} head: {mean:.3e} against {most:.3e}");
        }
    }
}
