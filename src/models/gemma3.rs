//! Gemma 3: Gemma 2 with each head of q and k normed, and a rope of their own for the layers that slide.

use super::Tensors;
use super::gated::Design;
use super::gemma2;
use crate::checkpoint::ModelConfig;
use crate::error::Result;
use crate::network::Graph;

/// The graph of a Gemma 3 model.
pub(super) fn build(config: &ModelConfig, tensors: &Tensors) -> Result<Graph> {
    Design { name: "gemma3", head_norms: true, ..gemma2::design(config) }.build(config, tensors)
}
