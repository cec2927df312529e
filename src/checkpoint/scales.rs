//! Scales of quantised tensors: which tensor holds them, and what one of them covers.

use super::source::{SCALE_BLOCK, Scales, Scaling};

/// What follows a quantised tensor's name in the name of its scales: DeepSeek's way, and that of compressed-tensors and
/// fbgemm. Codes are multiplied by both.
pub(super) const SUFFIXES: [&str; 2] = ["_scale_inv", "_scale"];

/// The scales of a matrix of `shape` from the `values` of their tensor, which has `scale_shape`: one, one per row, or one
/// per block.
pub(super) fn scales(shape: &[usize], scale_shape: &[usize], values: &[f32]) -> Result<Scales, String> {
    let [rows, columns] = *shape else {
        return Err(format!("shape {shape:?} is no matrix's"));
    };
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return Err(format!("one of its scales is {value}"));
    }
    let (scaling, values) = match *scale_shape {
        [] | [1] | [1, 1] if values.len() == 1 => (Scaling::Row, vec![values[0]; rows]),
        [n] | [n, 1] if n == rows => (Scaling::Row, values.to_vec()),
        [n, k] if (n, k) == (rows.div_ceil(SCALE_BLOCK), columns.div_ceil(SCALE_BLOCK)) => {
            (Scaling::Block, values.to_vec())
        }
        _ => return Err(format!("scales of shape {scale_shape:?} do not fit shape {shape:?}")),
    };
    Ok(Scales { scaling, values })
}

/// Multiplies a block of decoded elements by the scales of a matrix of `width` columns.
pub(super) fn apply(
    scales: &Scales,
    width: usize,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
    out: &mut [f32],
) {
    for (row, out) in rows.zip(out.chunks_exact_mut(columns.len().max(1))) {
        match scales.scaling {
            Scaling::Row => out.iter_mut().for_each(|x| *x *= scales.values[row]),
            Scaling::Block => {
                let scales = &scales.values[row / SCALE_BLOCK * width.div_ceil(SCALE_BLOCK)..];
                for (column, x) in columns.clone().zip(out) {
                    *x *= scales[column / SCALE_BLOCK];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_say_what_a_scale_covers() {
        let of = |shape: &[usize], scale_shape: &[usize]| {
            let values: Vec<f32> = (0..scale_shape.iter().product()).map(|index| index as f32).collect();
            scales(shape, scale_shape, &values)
        };
        for one in [[].as_slice(), &[1], &[1, 1]] {
            assert_eq!(of(&[3, 5], one), Ok(Scales { scaling: Scaling::Row, values: vec![0.0; 3] }));
        }
        for each in [[3].as_slice(), &[3, 1]] {
            assert_eq!(of(&[3, 5], each), Ok(Scales { scaling: Scaling::Row, values: vec![0.0, 1.0, 2.0] }));
        }
        assert_eq!(of(&[129, 300], &[2, 3]).map(|scales| scales.scaling), Ok(Scaling::Block));
        for wrong in [[2].as_slice(), &[3, 2], &[1, 3], &[3, 3], &[2, 3, 1]] {
            assert!(of(&[129, 300], wrong).is_err(), "{wrong:?}");
        }
        assert!(of(&[3], &[3]).is_err(), "a vector is not quantised");
        assert!(scales(&[1, 2], &[1], &[f32::NAN]).is_err());
    }

    #[test]
    fn every_element_gets_the_scale_of_its_row_or_block() {
        let (height, width) = (130, 260);
        let rows = Scales { scaling: Scaling::Row, values: (0..height).map(|row| row as f32).collect() };
        let blocks = Scales { scaling: Scaling::Block, values: (0..6).map(|index| index as f32).collect() };
        for (top, left) in [(0, 0), (100, 5), (127, 126)] {
            let (part, columns) = (top..height, left..left + 134);
            for scales in [&rows, &blocks] {
                let mut out = vec![2.0; part.len() * columns.len()];
                apply(scales, width, part.clone(), columns.clone(), &mut out);
                for (index, x) in out.iter().enumerate() {
                    let (row, column) = (top + index / columns.len(), left + index % columns.len());
                    let scale = match scales.scaling {
                        Scaling::Row => row,
                        Scaling::Block => row / 128 * 3 + column / 128,
                    };
                    assert_eq!(*x, 2.0 * scale as f32);
                }
            }
        }
    }
}
