//! Gives every weight its place in the engine: one after another, each at the alignment of its packing, scales right behind
//! what they scale, so that both can be written in one go.

use super::stored::kept_scales;
use crate::checkpoint::WeightSource;
use crate::engine::{Granularity, Packing, ScaleSpec, WeightSpec};
use crate::network::{Graph, Recipe, WeightId};
use crate::types::DType;

/// A weight of the plan: a graph weight's elements, or their scales, which follow the elements.
pub(super) struct UsedWeight {
    pub(super) id: WeightId,
    pub(super) dtype: DType,
    pub(super) packing: Packing,
    /// The type of the elements that it has the scales of; `None` for elements.
    pub(super) scales: Option<DType>,
}

/// The specs without checksums, and the recipe of each; `None` for scales.
pub(super) fn place(
    graph: &Graph,
    used: &[UsedWeight],
    source: &dyn WeightSource,
) -> (Vec<WeightSpec>, Vec<Option<Recipe>>) {
    let mut end = 0u64;
    let place = |(index, weight): (usize, &UsedWeight)| {
        let mut spec = spec(graph, weight, index, source);
        spec.offset = end.next_multiple_of(weight.packing.alignment());
        // A size that overflows stays zero and fails the plan's validation.
        spec.bytes = spec.packed_bytes().unwrap_or(0);
        end = spec.offset.saturating_add(spec.bytes);
        (spec, weight.scales.is_none().then(|| graph.weights[weight.id.0].recipe.clone()))
    };
    used.iter().enumerate().map(place).unzip()
}

fn spec(graph: &Graph, weight: &UsedWeight, index: usize, source: &dyn WeightSource) -> WeightSpec {
    let of = &graph.weights[weight.id.0];
    let granularity = |dtype| match dtype {
        DType::E4M3 => kept_scales(source, &of.recipe).map_or(Granularity::Row, |(granularity, _)| granularity),
        _ => Granularity::Row,
    };
    let (name, shape) = match (weight.scales, of.shape.as_slice()) {
        (Some(dtype), [rows, columns]) => {
            (format!("{}.scale", of.name), granularity(dtype).scale_shape(*rows, *columns))
        }
        _ => (of.name.clone(), of.shape.clone()),
    };
    let (dtype, packing) = (weight.dtype, weight.packing);
    let scale = dtype.is_scaled().then(|| ScaleSpec { weight: index + 1, granularity: granularity(dtype) });
    WeightSpec { name, dtype, shape, packing, scale, offset: 0, bytes: 0, checksum: String::new() }
}
