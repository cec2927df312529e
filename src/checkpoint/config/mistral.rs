//! Field names and defaults of `MistralForCausalLM`.

use super::ModelConfig;
use super::fields::Fields;
use super::gated::{self, Defaults};
use crate::error::{Error, Result};

const DEFAULTS: Defaults = Defaults {
    architecture: "MistralForCausalLM",
    vocab_size: 32_000,
    intermediate_size: 14_336,
    kv_heads: Some(8),
    max_positions: 131_072,
    bos_token_id: Some(1),
    eos_token_ids: &[2],
};

pub(super) fn read(fields: &Fields) -> Result<ModelConfig> {
    let config = gated::read(fields, &DEFAULTS)?;
    let window = gated::sliding_window(fields, 4096)?;
    let windows = gated::windows(fields, config.layers, window, 0)?;
    // transformers runs this architecture with one window and passes over `layer_types`.
    if windows.iter().any(|of_layer| *of_layer != window) {
        return Err(Error::Unsupported {
            what: "layer_types".into(),
            why: "all layers of this family have the window that sliding_window states".into(),
        });
    }
    Ok(ModelConfig { windows, ..config })
}
