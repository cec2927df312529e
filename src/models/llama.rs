//! Llama: the gated decoder with optional biases.

use super::Tensors;
use super::gated::Design;
use super::projections::{Biases, Projections};
use crate::checkpoint::ModelConfig;
use crate::error::Result;
use crate::network::Graph;

/// The graph of a Llama model.
pub(super) fn build(config: &ModelConfig, tensors: &Tensors) -> Result<Graph> {
    let biases = Biases { qkv: config.attention_bias, output: config.attention_bias, mlp: config.mlp_bias };
    let projections = Projections::Separate(biases);
    Design { projections, ..Design::plain("llama") }.build(config, tensors)
}
