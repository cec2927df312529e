//! Field names and defaults of `MistralForCausalLM`.

use super::fields::Fields;
use super::gated::{self, Defaults};
use super::{ModelConfig, rope};
use crate::error::{Error, Result};

const DEFAULTS: Defaults = Defaults {
    intermediate_size: 14_336,
    kv_heads: Some(8),
    max_positions: 131_072,
    bos_token_id: Some(1),
    eos_token_ids: &[2],
    ..Defaults::of("MistralForCausalLM")
};

pub(super) fn read(fields: &Fields) -> Result<ModelConfig> {
    let config = gated::read(fields, &DEFAULTS)?;
    let window = gated::sliding_window(fields, Some(4096))?;
    let windows = gated::windows(fields, config.layers, window, |_| true)?;
    // transformers runs this architecture with one window and passes over `layer_types`.
    if windows.iter().any(|of_layer| *of_layer != window) {
        return Err(Error::Unsupported {
            what: "layer_types".into(),
            why: "all layers of this family have the window that sliding_window states".into(),
        });
    }
    Ok(ModelConfig { windows, rope: Some(rope::read(fields, &config)?), ..config })
}
