//! What the source's own quantisation means for a recipe: whether its codes and scales can go into the engine as they are.

use crate::checkpoint::{Scales, Scaling, WeightSource};
use crate::engine::{Granularity, SCALE_BLOCK};
use crate::network::Recipe;

/// Whether any tensor of the recipe is quantised.
pub(super) fn is_quantized(source: &dyn WeightSource, recipe: &Recipe) -> bool {
    match recipe {
        Recipe::Tensor(name) => source.scales(name).is_some(),
        Recipe::Transpose(of) | Recipe::Rows { of, .. } | Recipe::Plus { of, .. } => is_quantized(source, of),
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
        Recipe::Transpose(_) | Recipe::Plus { .. } | Recipe::Constant(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::ops::Range;

    use super::*;
    use crate::error::Result;

    /// Matrices of known scaling; the first scale of each is its own, the others count up from it.
    struct Quantized(HashMap<&'static str, (Vec<usize>, Option<Scales>)>);

    impl Quantized {
        fn new() -> Self {
            let matrix = |rows: usize, scaling, first: usize| {
                let count = if scaling == Scaling::Row { rows } else { rows.div_ceil(128) * 2 };
                let values = (first..first + count).map(|value| value as f32).collect();
                (vec![rows, 200], Some(Scales { scaling, values }))
            };
            Self(HashMap::from([
                ("rows", matrix(3, Scaling::Row, 0)),
                ("more rows", matrix(2, Scaling::Row, 10)),
                ("blocks", matrix(256, Scaling::Block, 0)),
                ("more blocks", matrix(130, Scaling::Block, 10)),
                ("plain", (vec![256, 200], None)),
            ]))
        }
    }

    impl WeightSource for Quantized {
        fn shape(&self, name: &str) -> Option<Vec<usize>> {
            self.0.get(name).map(|(shape, _)| shape.clone())
        }

        fn dtype(&self) -> Option<crate::types::DType> {
            None
        }

        fn scales(&self, name: &str) -> Option<&Scales> {
            self.0.get(name)?.1.as_ref()
        }

        fn read(&self, _: &str, _: Range<usize>, _: Range<usize>, _: &mut [f32]) -> Result<()> {
            unreachable!("scales alone are looked at")
        }
    }

    fn scales(recipe: Recipe) -> Option<(Granularity, Vec<f32>)> {
        kept_scales(&Quantized::new(), &recipe)
    }

    #[test]
    fn stacks_and_parts_take_their_scales_along() {
        let [rows, more_rows, blocks, more_blocks] = ["rows", "more rows", "blocks", "more blocks"].map(Recipe::tensor);
        let row = |values: &[f32]| Some((Granularity::Row, values.to_vec()));
        let block = |values: &[f32]| Some((Granularity::Block, values.to_vec()));
        assert_eq!(scales(Recipe::concat([rows.clone(), more_rows.clone()])), row(&[0.0, 1.0, 2.0, 10.0, 11.0]));
        assert_eq!(scales(Recipe::concat([rows.rows(1, 1), more_rows])), row(&[1.0, 10.0, 11.0]));
        let stack = Recipe::concat([blocks.clone(), more_blocks.clone()]);
        assert_eq!(scales(stack), block(&[0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0]));
        assert_eq!(scales(blocks.clone().rows(128, 100)), block(&[2.0, 3.0]));
        assert_eq!(
            scales(Recipe::concat([blocks.rows(0, 128), more_blocks])),
            block(&[0.0, 1.0, 10.0, 11.0, 12.0, 13.0])
        );
    }

    #[test]
    fn what_cuts_or_mixes_is_quantised_anew() {
        let [rows, blocks, more_blocks, plain] = ["rows", "blocks", "more blocks", "plain"].map(Recipe::tensor);
        for recipe in [
            blocks.clone().rows(64, 64),
            Recipe::concat([more_blocks, blocks.clone()]),
            Recipe::concat([blocks.clone(), rows.clone()]),
            Recipe::concat([blocks.clone(), plain.clone()]),
            blocks.clone().transposed(),
            rows.clone().rows(2, 2),
            plain.clone(),
        ] {
            assert_eq!(scales(recipe.clone()), None, "{recipe}");
            assert_eq!(is_quantized(&Quantized::new(), &recipe), recipe != plain, "{recipe}");
        }
    }
}
