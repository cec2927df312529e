//! Stored elements to f32.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::types::{DType, bf16, e4m3};

/// Copies a block that lies within `bytes`, a matrix of `width` columns.
pub(super) fn convert_block(
    bytes: &[u8],
    dtype: DType,
    width: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    out: &mut [f32],
) {
    let size = dtype.bytes();
    if columns.len() == width {
        return convert(&bytes[rows.start * width * size..rows.end * width * size], dtype, out);
    }
    if columns.is_empty() {
        return;
    }
    for (row, out) in rows.zip(out.chunks_exact_mut(columns.len())) {
        let start = (row * width + columns.start) * size;
        convert(&bytes[start..start + columns.len() * size], dtype, out);
    }
}

fn convert(bytes: &[u8], dtype: DType, out: &mut [f32]) {
    match dtype {
        DType::F16 => convert_f16(bytes, out),
        DType::BF16 => {
            for (element, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
                *out = bf16::decode(u16::from_le_bytes(*element));
            }
        }
        DType::E4M3 => {
            for (element, out) in bytes.iter().zip(out) {
                *out = e4m3::decode(*element);
            }
        }
        DType::I8 => {
            for (element, out) in bytes.iter().zip(out) {
                *out = f32::from(element.cast_signed());
            }
        }
        DType::F32 | DType::I32 => {
            for (element, out) in bytes.as_chunks::<4>().0.iter().zip(out) {
                *out = f32::from_le_bytes(*element);
            }
        }
    }
}

/// By pieces that stay in cache: the fast conversion wants aligned halves, which a file does not promise.
fn convert_f16(bytes: &[u8], out: &mut [f32]) {
    let mut halves = [f16::ZERO; 512];
    for (bytes, out) in bytes.as_chunks::<2>().0.chunks(halves.len()).zip(out.chunks_mut(512)) {
        let halves = &mut halves[..out.len()];
        for (half, element) in halves.iter_mut().zip(bytes) {
            *half = f16::from_le_bytes(*element);
        }
        halves.convert_to_f32_slice(out);
    }
}
