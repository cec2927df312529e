//! Inverse frequencies of rotary embedding. Positions reach 10^5, so one unit in the last place of a frequency is a
//! visible angle: the arithmetic is f32 in the order in which the reference implementation does it.

use std::f64::consts::PI;

use crate::checkpoint::{LongRope, RopeConfig, RopeScaling, Yarn};

/// Frequencies of the `rotary_dim / 2` pairs, and the factor on cosine and sine.
#[derive(Debug, Clone, PartialEq)]
pub struct Frequencies {
    pub inverse: Vec<f32>,
    pub scale: f32,
}

/// Frequencies of a model of which `positions` are in use.
#[must_use]
pub fn frequencies(rope: &RopeConfig, positions: usize) -> Frequencies {
    let periods = periods(rope.theta, rope.rotary_dim);
    let plain = periods.iter().map(|p| p.recip());
    match &rope.scaling {
        RopeScaling::Default => Frequencies { inverse: plain.collect(), scale: 1.0 },
        RopeScaling::Linear { factor } => {
            Frequencies { inverse: plain.map(|f| f / *factor as f32).collect(), scale: 1.0 }
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
            let (factor, low, high) = (*factor, *low_freq_factor, *high_freq_factor);
            let ramp = Llama3 { factor, low, high, original: *original_max_positions };
            Frequencies { inverse: plain.map(|f| ramp.stretch(f)).collect(), scale: 1.0 }
        }
        RopeScaling::Yarn(yarn) => {
            Frequencies { inverse: stretch_yarn(yarn, rope.theta, &periods), scale: yarn.attention_factor as f32 }
        }
        RopeScaling::Long(long) => {
            let inverse = stretches(long, positions).iter().zip(&periods).map(|(s, p)| (*s as f32 * p).recip());
            Frequencies { inverse: inverse.collect(), scale: long.attention_factor as f32 }
        }
    }
}

/// Those for long contexts where a context may become longer than the pretraining's. A request's length must not decide:
/// what its first tokens left in the cache would then have turned by other angles than what follows.
fn stretches(long: &LongRope, positions: usize) -> &[f64] {
    if positions > long.original_max_positions { &long.long } else { &long.short }
}

/// `theta^(2i/dims)`.
fn periods(theta: f64, dims: usize) -> Vec<f32> {
    let theta = f64::from(theta as f32);
    (0..dims / 2).map(|i| theta.powf(f64::from((2 * i) as f32 / dims as f32)) as f32).collect()
}

struct Llama3 {
    factor: f64,
    low: f64,
    high: f64,
    original: usize,
}

impl Llama3 {
    /// Keeps waves shorter than `original / high`, divides those longer than `original / low`, blends between.
    fn stretch(&self, frequency: f32) -> f32 {
        let (factor, original) = (self.factor as f32, self.original as f64);
        let wavelength = frequency.recip() * (2.0 * PI) as f32;
        if wavelength > (original / self.low) as f32 {
            return frequency / factor;
        }
        if wavelength < (original / self.high) as f32 {
            return frequency;
        }
        let kept = (wavelength.recip() * original as f32 - self.low as f32) / (self.high - self.low) as f32;
        (1.0 - kept) * frequency / factor + kept * frequency
    }
}

fn stretch_yarn(yarn: &Yarn, theta: f64, periods: &[f32]) -> Vec<f32> {
    let (low, high) = ramp(yarn, theta, 2 * periods.len());
    let stretch = |(i, period): (usize, &f32)| {
        let (kept, divided) = (period.recip(), (yarn.factor as f32 * period).recip());
        let keep = 1.0 - ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        divided * (1.0 - keep) + kept * keep
    };
    periods.iter().enumerate().map(stretch).collect()
}

/// Dimensions between which yarn goes from keeping to dividing.
fn ramp(yarn: &Yarn, theta: f64, dims: usize) -> (f64, f64) {
    let original = yarn.original_max_positions as f64;
    let dimension = |rotations: f64| dims as f64 * (original / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) = (dimension(yarn.beta_fast), dimension(yarn.beta_slow));
    if yarn.truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(dims as f64 - 1.0));
    // A ramp of no width would divide by zero.
    (low, if low == high { high + 0.001 } else { high })
}

#[cfg(test)]
mod tests;
