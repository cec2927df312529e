//! What the source's own quantisation means for a recipe: whether its codes and scales can go into the engine as they are.

use crate::checkpoint::{Scales, Scaling, WeightSource};
use crate::engine::{Granularity, SCALE_BLOCK};
use crate::network::Recipe;

/// Whether any tensor of the recipe is quantised.
pub(super) fn is_quantized(source: &dyn WeightSource, recipe: &Recipe) -> bool {
    match recipe {
        Recipe::Tensor(name) => source.scales(name).is_some(),
        Recipe::Transpose(of) | Recipe::Rows { of, .. } => is_quantized(source, of),
        Recipe::Concat(parts) => parts.iter().any(|part| is_quantized(source, part)),
        Recipe::Constant(_) => false,
    }
}

/// The scales of what the recipe makes, when its codes are the source's own: all its tensors are quantised in one way, and
/// no block of [`SCALE_BLOCK`] rows is cut or shared. Else its elements have to be quantised anew.
pub(super) fn kept_scales(source: &dyn WeightSource, recipe: &Recipe) -> Option<(Granularity, Vec<f32>)> {
    let kept = kept(source, recipe)?;
    Some((kept.granularity, kept.scales))
}

struct Kept {
    granularity: Granularity,
    rows: usize,
    columns: usize,
    scales: Vec<f32>,
}

impl Kept {
    /// Scales of each row, or of each row of blocks.
    fn width(&self) -> usize {
        match self.granularity {
            Granularity::Row => 1,
            Granularity::Block => self.columns.div_ceil(SCALE_BLOCK),
        }
    }

    /// Whether the scales can be cut before `row`.
    fn can_cut(&self, row: usize) -> bool {
        self.granularity == Granularity::Row || row.is_multiple_of(SCALE_BLOCK)
    }

    /// Rows of scales that come before `row`.
    fn scale_rows(&self, row: usize) -> usize {
        match self.granularity {
            Granularity::Row => row,
            Granularity::Block => row.div_ceil(SCALE_BLOCK),
        }
    }
}

fn kept(source: &dyn WeightSource, recipe: &Recipe) -> Option<Kept> {
    match recipe {
        Recipe::Tensor(name) => {
            let Scales { scaling, values } = source.scales(name)?;
            let [rows, columns] = *source.shape(name)?.as_slice() else { return None };
            let granularity = match scaling {
                Scaling::Row => Granularity::Row,
                Scaling::Block => Granularity::Block,
            };
            Some(Kept { granularity, rows, columns, scales: values.clone() })
        }
        Recipe::Rows { of, start, rows } => {
            let mut kept = kept(source, of)?;
            let end = start.checked_add(*rows).filter(|end| *end <= kept.rows)?;
            if !kept.can_cut(*start) {
                return None;
            }
            let width = kept.width();
            kept.scales = kept.scales.get(kept.scale_rows(*start) * width..kept.scale_rows(end) * width)?.to_vec();
            kept.rows = *rows;
            Some(kept)
        }
        Recipe::Concat(parts) => {
            let mut parts = parts.iter().map(|part| kept(source, part));
            let mut whole = parts.next()??;
            for part in parts {
                let part = part?;
                let same = (part.granularity, part.columns) == (whole.granularity, whole.columns);
                if !same || !whole.can_cut(whole.rows) {
                    return None;
                }
                whole.rows += part.rows;
                whole.scales.extend(part.scales);
            }
            Some(whole)
        }
        Recipe::Transpose(_) | Recipe::Constant(_) => None,
    }
}
