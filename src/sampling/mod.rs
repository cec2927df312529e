//! From logits to tokens: parameters, logits processors, the sampler, stop words.

mod defaults;
mod logits;
mod logprob;
mod params;
mod rng;
mod sampler;
mod stop;
mod validate;

pub use logprob::{Logprobs, TokenInfo, TokenLogprob};
pub use params::{LogitBias, SamplingParams};
pub use rng::{philox, uniform};
pub use sampler::{Sampled, Sampler, Scratch, draw};
pub use stop::{StopMatcher, StopText};
pub use validate::{MAX_BIASES, MAX_LOGPROBS, MAX_SEQUENCES, MAX_STOP_LENGTH, MAX_STOPS};
