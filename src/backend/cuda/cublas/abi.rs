//! What the library's headers (11.8 to 13) say of the types and numbers that are used.

use std::ffi::{c_int, c_void};

/// Handles and descriptors, all opaque.
pub(super) type Opaque = *mut c_void;

pub(super) const SUCCESS: c_int = 0;
pub(super) const NOT_INITIALIZED: c_int = 1;
pub(super) const ALLOC_FAILED: c_int = 3;
pub(super) const INVALID_VALUE: c_int = 7;
pub(super) const ARCH_MISMATCH: c_int = 8;
pub(super) const NOT_SUPPORTED: c_int = 15;

/// Of `cudaDataType`.
pub(super) const R_32F: c_int = 0;
pub(super) const R_16F: c_int = 2;
pub(super) const R_16BF: c_int = 14;
pub(super) const R_8F_E4M3: c_int = 28;

/// Of `cublasComputeType_t`.
pub(super) const COMPUTE_32F: c_int = 68;
/// Of `cublasOperation_t`.
pub(super) const TRANSPOSED: i32 = 1;
/// Of `cublasLtEpilogue_t`.
pub(super) const EPILOGUE_BIAS: u32 = 4;
/// Of `cublasLtMatmulMatrixScale_t`: one f32 for each row of A, or column of B, after transposition.
pub(super) const SCALE_OUTER_VECTOR: i32 = 3;
/// Of `cublasLtReductionScheme_t`: parts of a sum are added in f32.
pub(super) const REDUCTION_IN_COMPUTE_TYPE: u32 = 2;

/// Attributes of products.
pub(super) mod product {
    pub(in super::super) const TRANSPOSE_A: u32 = 3;
    pub(in super::super) const EPILOGUE: u32 = 7;
    pub(in super::super) const BIAS_POINTER: u32 = 8;
    pub(in super::super) const A_SCALE_POINTER: u32 = 17;
    pub(in super::super) const B_SCALE_POINTER: u32 = 18;
    pub(in super::super) const BIAS_TYPE: u32 = 26;
    pub(in super::super) const A_SCALE_MODE: u32 = 31;
    pub(in super::super) const B_SCALE_MODE: u32 = 32;
}

/// Attributes of matrices.
pub(super) mod layout {
    pub(in super::super) const COLUMNS: u32 = 3;
}

/// Attributes of preferences.
pub(super) mod preference {
    pub(in super::super) const MOST_WORKSPACE_BYTES: u32 = 1;
    pub(in super::super) const REDUCTION_SCHEMES: u32 = 3;
    /// Of A, B, C and D.
    pub(in super::super) const ALIGNMENTS: [u32; 4] = [5, 6, 7, 8];
}

/// An algorithm with its configuration, which the library alone reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Algorithm {
    data: [u64; 8],
}

/// One answer of the heuristic.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Candidate {
    pub(super) algorithm: Algorithm,
    pub(super) workspace_bytes: usize,
    /// The rest means something only if this is [`SUCCESS`].
    pub(super) status: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

impl Candidate {
    /// A place for an answer.
    pub(super) const EMPTY: Self = Self {
        algorithm: Algorithm { data: [0; 8] },
        workspace_bytes: 0,
        status: NOT_SUPPORTED,
        waves: 0.0,
        reserved: [0; 4],
    };
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn structures_are_laid_out_as_in_the_headers() {
        assert_eq!((size_of::<Algorithm>(), size_of::<Candidate>()), (64, 96));
        assert_eq!(offset_of!(Candidate, workspace_bytes), 64);
        assert_eq!((offset_of!(Candidate, status), offset_of!(Candidate, waves)), (72, 76));
        assert_eq!(offset_of!(Candidate, reserved), 80);
    }
}
