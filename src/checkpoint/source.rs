//! Where a builder takes weights from: a checkpoint's tensors as f32, a block of rows and columns at a time.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::types::DType;

/// What shares one scale of a quantised tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scaling {
    Row,
    /// [`SCALE_BLOCK`] rows and columns.
    Block,
}

/// Rows and columns of [`Scaling::Block`].
pub const SCALE_BLOCK: usize = 128;

/// Scales of a quantised matrix: an element is its code's value times its scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Scales {
    pub scaling: Scaling,
    /// `[rows]`, or `[ceil(rows/128), ceil(columns/128)]` row-major.
    pub values: Vec<f32>,
}

/// Named tensors of one or two dimensions (or any shape, seen as rows of its first extent).
pub trait WeightSource: Sync {
    /// The tensor's shape; `None` when there is no such tensor.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// The element type in which most of the tensors are stored; `None` when the source stores none.
    fn dtype(&self) -> Option<DType>;

    /// The scales of a tensor whose elements are stored as e4m3 codes; `None` for plain numbers.
    fn scales(&self, _name: &str) -> Option<&Scales> {
        None
    }

    /// Writes a block of the codes of a tensor that has scales, as [`WeightSource::read`] does.
    ///
    /// # Errors
    /// As [`WeightSource::read`]; `InvalidCheckpoint` for a tensor without codes.
    fn codes(&self, name: &str, _rows: Range<usize>, _columns: Range<usize>, _out: &mut [u8]) -> Result<()> {
        Err(Error::InvalidCheckpoint { what: format!("tensor `{name}`"), why: "it is not quantised".into() })
    }

    /// Writes rows `rows` and columns `columns` of a matrix to `out`, row-major and without gaps. A vector is a matrix of
    /// one column. Quantised elements come multiplied by their scales.
    ///
    /// # Errors
    /// `InvalidCheckpoint` naming the tensor when it does not exist or the block is not in it; `Unsupported` for element
    /// types that are not f32, f16, bf16 or scaled e4m3; `InvalidArgument` when `out` is not as large as the block.
    fn read(&self, name: &str, rows: Range<usize>, columns: Range<usize>, out: &mut [f32]) -> Result<()>;
}

/// Rows and columns of a shape: a vector has one column, further dimensions count as columns.
pub(super) fn matrix(shape: &[usize]) -> (usize, usize) {
    match shape {
        [] => (1, 1),
        [rows, rest @ ..] => (*rows, rest.iter().product()),
    }
}
