//! A weight of the plan: data in a layout, and scales where the data are codes.

use serde::{Deserialize, Serialize};

use crate::types::DType;

/// Rows of the weight matrix that lie side by side in a packed panel (see [`Packing::Panels`]).
pub const PANEL: usize = 32;
/// Rows and columns of a weight matrix that share a scale (see [`Granularity::Block`]).
pub const SCALE_BLOCK: usize = 128;

/// How a weight's bytes are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// Row-major as the shape says.
    RowMajor,
    /// A matrix `[N, K]` in panels of [`PANEL`] rows, N zero-padded to PANEL and K to [`Packing::padded_columns`].
    /// f32: `[N/32][K][32]`. bf16 and f16: `[N/32][K/2][32][2]`, so that 4 bytes hold elements k and k+1 of one row.
    /// e4m3 and i8: `[N/32][K/4][32][4]`; an i8 is stored with 128 added, as unsigned factors of dot products want it.
    Panels,
}

impl Packing {
    /// Multiple at which such a weight starts in the weight section.
    #[must_use]
    pub fn alignment(self) -> u64 {
        match self {
            Packing::RowMajor => 256,
            Packing::Panels => 4096,
        }
    }

    /// Columns that a panel of `columns` columns has in memory; `None` on overflow.
    #[must_use]
    pub fn padded_columns(columns: usize, dtype: DType) -> Option<usize> {
        columns.checked_next_multiple_of(if dtype.is_scaled() { 4 } else { 2 })
    }
}

/// What shares one scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// A row of the matrix: scales `[N]`.
    Row,
    /// [`SCALE_BLOCK`] x [`SCALE_BLOCK`] elements: scales `[ceil(N/128), ceil(K/128)]`.
    Block,
}

impl Granularity {
    /// Shape of the scales of a matrix `[rows, columns]`.
    #[must_use]
    pub fn scale_shape(self, rows: usize, columns: usize) -> Vec<usize> {
        match self {
            Granularity::Row => vec![rows],
            Granularity::Block => vec![rows.div_ceil(SCALE_BLOCK), columns.div_ceil(SCALE_BLOCK)],
        }
    }
}

/// Scales of a quantised weight: an element is its code's value times its scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleSpec {
    /// Index of the scales among the plan's weights: f32, row-major.
    pub weight: usize,
    pub granularity: Granularity,
}

/// One weight in the engine's weight section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightSpec {
    pub name: String,
    pub dtype: DType,
    /// Logical shape, before padding.
    pub shape: Vec<usize>,
    pub packing: Packing,
    /// Scales of e4m3 or i8 elements; no other type has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleSpec>,
    /// Start in the weight section; a multiple of [`Packing::alignment`].
    pub offset: u64,
    pub bytes: u64,
    /// xxh3-64 of the packed bytes, in hexadecimal.
    pub checksum: String,
}

impl WeightSpec {
    /// Bytes that shape, dtype and packing imply; `None` on overflow or a packed shape that is not a matrix.
    #[must_use]
    pub fn packed_bytes(&self) -> Option<u64> {
        let elements = match (self.packing, self.shape.as_slice()) {
            (Packing::RowMajor, shape) => shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?,
            (Packing::Panels, [n, k]) => {
                n.checked_next_multiple_of(PANEL)?.checked_mul(Packing::padded_columns(*k, self.dtype)?)?
            }
            (Packing::Panels, _) => return None,
        };
        u64::try_from(elements.checked_mul(self.dtype.bytes())?).ok()
    }

    /// The checksum as a number; `None` when it is not exactly 16 lower-case hexadecimal digits.
    #[must_use]
    pub fn checksum_value(&self) -> Option<u64> {
        let digits = self.checksum.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        (digits && self.checksum.len() == 16).then(|| u64::from_str_radix(&self.checksum, 16).ok()).flatten()
    }
}
