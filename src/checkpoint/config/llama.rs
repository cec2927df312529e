//! Field names and defaults of `LlamaForCausalLM`.

use super::fields::Fields;
use super::{
    AttentionScale, GenerationDefaults, MAX_HEAD_DIM, MAX_HEADS, MAX_LAYERS, MAX_POSITIONS, MAX_VOCAB, MAX_WIDTH,
    ModelConfig, activation, dtype, rope,
};
use crate::error::{Error, Result};
use crate::types::Activation;

pub(super) fn read(fields: &Fields) -> Result<ModelConfig> {
    let hidden_size = fields.count("hidden_size", Some(4096), 1..=MAX_WIDTH)?;
    let layers = fields.count("num_hidden_layers", Some(32), 1..=MAX_LAYERS)?;
    let heads = fields.count("num_attention_heads", Some(32), 1..=MAX_HEADS)?;
    let max_positions = fields.count("max_position_embeddings", Some(2048), 1..=MAX_POSITIONS)?;
    full_attention(fields, layers)?;
    Ok(ModelConfig {
        architecture: "LlamaForCausalLM".into(),
        dtype: dtype(fields)?,
        vocab_size: fields.count("vocab_size", Some(32_000), 1..=MAX_VOCAB)?,
        hidden_size,
        intermediate_size: fields.count("intermediate_size", Some(11_008), 1..=MAX_WIDTH)?,
        layers,
        heads,
        kv_heads: kv_heads(fields, heads)?,
        head_dim: head_dim(fields, hidden_size, heads)?,
        max_positions,
        activation: activation(fields, "hidden_act", Activation::Silu)?,
        norm_eps: fields.real("rms_norm_eps", |x| (0.0..1.0).contains(&x), "a number in 0..1")?.unwrap_or(1e-6) as f32,
        tie_word_embeddings: fields.flag("tie_word_embeddings", false)?,
        attention_bias: fields.flag("attention_bias", false)?,
        mlp_bias: fields.flag("mlp_bias", false)?,
        attention_scale: AttentionScale { by_head_dim: true, by_layer: false },
        rope: Some(rope::read(fields, max_positions)?),
        eos_token_ids: fields.tokens("eos_token_id", &[2])?,
        bos_token_id: fields.token("bos_token_id", Some(1))?,
        pad_token_id: fields.token("pad_token_id", None)?,
        generation: GenerationDefaults::default(),
    })
}

fn kv_heads(fields: &Fields, heads: usize) -> Result<usize> {
    let kv_heads = fields.count("num_key_value_heads", u64::try_from(heads).ok(), 1..=MAX_HEADS)?;
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

fn full_attention(fields: &Fields, layers: usize) -> Result<()> {
    let Some(types) = fields.texts("layer_types")? else {
        return Ok(());
    };
    if types.len() != layers {
        return Err(fields.invalid("layer_types", format!("lists {} layers of {layers}", types.len())));
    }
    match types.into_iter().find(|kind| *kind != "full_attention") {
        None => Ok(()),
        Some(kind) => Err(Error::Unsupported {
            what: format!("layer type `{kind}`"),
            why: "this family has full_attention layers only".into(),
        }),
    }
}
