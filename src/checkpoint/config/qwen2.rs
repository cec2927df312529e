//! Field names and defaults of `Qwen2ForCausalLM`.

use super::fields::Fields;
use super::gated::{self, Defaults};
use super::{ModelConfig, rope};
use crate::error::Result;

const DEFAULTS: Defaults = Defaults {
    vocab_size: 151_936,
    intermediate_size: 22_016,
    kv_heads: Some(32),
    max_positions: 32_768,
    ..Defaults::of("Qwen2ForCausalLM")
};

pub(super) fn read(fields: &Fields) -> Result<ModelConfig> {
    let config = gated::read(fields, &DEFAULTS)?;
    Ok(ModelConfig {
        windows: gated::switched_windows(fields, config.layers)?,
        rope: Some(rope::read(fields, &config)?),
        ..config
    })
}
