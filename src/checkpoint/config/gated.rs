//! Field names that families of rotary decoders with gated feed-forward layers share.

use super::fields::Fields;
use super::{
    AttentionScale, GenerationDefaults, MAX_HEAD_DIM, MAX_HEADS, MAX_LAYERS, MAX_POSITIONS, MAX_VOCAB, MAX_WIDTH,
    ModelConfig, activation, dtype, rope,
};
use crate::error::{Error, Result};
use crate::types::Activation;

/// What a family means where its configuration is silent.
pub(super) struct Defaults {
    pub architecture: &'static str,
    pub vocab_size: u64,
    pub intermediate_size: u64,
    /// `None`: as many as there are heads.
    pub kv_heads: Option<u64>,
    pub max_positions: u64,
    pub bos_token_id: Option<u32>,
    pub eos_token_ids: &'static [u32],
}

/// A model without biases whose layers all see the whole context: a family adds what it has.
pub(super) fn read(fields: &Fields, defaults: &Defaults) -> Result<ModelConfig> {
    let hidden_size = fields.count("hidden_size", Some(4096), 1..=MAX_WIDTH)?;
    let layers = fields.count("num_hidden_layers", Some(32), 1..=MAX_LAYERS)?;
    let heads = fields.count("num_attention_heads", Some(32), 1..=MAX_HEADS)?;
    let max_positions = fields.count("max_position_embeddings", Some(defaults.max_positions), 1..=MAX_POSITIONS)?;
    Ok(ModelConfig {
        architecture: defaults.architecture.into(),
        dtype: dtype(fields)?,
        vocab_size: fields.count("vocab_size", Some(defaults.vocab_size), 1..=MAX_VOCAB)?,
        hidden_size,
        intermediate_size: fields.count("intermediate_size", Some(defaults.intermediate_size), 1..=MAX_WIDTH)?,
        layers,
        heads,
        kv_heads: kv_heads(fields, heads, defaults.kv_heads)?,
        head_dim: head_dim(fields, hidden_size, heads)?,
        windows: vec![None; layers],
        max_positions,
        activation: activation(fields, "hidden_act", Activation::Silu)?,
        norm_eps: fields.real("rms_norm_eps", |x| (0.0..1.0).contains(&x), "a number in 0..1")?.unwrap_or(1e-6) as f32,
        tie_word_embeddings: fields.flag("tie_word_embeddings", false)?,
        attention_bias: false,
        mlp_bias: false,
        attention_scale: AttentionScale { by_head_dim: true, by_layer: false },
        rope: Some(rope::read(fields, max_positions)?),
        eos_token_ids: fields.tokens("eos_token_id", defaults.eos_token_ids)?,
        bos_token_id: fields.token("bos_token_id", defaults.bos_token_id)?,
        pad_token_id: fields.token("pad_token_id", None)?,
        generation: GenerationDefaults::default(),
    })
}

/// Tokens that a sliding layer sees; `None` when the file says `null`.
pub(super) fn sliding_window(fields: &Fields, default: u64) -> Result<Option<usize>> {
    if fields.is_null("sliding_window") {
        return Ok(None);
    }
    fields.count("sliding_window", Some(default), 1..=MAX_POSITIONS).map(Some)
}

/// The window of every layer: as `layer_types` says, or else `window` from layer `first` on.
pub(super) fn windows(
    fields: &Fields,
    layers: usize,
    window: Option<usize>,
    first: usize,
) -> Result<Vec<Option<usize>>> {
    let Some(types) = fields.texts("layer_types")? else {
        return Ok((0..layers).map(|layer| window.filter(|_| layer >= first)).collect());
    };
    if types.len() != layers {
        return Err(fields.invalid("layer_types", format!("lists {} layers of {layers}", types.len())));
    }
    let of_type = |kind| match (kind, window) {
        ("full_attention", _) => Ok(None),
        ("sliding_attention", Some(window)) => Ok(Some(window)),
        _ => Err(Error::Unsupported {
            what: format!("layer type `{kind}`"),
            why: "there are full_attention layers and, where the model has a window, sliding_attention layers".into(),
        }),
    };
    types.into_iter().map(of_type).collect()
}

/// Written as `null` it is as many as there are heads, whatever the family's default.
fn kv_heads(fields: &Fields, heads: usize, default: Option<u64>) -> Result<usize> {
    let default = default.filter(|_| !fields.is_null("num_key_value_heads")).or(u64::try_from(heads).ok());
    let kv_heads = fields.count("num_key_value_heads", default, 1..=MAX_HEADS)?;
    if heads.is_multiple_of(kv_heads) {
        return Ok(kv_heads);
    }
    Err(fields.invalid("num_key_value_heads", format!("{kv_heads} does not divide {heads} heads")))
}

/// The stated head size, or the hidden size shared among the heads; even, because rope turns pairs.
fn head_dim(fields: &Fields, hidden_size: usize, heads: usize) -> Result<usize> {
    if fields.get("head_dim").is_none() && !hidden_size.is_multiple_of(heads) {
        return Err(fields.invalid("num_attention_heads", format!("{heads} does not divide hidden_size {hidden_size}")));
    }
    let head_dim = fields.count("head_dim", u64::try_from(hidden_size / heads).ok(), 1..=MAX_HEAD_DIM)?;
    if head_dim % 2 == 1 {
        return Err(fields.invalid("head_dim", format!("{head_dim} is odd")));
    }
    Ok(head_dim)
}
