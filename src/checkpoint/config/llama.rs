//! Field names and defaults of `LlamaForCausalLM`.

use super::ModelConfig;
use super::fields::Fields;
use super::gated::{self, Defaults};
use crate::error::Result;

const DEFAULTS: Defaults = Defaults {
    architecture: "LlamaForCausalLM",
    vocab_size: 32_000,
    intermediate_size: 11_008,
    kv_heads: None,
    max_positions: 2048,
    bos_token_id: Some(1),
    eos_token_ids: &[2],
};

pub(super) fn read(fields: &Fields) -> Result<ModelConfig> {
    let config = gated::read(fields, &DEFAULTS)?;
    Ok(ModelConfig {
        windows: gated::windows(fields, config.layers, None, 0)?,
        attention_bias: fields.flag("attention_bias", false)?,
        mlp_bias: fields.flag("mlp_bias", false)?,
        ..config
    })
}
