//! Qwen2: the gated decoder with biases on q, k and v alone; later layers may slide.

use super::Tensors;
use super::gated::Design;
use super::projections::{Biases, Projections};
use crate::checkpoint::ModelConfig;
use crate::error::Result;
use crate::network::Graph;

/// The graph of a Qwen2 model.
pub(super) fn build(config: &ModelConfig, tensors: &Tensors) -> Result<Graph> {
    let projections = Projections::Separate(Biases { qkv: true, output: false, mlp: false });
    Design { projections, ..Design::plain("qwen2") }.build(config, tensors)
}
