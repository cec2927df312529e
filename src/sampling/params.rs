//! What a request asks of the sampler.

/// An addition to one token's logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitBias {
    pub token: u32,
    /// Added to the logit; `-inf` bans the token.
    pub bias: f32,
}

/// Sampling parameters of one request. [`Default`] is greedy without limits but `max_tokens`.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy; otherwise logits are divided by it. Finite, 0..=100.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set whose probability reaches this; in (0, 1], 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than `min_p` times the most likely one; in [0, 1].
    pub min_p: f32,
    /// Key of the counter-based generator; the same seed gives the same tokens whatever else runs.
    pub seed: u64,
    /// > 0; 1 is off. Logits of tokens in prompt or output are divided (positive) or multiplied (negative) by it.
    pub repetition_penalty: f32,
    /// Subtracted once from the logit of every token already generated.
    pub presence_penalty: f32,
    /// Subtracted per occurrence among the generated tokens.
    pub frequency_penalty: f32,
    pub logit_bias: Vec<LogitBias>,
    /// Generation ends before this text would be delivered (the stop text itself is not delivered).
    pub stop_strings: Vec<String>,
    /// Generation ends when the output ends with one of these (the sequence itself is delivered as tokens, not as text).
    pub stop_sequences: Vec<Vec<u32>>,
    /// EOS and stops are ignored before this many tokens; EOS ids are banned until then.
    pub min_tokens: u32,
    /// At least 1.
    pub max_tokens: u32,
    /// Never end at an EOS id.
    pub ignore_eos: bool,
    /// Log-probabilities of the n most likely tokens beside the chosen one; `None` is off, `Some(0)` the chosen one only.
    pub logprobs: Option<u32>,
    /// Sequences returned for one prompt; 1..=128. Sequence i samples with key (seed, i).
    pub n: u32,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            stop_strings: Vec::new(),
            stop_sequences: Vec::new(),
            min_tokens: 0,
            max_tokens: 128,
            ignore_eos: false,
            logprobs: None,
            n: 1,
        }
    }
}
