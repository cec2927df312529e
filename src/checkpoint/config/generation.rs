//! `generation_config.json`: how its author wants text to be sampled.

use serde::{Deserialize, Serialize};

use super::fields::Fields;
use crate::error::Result;

/// Sampling defaults that travel with the model; `None` where the checkpoint says nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerationDefaults {
    /// False (and absent) is greedy, whatever the other fields say.
    pub do_sample: bool,
    pub temperature: Option<f32>,
    pub top_k: Option<u32>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    /// Most tokens to generate.
    pub max_new_tokens: Option<usize>,
    /// Most tokens of prompt and output together.
    pub max_length: Option<usize>,
    pub eos_token_ids: Vec<u32>,
}

/// The file's content: defaults, and the ids that take precedence over those of `config.json`.
pub(super) struct File {
    pub defaults: GenerationDefaults,
    pub bos_token_id: Option<u32>,
    pub pad_token_id: Option<u32>,
}

pub(super) fn read(fields: &Fields) -> Result<File> {
    let limit = |name: &str| match fields.get(name) {
        None => Ok(None),
        Some(_) => fields.count(name, None, 1..=u64::from(u32::MAX)).map(Some),
    };
    let top_k = match fields.get("top_k") {
        None => None,
        Some(_) => Some(fields.count("top_k", None, 0..=super::MAX_VOCAB)? as u32),
    };
    let probability = |name: &str| fields.real(name, |x| (0.0..=1.0).contains(&x), "a number in 0..=1").map(single);
    let defaults = GenerationDefaults {
        do_sample: fields.flag("do_sample", false)?,
        temperature: single(fields.real("temperature", |x| (0.0..=100.0).contains(&x), "a number in 0..=100")?),
        top_k,
        top_p: probability("top_p")?,
        min_p: probability("min_p")?,
        repetition_penalty: single(fields.real(
            "repetition_penalty",
            |x| x > 0.0 && x <= 100.0,
            "a number above 0, at most 100",
        )?),
        max_new_tokens: limit("max_new_tokens")?,
        max_length: limit("max_length")?,
        eos_token_ids: fields.tokens("eos_token_id", &[])?,
    };
    let (bos_token_id, pad_token_id) = (fields.token("bos_token_id", None)?, fields.token("pad_token_id", None)?);
    Ok(File { defaults, bos_token_id, pad_token_id })
}

fn single(value: Option<f64>) -> Option<f32> {
    value.map(|x| x as f32)
}
