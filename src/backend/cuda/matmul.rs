//! A matrix product as the vendor's library is asked for one: its shape, its operands, and what both must satisfy.

use std::fmt;

use super::driver::Address;
use crate::error::{Error, Result};
use crate::types::DType;

/// What every operand's address is a multiple of.
pub const OPERAND_ALIGNMENT: u64 = 16;
/// What the workspace's address is a multiple of.
pub const WORKSPACE_ALIGNMENT: u64 = 256;

/// `out[rows][n] = x[rows][k] * weight[n][k]^T (+ residual[rows][n]) (+ bias[n])`, all row-major. An e4m3 product has a scale
/// for each row of `x` and of `weight`. Strides are in elements; the weight is dense. Sums are made in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MatmulSpec {
    /// Of `x` and `weight`: f16, bf16 or e4m3.
    pub element: DType,
    /// Of `out` and `residual`: f32, or `element` where that is f16 or bf16; any of the three for e4m3.
    pub out: DType,
    /// The most rows, for which the algorithm is chosen.
    pub rows: u32,
    pub n: usize,
    pub k: usize,
    pub x_stride: usize,
    pub out_stride: usize,
    /// The residual's row stride, where there is one.
    pub residual_stride: Option<usize>,
    /// Whether an f32 bias is added; only to an f32 output of f16 or bf16.
    pub bias: bool,
    /// The most device memory that the algorithm may work in.
    pub workspace_bytes: usize,
    /// Which of the library's algorithms, the one that it holds for fastest being 0.
    pub rank: u8,
}

/// Device addresses of a product; 0 for what its spec does not have. `residual` may be `out` where both have one stride.
///
/// Extents: `x`, `out` and `residual` have rows as the spec says, `weight` `n * k` elements, `x_scale` one f32 for each row,
/// `weight_scale` and `bias` `n` f32, `workspace` the spec's bytes. The workspace lies at a multiple of 256 bytes, all else
/// at multiples of 16.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MatmulOperands {
    pub x: Address,
    pub weight: Address,
    pub out: Address,
    pub residual: Address,
    pub x_scale: Address,
    pub weight_scale: Address,
    pub bias: Address,
    pub workspace: Address,
}

/// One operand: where it is and how far it must reach. 0 bytes are none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    name: &'static str,
    pub(super) address: Address,
    pub(super) bytes: usize,
    alignment: u64,
}

impl MatmulSpec {
    /// Whether the elements have scales.
    #[must_use]
    pub fn is_scaled(&self) -> bool {
        self.element == DType::E4M3
    }

    /// # Errors
    /// `Unsupported` for types that the library has no product of, `Internal` for an impossible shape.
    pub(super) fn check(&self) -> Result<()> {
        let unsupported = |why: String| Err(Error::Unsupported { what: self.to_string(), why });
        let is_half = matches!(self.element, DType::F16 | DType::BF16);
        let out_fits = match self.out {
            DType::F32 => true,
            DType::F16 | DType::BF16 => self.is_scaled() || self.out == self.element,
            DType::E4M3 | DType::I8 | DType::I32 => false,
        };
        if !(is_half || self.is_scaled()) || !out_fits {
            return unsupported("cuBLASLt has no product of these types".into());
        }
        if self.bias && !(is_half && self.out == DType::F32) {
            return unsupported("cuBLASLt adds a bias of f32 only to an f32 product of f16 or bf16".into());
        }
        let narrow = |stride: usize, columns: usize| stride < columns;
        let is_empty = self.rows == 0 || self.n == 0 || self.k == 0;
        let overlap = narrow(self.x_stride, self.k)
            || narrow(self.out_stride, self.n)
            || self.residual_stride.is_some_and(|stride| narrow(stride, self.n));
        match is_empty || overlap {
            true => Err(Error::internal(self.to_string(), format!("no product can be like {self:?}"))),
            false => Ok(()),
        }
    }
}

impl fmt::Display for MatmulSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { element, out, rows, n, k, .. } = self;
        write!(f, "{element} product of [{rows}, {k}] and [{n}, {k}] to {out}")
    }
}

impl MatmulOperands {
    pub(super) fn extents(&self, spec: &MatmulSpec, rows: u32) -> [Extent; 8] {
        let rows = rows as usize;
        let matrix =
            |stride: usize, columns: usize, dtype: DType| (rows.saturating_sub(1) * stride + columns) * dtype.bytes();
        let if_scaled = |count: usize| if spec.is_scaled() { count * 4 } else { 0 };
        let residual = spec.residual_stride.map_or(0, |stride| matrix(stride, spec.n, spec.out));
        let operand = |name, address, bytes| Extent { name, address, bytes, alignment: OPERAND_ALIGNMENT };
        [
            operand("x", self.x, matrix(spec.x_stride, spec.k, spec.element)),
            operand("weight", self.weight, spec.n * spec.k * spec.element.bytes()),
            operand("out", self.out, matrix(spec.out_stride, spec.n, spec.out)),
            operand("residual", self.residual, residual),
            operand("x_scale", self.x_scale, if_scaled(rows)),
            operand("weight_scale", self.weight_scale, if_scaled(spec.n)),
            operand("bias", self.bias, if spec.bias { spec.n * 4 } else { 0 }),
            Extent {
                name: "workspace",
                address: self.workspace,
                bytes: spec.workspace_bytes,
                alignment: WORKSPACE_ALIGNMENT,
            },
        ]
    }

