//! From a recipe's rows to the bytes of a packed weight: rounding, scaling, and the transposition of panels.

use std::ops::Range;

use super::recipe::Evaluator;
use crate::engine::{PANEL, Packing, WeightSpec};
use crate::error::{Error, Result};
use crate::types::{DType, bf16, e4m3, f16};

/// Elements encoded at once: few enough to stay in the second-level cache.
const GROUP: usize = 64 << 10;
/// The largest i8 in use: with -127 beside it, positive and negative elements are rounded alike.
const MOST_I8: f32 = 127.0;
/// Words of a panel's row that are transposed together: a cache line.
const TILE: usize = 16;

/// Rows of a weight as they lie in the engine, and the scales made for them, one for each row.
#[derive(Default)]
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    pub(super) scales: Vec<f32>,
}

/// Encodes some rows, whole panels of them where there are panels. `keep` takes the source's own codes.
///
/// # Errors
/// What the source says; `InvalidCheckpoint` naming the weight for an infinite element, which no scale makes fit.
pub(super) fn encode(evaluator: &Evaluator<'_>, rows: Range<usize>, spec: &WeightSpec, keep: bool) -> Result<Encoded> {
    let columns = evaluator.columns().max(1);
    let (group, pitch) = match spec.packing {
        Packing::RowMajor => ((GROUP / columns).max(1), columns * spec.dtype.bytes()),
        Packing::Panels => {
            let padded = Packing::padded_columns(columns, spec.dtype);
            (PANEL, padded.ok_or_else(|| Error::internal("builder", "a row overflows"))? * spec.dtype.bytes())
        }
    };
    let mut encoded = Encoded::default();
    encoded
        .bytes
        .reserve_exact(rows.len().next_multiple_of(if spec.packing == Packing::Panels { PANEL } else { 1 }) * pitch);
    let mut elements = Vec::new();
    // The bytes between a row's end and the pitch are never written and stay zero.
    let mut strip = vec![0; group.min(rows.len()) * pitch];
    for start in rows.clone().step_by(group) {
        let rows = start..(start + group).min(rows.end);
        let strip = &mut strip[..rows.len() * pitch];
        if keep {
            read_codes(evaluator, rows, columns, pitch, strip)?;
        } else {
            elements.resize(rows.len() * columns, 0.0);
            evaluator.read(rows, &mut elements)?;
            round(&elements, columns, spec, pitch, strip, &mut encoded.scales)?;
        }
        match spec.packing {
            Packing::RowMajor => encoded.bytes.extend_from_slice(strip),
            Packing::Panels => append_panel(strip, pitch, &mut encoded.bytes),
        }
    }
    Ok(encoded)
}

fn read_codes(
    evaluator: &Evaluator<'_>,
    rows: Range<usize>,
    columns: usize,
    pitch: usize,
    out: &mut [u8],
) -> Result<()> {
    if columns == pitch {
        return evaluator.read(rows, out);
    }
    for (row, out) in rows.zip(out.chunks_exact_mut(pitch)) {
        evaluator.read(row..row + 1, &mut out[..columns])?;
    }
    Ok(())
}

/// Rounds rows of `columns` elements to the weight's type, each row to `pitch` bytes.
fn round(
    elements: &[f32],
    columns: usize,
    spec: &WeightSpec,
    pitch: usize,
    out: &mut [u8],
    scales: &mut Vec<f32>,
) -> Result<()> {
    for (row, out) in elements.chunks_exact(columns).zip(out.chunks_exact_mut(pitch)) {
        match spec.dtype {
            DType::F32 => store(row, out, f32::to_le_bytes),
            DType::BF16 => store(row, out, |x| bf16::encode(x).to_le_bytes()),
            DType::F16 => store(row, out, |x| f16::encode(x).to_le_bytes()),
            DType::E4M3 => {
                let scale = row_scale(row, e4m3::MAX)
                    .ok_or_else(|| invalid(spec, "it holds an infinite element, which has no fp8 value"))?;
                store(row, out, |x| [e4m3::encode(x / scale)]);
                scales.push(scale);
            }
            DType::I8 => {
                let scale = row_scale(row, MOST_I8)
                    .filter(|_| !row.iter().any(|x| x.is_nan()))
                    .ok_or_else(|| invalid(spec, "it holds an element that is not finite, which has no int8 value"))?;
                store(row, out, |x| [excess_128(x / scale)]);
                scales.push(scale);
            }
            DType::I32 => return Err(Error::internal(format!("weight `{}`", spec.name), "no packing for i32")),
        }
    }
    Ok(())
}

