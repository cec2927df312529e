//! What a request asks of the sampler.

/// An addition to one token's logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitBias {
    pub token: u32,
    /// Added to the logit; finite, or `-inf` to ban the token.
    pub bias: f32,
}

/// Sampling parameters of one request. Order: repetition penalty, presence and frequency penalties, bias, ban of EOS ids
/// below `min_tokens`, temperature, top-k, top-p over what top-k kept, min-p; ties go to the lower id. [`Default`] is greedy without limits but `max_tokens`.
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
    /// Above 0; 1 is off. Logits of tokens in prompt or output are divided (positive) or multiplied (negative) by it.
    pub repetition_penalty: f32,
    /// Subtracted once from the logit of every token already generated.
    pub presence_penalty: f32,
    /// Subtracted per occurrence among the generated tokens.
    pub frequency_penalty: f32,
    /// At most 4096 entries; several for one token add up.
    pub logit_bias: Vec<LogitBias>,
    /// Generation ends before this text would be delivered (the stop text itself is not delivered).
    /// At most 64, each of 1 to 1024 bytes.
    pub stop_strings: Vec<String>,
    /// Generation ends when the output ends with one of these (the sequence itself is delivered as tokens, not as text).
    /// At most 64, each of 1 to 1024 tokens.
    pub stop_sequences: Vec<Vec<u32>>,
    /// Stops are ignored and EOS ids are banned before this many tokens; at most `max_tokens`.
    pub min_tokens: u32,
    /// At least 1.
    pub max_tokens: u32,
    /// Never end at an EOS id.
    pub ignore_eos: bool,
    /// Log-probabilities of the n most likely tokens beside the chosen one, at most 1024; `None` is off, `Some(0)` the chosen one only.
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