    /// # Errors
    /// `Internal` for a number of rows, an address or an absence that contradicts the spec.
    pub(super) fn check(&self, spec: &MatmulSpec, rows: u32) -> Result<()> {
        let refuse = |why: String| Err(Error::internal(spec.to_string(), why));
        if rows == 0 || rows > spec.rows {
            return refuse(format!("it cannot run over {rows} rows"));
        }
        for Extent { name, address, bytes, alignment } in self.extents(spec, rows) {
            if (address == 0) != (bytes == 0) || !address.is_multiple_of(alignment) {
                return refuse(format!("{bytes} bytes of {name} cannot be at {address:#x}"));
            }
        }
        match spec.residual_stride {
            Some(stride) if self.residual == self.out && stride != spec.out_stride => {
                refuse(format!("out is the residual, but their strides are {} and {stride}", spec.out_stride))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;

    const PLAIN: MatmulSpec = MatmulSpec {
        element: DType::BF16,
        out: DType::BF16,
        rows: 8,
        n: 64,
        k: 128,
        x_stride: 128,
        out_stride: 64,
        residual_stride: None,
        bias: false,
        workspace_bytes: 0,
        rank: 0,
    };
    const SCALED: MatmulSpec = MatmulSpec { element: DType::E4M3, ..PLAIN };
    const FULL: MatmulSpec =
        MatmulSpec { out: DType::F32, residual_stride: Some(64), bias: true, workspace_bytes: 1024, ..PLAIN };

    #[test]
    fn products_that_the_library_has_pass() {
        for (element, out) in [(DType::BF16, DType::F32), (DType::F16, DType::F16), (DType::E4M3, DType::F16)] {
            MatmulSpec { element, out, ..PLAIN }.check().unwrap();
        }
        SCALED.check().unwrap();
        FULL.check().unwrap();
    }

    #[test]
    fn products_that_it_does_not_have_are_named() {
        let bad = [
            MatmulSpec { element: DType::F32, ..FULL },
            MatmulSpec { out: DType::F16, ..PLAIN },
            MatmulSpec { out: DType::E4M3, ..SCALED },
            MatmulSpec { bias: true, ..PLAIN },
            MatmulSpec { bias: true, out: DType::F32, ..SCALED },
        ];
        for spec in bad {
            let error = spec.check().unwrap_err();
            assert_eq!(error.status(), Status::Unsupported, "{spec:?}");
            assert!(error.to_string().contains("product of [8, 128] and [64, 128] to"), "{error}");
        }
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let bad = [
            MatmulSpec { rows: 0, ..PLAIN },
            MatmulSpec { n: 0, ..PLAIN },
            MatmulSpec { k: 0, ..PLAIN },
            MatmulSpec { x_stride: 127, ..PLAIN },
            MatmulSpec { out_stride: 63, ..PLAIN },
            MatmulSpec { residual_stride: Some(63), ..PLAIN },
        ];
        for spec in bad {
            assert_eq!(spec.check().unwrap_err().status(), Status::Internal, "{spec:?}");
        }
    }

    #[test]
    fn operands_are_those_of_the_spec() {
        let plain = MatmulOperands { x: 16, weight: 32, out: 48, ..MatmulOperands::default() };
        let full = MatmulOperands { residual: 64, bias: 80, workspace: 256, ..plain };
        let scaled = MatmulOperands { x_scale: 64, weight_scale: 80, ..plain };
        for (spec, operands) in [(PLAIN, plain), (FULL, full), (SCALED, scaled)] {
            operands.check(&spec, 1).unwrap();
            operands.check(&spec, 8).unwrap();
        }
        MatmulOperands { residual: 48, ..full }.check(&FULL, 8).unwrap();
        let bad = [
            (PLAIN, plain, 0),
            (PLAIN, plain, 9),
            (PLAIN, full, 8),
            (FULL, plain, 8),
            (SCALED, plain, 8),
            (PLAIN, MatmulOperands { x: 24, ..plain }, 8),
            (FULL, MatmulOperands { workspace: 128, ..full }, 8),
            (MatmulSpec { residual_stride: Some(80), ..FULL }, MatmulOperands { residual: 48, ..full }, 8),
        ];
        for (spec, operands, rows) in bad {
            assert_eq!(operands.check(&spec, rows).unwrap_err().status(), Status::Internal, "{operands:?} {rows}");
        }
    }

    #[test]
    fn extents_reach_to_the_last_element() {
        let spec = MatmulSpec { x_stride: 130, out_stride: 70, residual_stride: Some(80), ..FULL };
        let bytes = |spec, rows| MatmulOperands::default().extents(&spec, rows).map(|extent| extent.bytes);
        let weight = 64 * 128 * 2;
        assert_eq!(
            bytes(spec, 3),
            [(2 * 130 + 128) * 2, weight, (2 * 70 + 64) * 4, (2 * 80 + 64) * 4, 0, 0, 256, 1024]
        );
        assert_eq!(bytes(SCALED, 1), [128, 64 * 128, 128, 0, 4, 256, 0, 0]);
    }
}