fn store<const BYTES: usize>(row: &[f32], out: &mut [u8], code: impl Fn(f32) -> [u8; BYTES]) {
    for (out, value) in out.as_chunks_mut::<BYTES>().0.iter_mut().zip(row) {
        *out = code(*value);
    }
}

/// The nearest integer, ties to even, with 128 added as [`Packing::Panels`] wants it.
fn excess_128(x: f32) -> u8 {
    (x.round_ties_even() as i8).cast_unsigned() ^ 0x80
}

fn invalid(spec: &WeightSpec, why: &str) -> Error {
    Error::InvalidCheckpoint { what: format!("weight `{}`", spec.name), why: why.into() }
}

/// The scale that makes the row's largest element the largest code; 1 for a row of (nearly) zeros, `None` for infinity.
fn row_scale(row: &[f32], most: f32) -> Option<f32> {
    let scale = largest(row) / most;
    match (scale.is_finite(), scale >= f32::MIN_POSITIVE) {
        (false, _) => None,
        (true, true) => Some(scale),
        (true, false) => Some(1.0),
    }
}

/// The largest absolute value that is a number. The lanes exist for the compiler: a plain fold is one chain of comparisons.
fn largest(row: &[f32]) -> f32 {
    let greater = |most: f32, x: f32| if x.abs() > most { x.abs() } else { most };
    let (chunks, rest) = row.as_chunks::<16>();
    let mut lanes = [0.0f32; 16];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = greater(*lane, *x);
        }
    }
    lanes.iter().chain(rest).fold(0.0, |most, x| greater(most, *x))
}

