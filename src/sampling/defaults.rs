//! Sampling parameters that a checkpoint recommends.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::sampling::SamplingParams;

/// The fields of `generation_config.json` that concern sampling; null is absent.
#[derive(Deserialize)]
struct File {
    do_sample: Option<bool>,
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    max_new_tokens: Option<u32>,
}

impl SamplingParams {
    /// The parameters that a `generation_config.json` asks for: greedy unless it says `do_sample`.
    ///
    /// # Errors
    /// `InvalidConfig` naming what cannot be read. Ranges are judged when a request is submitted.
    pub fn from_generation_config(json: &[u8]) -> Result<Self> {
        let file: File = serde_json::from_slice(json)
            .map_err(|e| Error::InvalidConfig { what: "generation_config.json".to_owned(), why: e.to_string() })?;
        let base = Self::default();
        let base = Self {
            repetition_penalty: file.repetition_penalty.unwrap_or(base.repetition_penalty),
            max_tokens: file.max_new_tokens.unwrap_or(base.max_tokens),
            ..base
        };
        if file.do_sample != Some(true) {
            return Ok(base);
        }
        Ok(Self {
            temperature: file.temperature.unwrap_or(1.0),
            top_k: file.top_k.unwrap_or(base.top_k),
            top_p: file.top_p.unwrap_or(base.top_p),
            min_p: file.min_p.unwrap_or(base.min_p),
            ..base
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampling_fields_count_only_with_do_sample() {
        let greedy = br#"{"temperature": 0.7, "top_k": 40, "repetition_penalty": 1.1, "max_new_tokens": 9}"#;
        let params = SamplingParams::from_generation_config(greedy).unwrap();
        assert_eq!((params.temperature, params.top_k, params.max_tokens), (0.0, 0, 9));
        assert_eq!(params.repetition_penalty, 1.1);
        let sampled = br#"{"do_sample": true, "temperature": 0.7, "top_p": null, "eos_token_id": [1, 2]}"#;
        let params = SamplingParams::from_generation_config(sampled).unwrap();
        assert_eq!((params.temperature, params.top_p), (0.7, 1.0));
    }

    #[test]
    fn a_field_of_a_wrong_type_is_refused() {
        let error = SamplingParams::from_generation_config(br#"{"top_k": "many"}"#).unwrap_err();
        assert!(matches!(error, Error::InvalidConfig { .. }), "{error}");
    }
}
