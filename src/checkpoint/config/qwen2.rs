//! Field names and defaults of `Qwen2ForCausalLM`.

use super::fields::Fields;
use super::gated::{self, Defaults};
use super::{MAX_LAYERS, ModelConfig};
use crate::error::Result;

const DEFAULTS: Defaults = Defaults {
    architecture: "Qwen2ForCausalLM",
    vocab_size: 151_936,
    intermediate_size: 22_016,
    kv_heads: Some(32),
    max_positions: 32_768,
    bos_token_id: None,
    eos_token_ids: &[],
};

pub(super) fn read(fields: &Fields) -> Result<ModelConfig> {
    let config = gated::read(fields, &DEFAULTS)?;
    // Files state a window that is switched off.
    let window = match fields.flag("use_sliding_window", false)? {
        true => gated::sliding_window(fields, 4096)?,
        false => None,
    };
    let first = fields.count("max_window_layers", Some(28), 0..=MAX_LAYERS)?;
    Ok(ModelConfig { windows: gated::windows(fields, config.layers, window, first)?, ..config })
}
