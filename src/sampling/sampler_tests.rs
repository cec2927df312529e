//! The sampler against a naive one that sorts everything, in f64.

use super::*;
use crate::sampling::TokenLogprob;
use proptest::prelude::*;

fn sampler(params: SamplingParams) -> Sampler {
    Sampler::new(Arc::new(params), 0, &[], &[]).unwrap()
}

fn token(params: SamplingParams, logits: &[f32]) -> Result<u32> {
    sampler(params).sample(logits, &mut Scratch::default()).map(|s| s.token)
}

/// Probability of each token after temperature, top-k, top-p and min-p; 0 for those dropped.
fn naive(logits: &[f32], p: &SamplingParams) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |l: f32| ((f64::from(l) - f64::from(max)) / f64::from(p.temperature)).exp();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].partial_cmp(&logits[*a]).unwrap());
    if p.top_k > 0 {
        order.truncate(p.top_k as usize);
    }
    let total: f64 = order.iter().map(|t| weight(logits[*t])).sum();
    let (mut kept, mut mass) = (Vec::new(), 0.0);
    for t in order {
        if mass >= f64::from(p.top_p) * total {
            break;
        }
        mass += weight(logits[t]);
        kept.push(t);
    }
    kept.retain(|t| weight(logits[*t]) >= f64::from(p.min_p));
    let sum: f64 = kept.iter().map(|t| weight(logits[*t])).sum();
    let mut probabilities = vec![0.0; logits.len()];
    kept.iter().for_each(|t| probabilities[*t] = weight(logits[*t]) / sum);
    probabilities
}

fn filtered(logits: &[f32], p: &SamplingParams) -> Vec<f64> {
    let mut candidates = Vec::new();
    filter(logits, &sampler(p.clone()).bare_row(false), &mut candidates).unwrap();
    let total: f64 = candidates.iter().map(|c| c.weight).sum();
    let mut probabilities = vec![0.0; logits.len()];
    candidates.iter().for_each(|c| probabilities[c.token as usize] = c.weight / total);
    probabilities
}

fn params() -> impl Strategy<Value = SamplingParams> {
    // Values of top_p that no partial sum of the quantised logits below comes near.
    (1u32..40, 0u32..300, prop::sample::select(vec![0.013f32, 0.37, 0.7123, 0.951, 1.0]), 0u32..4).prop_map(
        |(t, top_k, top_p, m)| SamplingParams {
            temperature: t as f32 / 10.0,
            top_k,
            top_p,
            min_p: [0.0, 0.0313, 0.317, 1.0][m as usize],
            ..SamplingParams::default()
        },
    )
}

