//! Field names and defaults of `Gemma2ForCausalLM`.

use super::fields::Fields;
use super::gated::{self, Defaults};
use super::{AttentionScale, ModelConfig, activation, rope};
use crate::error::{Error, Result};
use crate::types::Activation;

const DEFAULTS: Defaults = Defaults { vocab_size: 256_000, max_positions: 8192, ..shared("Gemma2ForCausalLM") };

/// What both generations mean where they are silent.
pub(super) const fn shared(architecture: &'static str) -> Defaults {
    Defaults {
        hidden_size: 2304,
        intermediate_size: 9216,
        layers: 26,
        heads: 8,
        kv_heads: Some(4),
        head_dim: Some(256),
        tie_word_embeddings: true,
        bos_token_id: Some(2),
        eos_token_ids: &[1],
        pad_token_id: Some(0),
        ..Defaults::of(architecture)
    }
}

pub(super) fn read(fields: &Fields) -> Result<ModelConfig> {
    let config = gated::read(fields, &DEFAULTS)?;
    Ok(ModelConfig {
        windows: windows(fields, config.layers, 2)?,
        attention_soft_cap: gated::soft_cap(fields, "attn_logit_softcapping", Some(50.0))?,
        logit_soft_cap: gated::soft_cap(fields, "final_logit_softcapping", Some(30.0))?,
        rope: Some(rope::read(fields, &config)?),
        ..features(fields, config)?
    })
}

/// `config` with what both generations have.
pub(super) fn features(fields: &Fields, config: ModelConfig) -> Result<ModelConfig> {
    if fields.flag("use_bidirectional_attention", false)? {
        let why = "a token sees no later ones here".into();
        return Err(Error::Unsupported { what: "use_bidirectional_attention".into(), why });
    }
    let scalar = fields.real("query_pre_attn_scalar", |x| (1e-6..=1e6).contains(&x), "a number in 1e-6..=1e6")?;
    Ok(ModelConfig {
        activation: activation(fields, "hidden_activation", Activation::GeluTanh)?,
        attention_bias: fields.flag("attention_bias", false)?,
        attention_scale: AttentionScale { by_root_of: scalar.unwrap_or(256.0), by_layer: false },
        ..config
    })
}

/// All layers slide but each `pattern`th.
pub(super) fn windows(fields: &Fields, layers: usize, pattern: usize) -> Result<Vec<Option<usize>>> {
    let Some(window) = gated::sliding_window(fields, Some(4096))? else {
        return Err(fields.invalid("sliding_window", "is null where layers slide"));
    };
    gated::windows(fields, layers, Some(window), |layer| !(layer + 1).is_multiple_of(pattern))
}
