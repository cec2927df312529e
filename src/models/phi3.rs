//! Phi-3: the gated decoder from joint tensors; heads may rotate in part, all layers may slide.

use super::Tensors;
use super::gated::Design;
use super::projections::Projections;
use crate::checkpoint::ModelConfig;
use crate::error::Result;
use crate::network::Graph;

/// The graph of a Phi-3 model.
pub(super) fn build(config: &ModelConfig, tensors: &Tensors) -> Result<Graph> {
    Design { projections: Projections::Joint, ..Design::plain("phi3") }.build(config, tensors)
}
