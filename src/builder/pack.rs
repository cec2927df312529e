//! Packs weights: rows of a recipe, a chunk at a time on several threads, into the layout and dtype that the plan says.

use std::ops::Range;

use half::{bf16, f16};

use super::recipe::Evaluator;
use crate::checkpoint::WeightSource;
use crate::engine::{EngineWriter, PANEL, Packing, WeightSpec};
use crate::error::{Error, Result};
use crate::network::Recipe;
use crate::types::{DType, E4M3_MAX, e4m3_from_f32};

/// Elements of a chunk: what one thread holds as f32 and once more packed.
const CHUNK: usize = 1 << 20;
const MOST_THREADS: usize = 8;
/// Columns that are transposed together: a cache line of f32.
const TILE: usize = 16;

/// Packs one weight into the writer and fills in its checksum. `done` is called with the packed bytes of every batch of
/// chunks and may end the build with its error.
///
/// # Errors
/// What the source, the writer or `done` says; `Internal` when the bytes are not those that the plan announced.
pub(super) fn pack_weight(
    source: &dyn WeightSource,
    recipe: &Recipe,
    spec: &mut WeightSpec,
    writer: &mut EngineWriter<'_>,
    done: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Vec<f32>> {
    let mut scales = Vec::new();
    let evaluator = Evaluator::new(source, recipe, &spec.name, &spec.shape)?;
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(MOST_THREADS));
    writer.begin_weight(spec.packing)?;
    for batch in chunks(&evaluator, spec.packing).chunks(threads) {
        let packed = pack_batch(&evaluator, batch, spec)?;
        for chunk in &packed {
            writer.write(&chunk.bytes)?;
            scales.extend_from_slice(&chunk.scales);
        }
        done(packed.iter().map(|chunk| chunk.bytes.len() as u64).sum())?;
    }
    end(spec, writer)?;
    Ok(scales)
}

/// Writes the scales of the weight before.
///
/// # Errors
/// What the writer says; `Internal` when there are not as many as the plan announced.
pub(super) fn pack_scales(scales: &[f32], spec: &mut WeightSpec, writer: &mut EngineWriter<'_>) -> Result<()> {
    writer.begin_weight(spec.packing)?;
    writer.write(&scales.iter().flat_map(|scale| scale.to_le_bytes()).collect::<Vec<_>>())?;
    end(spec, writer)
}

fn end(spec: &mut WeightSpec, writer: &mut EngineWriter<'_>) -> Result<()> {
    let placement = writer.end_weight()?;
    if (placement.offset, placement.bytes) != (spec.offset, spec.bytes) {
        return Err(Error::internal(format!("weight `{}`", spec.name), "it was not packed where the plan says"));
    }
    spec.checksum = placement.checksum;
    Ok(())
}

/// A part of a packed weight.
struct Chunk {
    bytes: Vec<u8>,
    /// What its rows were divided by, for e4m3.
    scales: Vec<f32>,
}

/// Row ranges of about [`CHUNK`] elements, whole panels where there are panels.
fn chunks(evaluator: &Evaluator<'_>, packing: Packing) -> Vec<Range<usize>> {
    let rows = evaluator.rows();
    let step = match packing {
        Packing::RowMajor => (CHUNK / evaluator.columns().max(1)).max(1),
        Packing::Panels => (CHUNK / evaluator.columns().max(1) / PANEL).max(1) * PANEL,
    };
    (0..rows).step_by(step).map(|start| start..(start + step).min(rows)).collect()
}

fn pack_batch(evaluator: &Evaluator<'_>, batch: &[Range<usize>], spec: &WeightSpec) -> Result<Vec<Chunk>> {
    if let [rows] = batch {
        return Ok(vec![pack_chunk(evaluator, rows.clone(), spec)?]);
    }
    std::thread::scope(|scope| {
        let start = |rows: &Range<usize>| {
            let rows = rows.clone();
            std::thread::Builder::new()
                .name("trtllm-pack".into())
                .spawn_scoped(scope, move || pack_chunk(evaluator, rows, spec))
                .map_err(|error| Error::ThreadFailed { what: "trtllm-pack".into(), why: error.to_string() })
        };
        let threads = batch.iter().map(start).collect::<Vec<_>>();
        let finish = |thread: Result<std::thread::ScopedJoinHandle<'_, _>>| {
            thread?.join().map_err(|_| Error::Panic { what: "trtllm-pack".into(), why: "packing panicked".into() })?
        };
        threads.into_iter().map(finish).collect()
    })
}

