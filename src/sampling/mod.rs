//! From logits to tokens: parameters, logits processors, the sampler, stop words.

mod params;

pub use params::{LogitBias, SamplingParams};
