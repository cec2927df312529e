//! Which element type the results of steps have: one rule for the builder that writes plans and the reader that checks them.

use super::{Precision, Target};
use crate::types::{DType, Op};

/// Element type of output `index` of a step, whose first input has type `input`.
///
/// A CPU computes with f32 throughout. On CUDA the residual stream stays f32 (embeddings, sums, the rows gathered from
/// them), as do rotary angles; everything else has the precision's 16 bits. The plan output `logits` is f32 whatever
/// this rule says, and so is what a soft cap makes them from.
#[must_use]
pub fn value_dtype(target: Target, precision: Precision, op: &Op, index: usize, input: Option<DType>) -> DType {
    match (target, op, index) {
        (Target::Cpu, ..)
        | (_, Op::Embedding { .. } | Op::PositionEmbedding | Op::Add | Op::RopeAngles { .. }, _)
        | (_, Op::AddRmsNorm { .. } | Op::AddLayerNorm { .. }, 0) => DType::F32,
        (_, Op::GatherRows, _) => input.unwrap_or(DType::F32),
        _ => precision.base(),
    }
}
