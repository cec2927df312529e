//! Where a builder takes weights from: a checkpoint's tensors as f32, a block of rows and columns at a time.

use std::ops::Range;

use crate::error::Result;
use crate::types::DType;

/// Named tensors of one or two dimensions (or any shape, seen as rows of its first extent).
pub trait WeightSource: Sync {
    /// The tensor's shape; `None` when there is no such tensor.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// The element type in which most of the tensors are stored; `None` when the source stores none.
    fn dtype(&self) -> Option<DType>;

    /// Writes rows `rows` and columns `columns` of a matrix to `out`, row-major and without gaps. A vector is a matrix of
    /// one column.
    ///
    /// # Errors
    /// `InvalidCheckpoint` naming the tensor when it does not exist or the block is not in it; `Unsupported` for element
    /// types that are not f32, f16 or bf16; `InvalidArgument` when `out` is not as large as the block.
    fn read(&self, name: &str, rows: Range<usize>, columns: Range<usize>, out: &mut [f32]) -> Result<()>;
}

/// Rows and columns of a shape: a vector has one column, further dimensions count as columns.
pub(super) fn matrix(shape: &[usize]) -> (usize, usize) {
    match shape {
        [] => (1, 1),
        [rows, rest @ ..] => (*rows, rest.iter().product()),
    }
}