proptest! {
    #[test]
    fn filters_agree_with_the_naive_sampler(
        logits in prop::collection::vec((-64i32..64).prop_map(|x| x as f32 / 8.0), 1..400),
        params in params(),
    ) {
        let (ours, theirs) = (filtered(&logits, &params), naive(&logits, &params));
        for (a, b) in ours.iter().zip(&theirs) {
            prop_assert!((a - b).abs() < 1e-12, "{a} {b}");
        }
    }

    #[test]
    fn the_choice_inverts_the_distribution(
        logits in prop::collection::vec(-8.0f32..8.0, 1..200),
        params in params(),
        uniform in 0.0f64..1.0,
    ) {
        let mut candidates = Vec::new();
        filter(&logits, &sampler(params.clone()).bare_row(false), &mut candidates).unwrap();
        let chosen = pick(&candidates, uniform) as usize;
        let p = filtered(&logits, &params);
        let below: f64 = p[..chosen].iter().sum();
        prop_assert!(p[chosen] > 0.0);
        prop_assert!(below <= uniform + 1e-12 && uniform <= below + p[chosen] + 1e-12);
    }

    #[test]
    fn logprobs_agree_with_the_naive_ones(
        logits in prop::collection::vec((-80i32..80).prop_map(|x| x as f32 / 8.0), 1..100),
        top in 0u32..120,
    ) {
        let greedy = SamplingParams { logprobs: Some(top), ..SamplingParams::default() };
        let (mut sampler, mut scratch) = (sampler(greedy), Scratch::default());
        let info = sampler.sample(&logits, &mut scratch).unwrap().info.unwrap();
        let sum: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].partial_cmp(&logits[*a]).unwrap());
        order.truncate(top as usize);
        prop_assert_eq!(info.top.iter().map(|e| e.token as usize).collect::<Vec<_>>(), order);
        for TokenLogprob { token, logprob } in info.top.iter().chain([&info.chosen]) {
            let expected = (f64::from(logits[*token as usize]).exp() / sum).ln();
            prop_assert!((f64::from(*logprob) - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn greedy_takes_the_lowest_of_equals() {
    assert_eq!(token(SamplingParams::default(), &[0.0, 2.0, 2.0, 1.0]), Ok(1));
}

#[test]
fn equals_at_the_top_k_edge_go_to_the_lowest_id() {
    let params = SamplingParams { temperature: 1.0, top_k: 2, ..SamplingParams::default() };
    assert_eq!(filtered(&[1.0, 1.0, 1.0, 1.0], &params), [0.5, 0.5, 0.0, 0.0]);
}

#[test]
fn rows_without_a_distribution_are_numeric_errors() {
    let hot = SamplingParams { temperature: 1.0, ..SamplingParams::default() };
    for params in [SamplingParams::default(), hot] {
        for bad in [[0.0, f32::NAN], [0.0, f32::INFINITY], [f32::NEG_INFINITY; 2]] {
            let status = token(params.clone(), &bad).unwrap_err().status();
            assert_eq!(status, crate::error::Status::Numeric);
        }
        assert_eq!(token(params.clone(), &[f32::NEG_INFINITY, 0.0]), Ok(1));
    }
}

#[test]
fn banning_everything_is_an_error_of_its_request() {
    let ban = |token| crate::sampling::LogitBias { token, bias: f32::NEG_INFINITY };
    let params = SamplingParams { logit_bias: vec![ban(0), ban(1)], ..SamplingParams::default() };
    assert_eq!(token(params, &[0.0, 1.0]).unwrap_err().status(), crate::error::Status::Numeric);
}

#[test]
fn tiny_temperatures_are_greedy() {
    let params = SamplingParams { temperature: f32::from_bits(1), ..SamplingParams::default() };
    assert_eq!(token(params, &[-3.0e38, 3.0e38, 2.9e38]), Ok(1));
}

#[test]
fn sequences_of_one_seed_differ_and_each_repeats_itself() {
    let params = Arc::new(SamplingParams { temperature: 1.0, seed: 3, ..SamplingParams::default() });
    let run = |sequence| -> Vec<u32> {
        let mut sampler = Sampler::new(params.clone(), sequence, &[], &[]).unwrap();
        let mut scratch = Scratch::new(50).unwrap();
        (0..32).map(|_| sampler.sample(&[0.0; 50], &mut scratch).unwrap().token).collect()
    };
    assert_eq!(run(0), run(0));
    assert_ne!(run(0), run(1));
}

#[test]
fn a_warm_scratch_does_not_grow() {
    let params = SamplingParams {
        temperature: 1.0,
        top_p: 0.9,
        presence_penalty: 0.1,
        logprobs: Some(2),
        ..SamplingParams::default()
    };
    let (mut sampler, mut scratch) = (sampler(params), Scratch::new(1000).unwrap());
    let logits: Vec<f32> = (0..1000).map(|i| (i % 17) as f32).collect();
    let capacity = |s: &Scratch| (s.logits.capacity(), s.candidates.capacity(), s.order.capacity());
    let before = capacity(&scratch);
    (0..20).for_each(|_| assert!(sampler.sample(&logits, &mut scratch).unwrap().info.is_some()));
    assert_eq!(capacity(&scratch), before);
}
