//! Field names and defaults of `GPT2LMHeadModel`.

use super::fields::Fields;
use super::{
    AttentionScale, GenerationDefaults, MAX_HEADS, MAX_LAYERS, MAX_POSITIONS, MAX_VOCAB, MAX_WIDTH, ModelConfig,
    activation, dtype,
};
use crate::error::{Error, Result};
use crate::types::Activation;

const END_OF_TEXT: u32 = 50_256;

pub(super) fn read(fields: &Fields) -> Result<ModelConfig> {
    refuse(fields, "add_cross_attention")?;
    let hidden_size = fields.count("n_embd", Some(768), 1..=MAX_WIDTH)?;
    let heads = fields.count("n_head", Some(12), 1..=MAX_HEADS)?;
    if !hidden_size.is_multiple_of(heads) {
        return Err(fields.invalid("n_head", format!("{heads} does not divide n_embd {hidden_size}")));
    }
    let layers = fields.count("n_layer", Some(12), 1..=MAX_LAYERS)?;
    let max_positions = fields.count("n_positions", Some(1024), 1..=MAX_POSITIONS)?;
    let head_dim = hidden_size / heads;
    let eps = fields.real("layer_norm_epsilon", |x| (0.0..1.0).contains(&x), "a number in 0..1")?;
    Ok(ModelConfig {
        architecture: "GPT2LMHeadModel".into(),
        dtype: dtype(fields)?,
        vocab_size: fields.count("vocab_size", Some(50_257), 1..=MAX_VOCAB)?,
        hidden_size,
        intermediate_size: fields.count("n_inner", u64::try_from(4 * hidden_size).ok(), 1..=4 * MAX_WIDTH)?,
        layers,
        heads,
        kv_heads: heads,
        head_dim,
        windows: vec![None; layers],
        max_positions,
        served_positions: max_positions,
        activation: activation(fields, "activation_function", Activation::GeluTanh)?,
        norm_eps: eps.unwrap_or(1e-5) as f32,
        tie_word_embeddings: fields.flag("tie_word_embeddings", true)?,
        attention_bias: true,
        mlp_bias: true,
        // `reorder_and_upcast_attn` is the same formula in f32, which is what we compute in.
        attention_scale: AttentionScale {
            by_root_of: if fields.flag("scale_attn_weights", true)? { head_dim as f64 } else { 1.0 },
            by_layer: fields.flag("scale_attn_by_inverse_layer_idx", false)?,
        },
        attention_soft_cap: None,
        logit_soft_cap: None,
        rope: None,
        local_rope: None,
        eos_token_ids: fields.tokens("eos_token_id", &[END_OF_TEXT])?,
        bos_token_id: fields.token("bos_token_id", Some(END_OF_TEXT))?,
        pad_token_id: fields.token("pad_token_id", None)?,
        generation: GenerationDefaults::default(),
    })
}

fn refuse(fields: &Fields, option: &str) -> Result<()> {
    if fields.flag(option, false)? {
        return Err(Error::Unsupported { what: option.into(), why: "this family is read as a plain decoder".into() });
    }
    Ok(())
}
