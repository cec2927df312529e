//! Mistral: the gated decoder without biases; all layers may slide.

use super::Tensors;
use super::gated::Design;
use crate::checkpoint::ModelConfig;
use crate::error::Result;
use crate::network::Graph;

/// The graph of a Mistral model.
pub(super) fn build(config: &ModelConfig, tensors: &Tensors) -> Result<Graph> {
    Design::plain("mistral").build(config, tensors)
}
