//! Sampling parameters: how a token is chosen from the logits, and when a generation ends. Start from
//! `TRTLLM_SAMPLING_INIT` (greedy) or from `trtllm_engine_get_sampling` (what the model's authors recommend). Stop strings,
//! stop sequences and logit biases are lists and stand in the request.

use super::argument::flag;
use super::panic::boundary;
use super::sized::{self, Config, Growing};
use super::status::trtllm_status;
use crate::error::{Error, Result};
use crate::sampling::SamplingParams;

/// Sampling parameters of one request. Impossible values are refused when the request is submitted.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct trtllm_sampling {
    /// Set by `TRTLLM_SAMPLING_INIT`.
    pub struct_size: usize,
    /// Key of the random generator: the same seed gives the same tokens whatever else runs. Default 0.
    pub seed: u64,
    /// 0 always takes the most likely token; otherwise logits are divided by it. 0 to 100. Default 0.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all. Default 0.
    pub top_k: u32,
    /// Keep the smallest set whose probability reaches this; above 0, up to 1, which keeps all. Default 1.
    pub top_p: f32,
    /// Drop tokens less likely than this times the most likely one; 0 to 1. Default 0.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or output; above 0, 1 is off. Default 1.
    pub repetition_penalty: f32,
    /// Subtracted once from the logit of every token already generated. Default 0.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a generated token once per occurrence. Default 0.
    pub frequency_penalty: f32,
    /// No end of text and no stop before this many tokens. Default 0.
    pub min_tokens: u32,
    /// Most tokens to generate, at least 1. Default 128.
    pub max_tokens: u32,
    /// Sequences generated from the one prompt, 1 to 128. Default 1.
    pub n: u32,
    /// Log-probabilities of so many most likely tokens beside the chosen one; 0: of the chosen one alone; -1: none. Default -1.
    pub logprobs: i32,
    /// 1: an end-of-text token does not end the generation. Default 0.
    pub ignore_eos: i32,
}

// SAFETY: two words and twelve half words; numbers only.
unsafe impl Growing for trtllm_sampling {
    const OLDEST_SIZE: usize = 64;
}
// SAFETY: begins with its size.
unsafe impl Config for trtllm_sampling {}

const _: () = assert!(size_of::<trtllm_sampling>() == 64);

impl Default for trtllm_sampling {
    fn default() -> Self {
        Self::from_params(&SamplingParams::default())
    }
}

impl trtllm_sampling {
    /// The scalar half of `params`.
    pub(super) fn from_params(params: &SamplingParams) -> Self {
        Self {
            struct_size: size_of::<Self>(),
            seed: params.seed,
            temperature: params.temperature,
            top_k: params.top_k,
            top_p: params.top_p,
            min_p: params.min_p,
            repetition_penalty: params.repetition_penalty,
            presence_penalty: params.presence_penalty,
            frequency_penalty: params.frequency_penalty,
            min_tokens: params.min_tokens,
            max_tokens: params.max_tokens,
            n: params.n,
            logprobs: params.logprobs.map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX)),
            ignore_eos: i32::from(params.ignore_eos),
        }
    }

    /// The parameters, with empty lists. Ranges are the sampler's to judge.
    pub(super) fn to_params(self) -> Result<SamplingParams> {
        Ok(SamplingParams {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: Vec::new(),
            stop_strings: Vec::new(),
            stop_sequences: Vec::new(),
            min_tokens: self.min_tokens,
            max_tokens: self.max_tokens,
            ignore_eos: flag(self.ignore_eos, "sampling.ignore_eos")?,
            logprobs: match self.logprobs {
                -1 => None,
                n => Some(u32::try_from(n).map_err(|_| {
                    Error::argument("sampling.logprobs", format!("is {n}, not -1 or a number of tokens"))
                })?),
            },
            n: self.n,
        })
    }
}

/// Writes the defaults of `TRTLLM_SAMPLING_INIT` into `sampling`, for languages without macros.
///
/// `struct_size`: the size of the caller's `trtllm_sampling`.
/// Ownership: borrows `sampling`. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_sampling_init(struct_size: usize, sampling: *mut trtllm_sampling) -> trtllm_status {
    // SAFETY: as the C contract says.
    boundary("trtllm_sampling_init", || unsafe { sized::init(sampling, struct_size, "sampling") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_survive_the_round_trip() {
        let params = SamplingParams {
            temperature: 0.5,
            top_k: 3,
            top_p: 0.9,
            min_p: 0.1,
            seed: 7,
            repetition_penalty: 1.1,
            presence_penalty: 0.2,
            frequency_penalty: 0.3,
            min_tokens: 4,
            max_tokens: 5,
            ignore_eos: true,
            logprobs: Some(2),
            n: 6,
            ..SamplingParams::default()
        };
        assert_eq!(trtllm_sampling::from_params(&params).to_params().unwrap(), params);
        assert_eq!(trtllm_sampling::default().to_params().unwrap(), SamplingParams::default());
    }
}
