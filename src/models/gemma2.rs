//! Gemma 2: norms before and after both parts of a layer, gains stored as their distance from 1, embeddings times the square
//! root of the hidden size. Attention scores and logits are capped; every second layer slides.

use super::Tensors;
use super::gated::{Around, Design, Gains, Norms};
use super::projections::{Biases, Projections};
use crate::checkpoint::ModelConfig;
use crate::error::Result;
use crate::network::Graph;

const NORMS: Norms = Norms {
    attention: Around { before: "input_layernorm", after: Some("post_attention_layernorm") },
    mlp: Around { before: "pre_feedforward_layernorm", after: Some("post_feedforward_layernorm") },
};

/// The graph of a Gemma 2 model.
pub(super) fn build(config: &ModelConfig, tensors: &Tensors) -> Result<Graph> {
    design(config).build(config, tensors)
}

/// What Gemma 2 is made of.
pub(super) fn design(config: &ModelConfig) -> Design {
    let biases = Biases { qkv: config.attention_bias, output: config.attention_bias, mlp: false };
    Design {
        projections: Projections::Separate(biases),
        norms: NORMS,
        gains: Gains::AboveOne,
        embedding_scale: (config.hidden_size as f64).sqrt() as f32,
        ..Design::plain("gemma2")
    }
}
