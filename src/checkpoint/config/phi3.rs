//! Field names and defaults of `Phi3ForCausalLM`.

use super::fields::Fields;
use super::gated::{self, Defaults};
use super::rope::{self, RopeConfig, RopeScaling};
use super::{MAX_POSITIONS, ModelConfig};
use crate::error::{Error, Result};

const DEFAULTS: Defaults = Defaults {
    vocab_size: 32_064,
    hidden_size: 3072,
    intermediate_size: 8192,
    max_positions: 4096,
    norm_eps: 1e-5,
    bos_token_id: Some(1),
    eos_token_ids: &[32_000],
    pad_token_id: Some(32_000),
    ..Defaults::of("Phi3ForCausalLM")
};

pub(super) fn read(fields: &Fields) -> Result<ModelConfig> {
    let config = gated::read(fields, &DEFAULTS)?;
    let window = gated::sliding_window(fields, None)?;
    // As in transformers all layers slide or none, whatever `layer_types` says.
    let windows = vec![window; config.layers];
    Ok(ModelConfig { windows, rope: Some(rope(fields, &config)?), ..config })
}

/// Heads may rotate in part, and every frequency may have stretches of its own for short and for long contexts.
fn rope(fields: &Fields, config: &ModelConfig) -> Result<RopeConfig> {
    let theta = rope::theta(fields, "rope_theta")?.unwrap_or(rope::DEFAULT_THETA);
    rope::described(fields, rope::parameters(fields)?.as_ref(), theta, config, |rope, rotary_dim| {
        match rope::kind(rope)? {
            None | Some("default") => Ok(RopeScaling::Default),
            // The names that files of the first versions have.
            Some("longrope" | "su" | "yarn") => {
                let original = fields.count("original_max_position_embeddings", Some(4096), 2..=MAX_POSITIONS)?;
                rope::long(rope, rotary_dim, config.max_positions, original).map(RopeScaling::Long)
            }
            Some(other) => {
                let what = format!("rope type `{other}`");
                Err(Error::Unsupported { what, why: "this family has default and longrope".into() })
            }
        }
    })
}
