//! Field names that families of rotary decoders with gated feed-forward layers share.

use super::fields::Fields;
use super::{
    AttentionScale, GenerationDefaults, MAX_HEAD_DIM, MAX_HEADS, MAX_LAYERS, MAX_POSITIONS, MAX_VOCAB, MAX_WIDTH,
    ModelConfig, activation, dtype,
};
use crate::error::{Error, Result};
use crate::types::Activation;

/// What a family means where its configuration is silent.
pub(super) struct Defaults {
    pub architecture: &'static str,
    pub vocab_size: u64,
    pub hidden_size: u64,
    pub intermediate_size: u64,
    pub layers: u64,
    pub heads: u64,
    /// `None`: as many as there are heads.
    pub kv_heads: Option<u64>,
    /// `None`: the hidden size shared among the heads.
    pub head_dim: Option<u64>,
    pub max_positions: u64,
    pub norm_eps: f64,
    pub tie_word_embeddings: bool,
    pub bos_token_id: Option<u32>,
    pub eos_token_ids: &'static [u32],
    pub pad_token_id: Option<u32>,
}

impl Defaults {
    /// What most families mean, for one of that name to change.
    pub const fn of(architecture: &'static str) -> Self {
        Self {
            architecture,
            vocab_size: 32_000,
            hidden_size: 4096,
            intermediate_size: 11_008,
            layers: 32,
            heads: 32,
            kv_heads: None,
            head_dim: None,
            max_positions: 2048,
            norm_eps: 1e-6,
            tie_word_embeddings: false,
            bos_token_id: None,
            eos_token_ids: &[],
            pad_token_id: None,
        }
    }
}

/// A model without biases, caps and positions whose layers all see the whole context: a family adds what it has.
pub(super) fn read(fields: &Fields, defaults: &Defaults) -> Result<ModelConfig> {
    let hidden_size = fields.count("hidden_size", Some(defaults.hidden_size), 1..=MAX_WIDTH)?;
    let layers = fields.count("num_hidden_layers", Some(defaults.layers), 1..=MAX_LAYERS)?;
    let heads = fields.count("num_attention_heads", Some(defaults.heads), 1..=MAX_HEADS)?;
    let head_dim = head_dim(fields, hidden_size, heads, defaults.head_dim)?;
    let max_positions = fields.count("max_position_embeddings", Some(defaults.max_positions), 1..=MAX_POSITIONS)?;
    let eps = fields.real("rms_norm_eps", |x| (0.0..1.0).contains(&x), "a number in 0..1")?;
    Ok(ModelConfig {
        architecture: defaults.architecture.into(),
        dtype: dtype(fields)?,
        vocab_size: fields.count("vocab_size", Some(defaults.vocab_size), 1..=MAX_VOCAB)?,
        hidden_size,
        intermediate_size: fields.count("intermediate_size", Some(defaults.intermediate_size), 1..=MAX_WIDTH)?,
        layers,
        heads,
        kv_heads: kv_heads(fields, heads, defaults.kv_heads)?,
        head_dim,
        windows: vec![None; layers],
        max_positions,
        served_positions: max_positions,
        activation: activation(fields, "hidden_act", Activation::Silu)?,
        norm_eps: eps.unwrap_or(defaults.norm_eps) as f32,
        tie_word_embeddings: fields.flag("tie_word_embeddings", defaults.tie_word_embeddings)?,
        attention_bias: false,
        mlp_bias: false,
        attention_scale: AttentionScale { by_root_of: head_dim as f64, by_layer: false },
        attention_soft_cap: None,
        logit_soft_cap: None,
        rope: None,
        local_rope: None,
        eos_token_ids: fields.tokens("eos_token_id", defaults.eos_token_ids)?,
        bos_token_id: fields.token("bos_token_id", defaults.bos_token_id)?,
        pad_token_id: fields.token("pad_token_id", defaults.pad_token_id)?,
        generation: GenerationDefaults::default(),
    })
}

/// Tokens that a sliding layer sees; `None` when the file says `null`, or nothing where there is no default.
pub(super) fn sliding_window(fields: &Fields, default: Option<u64>) -> Result<Option<usize>> {
    if fields.is_null("sliding_window") || (fields.get("sliding_window").is_none() && default.is_none()) {
        return Ok(None);
    }
    fields.count("sliding_window", default, 1..=MAX_POSITIONS).map(Some)
}

/// The window of every layer: as `layer_types` says, or else `window` where a layer `slides`.
pub(super) fn windows(
    fields: &Fields,
    layers: usize,
    window: Option<usize>,
    slides: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>> {
    let Some(types) = fields.texts("layer_types")? else {
        return Ok((0..layers).map(|layer| window.filter(|_| slides(layer))).collect());
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

/// The windows of a family whose files state one that may be switched off, and the first layer that slides.
pub(super) fn switched_windows(fields: &Fields, layers: usize) -> Result<Vec<Option<usize>>> {
    let window = match fields.flag("use_sliding_window", false)? {
        true => sliding_window(fields, Some(4096))?,
        false => None,
    };
    let first = fields.count("max_window_layers", Some(28), 0..=MAX_LAYERS)?;
    windows(fields, layers, window, |layer| layer >= first)
}

/// A cap that may be absent or `null`; `default` where the file is silent.
pub(super) fn soft_cap(fields: &Fields, name: &str, default: Option<f32>) -> Result<Option<f32>> {
    let default = default.filter(|_| !fields.is_null(name));
    let cap = fields.real(name, |x| (1e-3..=1e6).contains(&x), "a number in 1e-3..=1e6")?;
    Ok(cap.map(|cap| cap as f32).or(default))
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

/// The stated head size, the family's, or the hidden size shared among the heads; even, because rope turns pairs.
fn head_dim(fields: &Fields, hidden_size: usize, heads: usize, default: Option<u64>) -> Result<usize> {
    if fields.get("head_dim").is_none() && default.is_none() && !hidden_size.is_multiple_of(heads) {
        return Err(fields.invalid("num_attention_heads", format!("{heads} does not divide hidden_size {hidden_size}")));
    }
    let default = default.or(u64::try_from(hidden_size / heads).ok());
    let head_dim = fields.count("head_dim", default, 1..=MAX_HEAD_DIM)?;
    if head_dim % 2 == 1 {
        return Err(fields.invalid("head_dim", format!("{head_dim} is odd")));
    }
    Ok(head_dim)
}