/// Appends up to [`PANEL`] rows as one panel: word by word of 4 bytes, the rows side by side; missing rows are zero.
fn append_panel(rows: &[u8], pitch: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + PANEL * pitch, 0);
    let (words, out) = (pitch / 4, out[start..].as_chunks_mut::<4>().0);
    for tile in (0..words).step_by(TILE) {
        let tile = tile..(tile + TILE).min(words);
        for (row, values) in rows.chunks_exact(pitch).enumerate() {
            for (word, value) in tile.clone().zip(&values.as_chunks::<4>().0[tile.clone()]) {
                out[word * PANEL + row] = *value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Dummy;
    use crate::network::Recipe;

    fn spec(shape: [usize; 2], dtype: DType, packing: Packing) -> WeightSpec {
        let (name, shape, checksum) = ("w".into(), shape.to_vec(), String::new());
        WeightSpec { name, dtype, shape, packing, scale: None, offset: 0, bytes: 0, checksum }
    }

    /// All of a dummy matrix encoded, and its values.
    fn encoded(n: usize, k: usize, dtype: DType, packing: Packing) -> (Encoded, Vec<f32>) {
        let source = Dummy::new([("w".to_string(), vec![n, k])], 1);
        let recipe = Recipe::tensor("w");
        let evaluator = Evaluator::new(&source, &recipe, "w", &[n, k]).expect("fits");
        let mut values = vec![0.0; n * k];
        evaluator.read(0..n, &mut values).expect("reads");
        (encode(&evaluator, 0..n, &spec([n, k], dtype, packing), false).expect("encodes"), values)
    }

    #[test]
    fn panels_lie_as_documented() {
        for (n, k) in [(1, 1), (32, 2), (33, 3), (70, 37), (64, 16)] {
            for dtype in [DType::F32, DType::BF16, DType::F16, DType::E4M3, DType::I8] {
                let size = dtype.bytes();
                let (rows, _) = encoded(n, k, dtype, Packing::RowMajor);
                let (panels, _) = encoded(n, k, dtype, Packing::Panels);
                let (padded, group) = (Packing::padded_columns(k, dtype).expect("small"), 4 / size);
                assert_eq!(panels.bytes.len(), n.next_multiple_of(32) * padded * size);
                assert_eq!(panels.scales, rows.scales);
                for (index, bytes) in panels.bytes.chunks(size).enumerate() {
                    // [N/32][K/group][32][group]
                    let (panel, word) = (index / (padded * 32), index / (32 * group) % (padded / group));
                    let (row, column) = (panel * 32 + index / group % 32, word * group + index % group);
                    let wanted = match row < n && column < k {
                        true => &rows.bytes[(row * k + column) * size..][..size],
                        false => &[0; 4][..size],
                    };
                    assert_eq!(bytes, wanted, "{n}x{k} {dtype}: row {row}, column {column}");
                }
            }
        }
    }

    #[test]
    fn fp8_rows_use_the_whole_range_and_lie_within_half_a_step() {
        let (encoded, values) = encoded(40, 50, DType::E4M3, Packing::RowMajor);
        for (row, (codes, values)) in encoded.bytes.chunks(50).zip(values.chunks(50)).enumerate() {
            let most = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            assert_eq!(encoded.scales[row], most / 448.0);
            assert!(codes.iter().any(|code| code & 0x7f == 0x7e), "row {row} does not reach the largest code");
            for (code, value) in codes.iter().zip(values) {
                // Half the spacing: 2^-4 of the value, or half of 2^-9 scales below the normal numbers.
                let error = (e4m3::decode(*code) * encoded.scales[row] - value).abs();
                assert!(error <= (value.abs() / 16.0).max(encoded.scales[row] / 1024.0) * 1.0001, "{value}: {error}");
            }
        }
    }

    #[test]
    fn int8_rows_use_the_whole_range_and_lie_within_half_a_step() {
        let (encoded, values) = encoded(40, 50, DType::I8, Packing::RowMajor);
        for (row, (codes, values)) in encoded.bytes.chunks(50).zip(values.chunks(50)).enumerate() {
            let (scale, most) = (encoded.scales[row], values.iter().fold(0.0f32, |most, x| most.max(x.abs())));
            assert_eq!(scale, most / 127.0);
            assert!(codes.iter().all(|code| *code > 0), "row {row} has the code -128");
            assert!(codes.iter().any(|code| [1, 255].contains(code)), "row {row} does not reach the largest code");
            for (code, value) in codes.iter().zip(values) {
                let error = ((f32::from(*code) - 128.0) * scale - value).abs();
                assert!(error <= 0.5001 * scale, "{value}: {error}");
            }
        }
        let w = spec([1, 4], DType::I8, Packing::RowMajor);
        let (mut out, mut scales) = (vec![1; 3], Vec::new());
        round(&[0.0, -0.0, 1e-42], 3, &w, 3, &mut out, &mut scales).expect("encodes");
        assert_eq!((out, scales), (vec![128; 3], vec![1.0]));
        for culprit in [f32::NAN, f32::INFINITY] {
            let error = round(&[1.0, culprit], 2, &w, 2, &mut [0; 2], &mut Vec::new()).expect_err("refused");
            assert!(error.to_string().contains("weight `w`"), "{error}");
        }
    }

    #[test]
    fn rows_without_a_scale_are_zero_and_infinity_is_refused() {
        let w = spec([1, 4], DType::E4M3, Packing::RowMajor);
        let code = |row: &[f32]| {
            let (mut out, mut scales) = (vec![1; row.len()], Vec::new());
            round(row, row.len(), &w, row.len(), &mut out, &mut scales).map(|()| (out, scales))
        };
        assert_eq!(code(&[0.0, -0.0, 1e-42]).expect("encodes"), (vec![0, 0x80, 0], vec![1.0]));
        assert_eq!(code(&[f32::NAN, 448.0]).expect("encodes"), (vec![0x7f, 0x7e], vec![1.0]));
        let error = code(&[1.0, f32::INFINITY]).expect_err("refused");
        assert!(error.to_string().contains("weight `w`"), "{error}");
    }
}
