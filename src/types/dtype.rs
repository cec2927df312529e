//! Element types of tensors.

use serde::{Deserialize, Serialize};

/// Element type of a weight, a value or a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    F32,
    F16,
    BF16,
    /// 8 bits: 4 of exponent, 3 of mantissa, no infinity (OCP E4M3); largest 448.
    E4M3,
    /// 8-bit integers.
    I8,
    I32,
}

impl DType {
    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::E4M3 | DType::I8 => 1,
        }
    }

    /// Whether a weight's elements are codes, which scales turn into values.
    #[must_use]
    pub fn is_scaled(self) -> bool {
        matches!(self, DType::E4M3 | DType::I8)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::E4M3 => "e4m3",
            DType::I8 => "i8",
            DType::I32 => "i32",
        })
    }
}
