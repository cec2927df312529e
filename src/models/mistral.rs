//! Mistral: the gated decoder without biases; all layers may slide.

use super::Tensors;
use super::gated::{self, Biases};
use crate::checkpoint::ModelConfig;
use crate::error::Result;
use crate::network::Graph;

/// The graph of a Mistral model.
pub(super) fn build(config: &ModelConfig, tensors: &Tensors) -> Result<Graph> {
    let biases = Biases { qkv: false, output: false, mlp: false };
    gated::build("mistral", config, tensors, biases)
}
