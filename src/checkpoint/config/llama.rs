//! Field names and defaults of `LlamaForCausalLM`.

use super::fields::Fields;
use super::gated::{self, Defaults};
use super::{ModelConfig, rope};
use crate::error::Result;

const DEFAULTS: Defaults = Defaults { bos_token_id: Some(1), eos_token_ids: &[2], ..Defaults::of("LlamaForCausalLM") };

pub(super) fn read(fields: &Fields) -> Result<ModelConfig> {
    let config = gated::read(fields, &DEFAULTS)?;
    Ok(ModelConfig {
        windows: gated::windows(fields, config.layers, None, |_| false)?,
        attention_bias: fields.flag("attention_bias", false)?,
        mlp_bias: fields.flag("mlp_bias", false)?,
        rope: Some(rope::read(fields, &config)?),
        ..config
    })
}
