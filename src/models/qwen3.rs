//! Qwen3: the gated decoder with each head of q and k normed; all of attention may have biases, later layers may slide.

use super::Tensors;
use super::gated::Design;
use super::projections::{Biases, Projections};
use crate::checkpoint::ModelConfig;
use crate::error::Result;
use crate::network::Graph;

/// The graph of a Qwen3 model.
pub(super) fn build(config: &ModelConfig, tensors: &Tensors) -> Result<Graph> {
    let biases = Biases { qkv: config.attention_bias, output: config.attention_bias, mlp: false };
    let projections = Projections::Separate(biases);
    Design { projections, head_norms: true, ..Design::plain("qwen3") }.build(config, tensors)
}
