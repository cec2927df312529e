//! Field names and defaults of `Qwen3ForCausalLM`.

use super::fields::Fields;
use super::gated::{self, Defaults};
use super::{ModelConfig, rope};
use crate::error::Result;

const DEFAULTS: Defaults = Defaults {
    vocab_size: 151_936,
    intermediate_size: 22_016,
    kv_heads: Some(32),
    head_dim: Some(128),
    max_positions: 32_768,
    ..Defaults::of("Qwen3ForCausalLM")
};

pub(super) fn read(fields: &Fields) -> Result<ModelConfig> {
    let config = gated::read(fields, &DEFAULTS)?;
    Ok(ModelConfig {
        windows: gated::switched_windows(fields, config.layers)?,
        attention_bias: fields.flag("attention_bias", false)?,
        rope: Some(rope::read(fields, &config)?),
        ..config
    })
}