fn pack_chunk(evaluator: &Evaluator<'_>, rows: Range<usize>, spec: &WeightSpec) -> Result<Chunk> {
    let columns = evaluator.columns();
    let mut elements = vec![0.0; rows.len() * columns];
    evaluator.read(rows, &mut elements)?;
    let scales = if spec.dtype == DType::E4M3 { divide_rows(&mut elements, columns) } else { Vec::new() };
    let bytes = match (spec.packing, spec.dtype) {
        (Packing::RowMajor, DType::F32) => elements.iter().flat_map(|value| value.to_le_bytes()).collect(),
        (Packing::RowMajor, DType::BF16) => encoded(&elements, |value| bf16::from_f32(value).to_le_bytes()),
        (Packing::RowMajor, DType::F16) => encoded(&elements, |value| f16::from_f32(value).to_le_bytes()),
        (Packing::RowMajor, DType::E4M3) => encoded(&elements, |value| [e4m3_from_f32(value)]),
        (Packing::Panels, DType::F32) => pack_panels(&elements, columns, 1, f32::to_le_bytes),
        (Packing::Panels, DType::BF16) => pack_panels(&elements, columns, 2, |v| bf16::from_f32(v).to_le_bytes()),
        (Packing::Panels, DType::F16) => pack_panels(&elements, columns, 2, |v| f16::from_f32(v).to_le_bytes()),
        (_, dtype) => {
            return Err(Error::internal(format!("weight `{}`", spec.name), format!("no packing for {dtype}")));
        }
    };
    Ok(Chunk { bytes, scales })
}

fn encoded<const BYTES: usize>(elements: &[f32], encode: impl Fn(f32) -> [u8; BYTES]) -> Vec<u8> {
    let mut bytes = vec![0; elements.len() * BYTES];
    for (out, value) in bytes.as_chunks_mut::<BYTES>().0.iter_mut().zip(elements) {
        *out = encode(*value);
    }
    bytes
}

/// Brings every row into the range of e4m3 and returns what it was divided by; a row of zeros keeps 1.
fn divide_rows(elements: &mut [f32], columns: usize) -> Vec<f32> {
    let divide = |row: &mut [f32]| {
        let most = row.iter().fold(0f32, |most, value| most.max(value.abs()));
        let scale = if most > 0.0 { most / E4M3_MAX } else { 1.0 };
        row.iter_mut().for_each(|value| *value /= scale);
        scale
    };
    elements.chunks_exact_mut(columns).map(divide).collect()
}

/// Panels of [`PANEL`] rows, in which `group` neighbouring columns of one row lie side by side; see [`Packing::Panels`].
fn pack_panels<const BYTES: usize>(
    elements: &[f32],
    columns: usize,
    group: usize,
    encode: impl Fn(f32) -> [u8; BYTES],
) -> Vec<u8> {
    let panel_elements = PANEL * columns.next_multiple_of(2);
    let panels = (elements.len() / columns).div_ceil(PANEL);
    let mut packed = vec![0; panels * panel_elements * BYTES];
    for (panel, out) in elements.chunks(PANEL * columns).zip(packed.chunks_exact_mut(panel_elements * BYTES)) {
        let out = out.as_chunks_mut::<BYTES>().0;
        for tile in (0..columns).step_by(TILE) {
            let tile = tile..(tile + TILE).min(columns);
            for (row, values) in panel.chunks_exact(columns).enumerate() {
                for (column, value) in tile.clone().zip(&values[tile.clone()]) {
                    out[(column / group * PANEL + row) * group + column % group] = encode(*value);
                }
            }
        }
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout as the doc comment of [`Packing::Panels`] says it, element by element.
    fn element(rows: usize, columns: usize, index: usize) -> f32 {
        assert!(index < rows * columns);
        1.0 + index as f32 / 128.0
    }

    #[test]
    fn panels_lie_as_documented() {
        for (n, k) in [(1, 1), (32, 2), (33, 3), (70, 37), (64, 16)] {
            let elements: Vec<f32> = (0..n * k).map(|index| element(n, k, index) % 2.0).collect();
            let padded = k.next_multiple_of(2);
            let wanted = |row: usize, column: usize| match row < n && column < k {
                true => elements[row * k + column],
                false => 0.0,
            };
            let f32s = pack_panels(&elements, k, 1, f32::to_le_bytes);
            let halves = pack_panels(&elements, k, 2, |value| bf16::from_f32(value).to_le_bytes());
            assert_eq!(f32s.len(), n.next_multiple_of(32) * padded * 4);
            assert_eq!(halves.len(), n.next_multiple_of(32) * padded * 2);
            for (index, bytes) in f32s.as_chunks::<4>().0.iter().enumerate() {
                // [N/32][K][32]
                let (panel, column, row) = (index / (padded * 32), index / 32 % padded, index % 32);
                assert_eq!(f32::from_le_bytes(*bytes), wanted(panel * 32 + row, column));
            }
            for (index, bytes) in halves.as_chunks::<2>().0.iter().enumerate() {
                // [N/32][K/2][32][2]
                let (panel, pair, row, odd) =
                    (index / (padded * 32), index / 64 % (padded / 2), index / 2 % 32, index % 2);
                let exact = bf16::from_f32(wanted(panel * 32 + row, pair * 2 + odd));
                assert_eq!(bf16::from_le_bytes(*bytes), exact);
            }
        }
    }

    #[test]
    fn bf16_rounds_to_nearest_even() {
        let round = |bits: u32| u16::from_le_bytes(bf16::from_f32(f32::from_bits(bits)).to_le_bytes());
        assert_eq!(round(0x3f80_8000), 0x3f80, "a tie goes to the even neighbour below");
        assert_eq!(round(0x3f81_8000), 0x3f82, "a tie goes to the even neighbour above");
        assert_eq!(round(0x3f80_8001), 0x3f81);
        assert_eq!(round(0x3f80_7fff), 0x3f80);
    }
}
