//! One matrix product with its algorithm.
//!
//! The library thinks in columns: our row-major `out[rows][n]` is its column-major D of n rows and `rows` columns, so A is
//! the weight, transposed, and B is x.

use std::ffi::{c_int, c_void};

use super::super::driver::Address;
use super::super::matmul::{MatmulOperands, MatmulSpec, OPERAND_ALIGNMENT};
use super::abi::{self, Algorithm, Candidate};
use super::{Cublas, FIRST_WITH_ROW_SCALES, Fault, Handle, Object};
use crate::error::{Error, Result};
use crate::types::DType;

/// A prepared product. Its descriptors are changed by launches, which therefore take it as their own.
pub(in super::super) struct Plan {
    spec: MatmulSpec,
    product: Object,
    weight: Object,
    x: Object,
    out: Object,
    /// Where its stride is not that of `out`, whose layout it has otherwise, as the library demands when both are one.
    residual: Option<Object>,
    preference: Object,
    algorithm: Algorithm,
}

impl Plan {
    /// # Errors
    /// `Unsupported` where the library or the device, which `device` names, has no such product; `Internal` for an
    /// impossible one.
    pub(in super::super) fn new(handle: &Handle, spec: &MatmulSpec, device: &str) -> Result<Self> {
        spec.check()?;
        let unsupported = |why: String| Error::Unsupported { what: spec.to_string(), why };
        let version = handle.cublas.version();
        if spec.is_scaled() && version < FIRST_WITH_ROW_SCALES {
            return Err(unsupported(format!("cuBLASLt {version} has no scales for rows, {FIRST_WITH_ROW_SCALES} has")));
        }
        let named = |fault: Fault| fault.error(&spec.to_string(), device);
        let mut plan = Self::described(handle.cublas, spec).map_err(named)?;
        let rank = usize::from(spec.rank);
        let found = plan.candidates(handle, rank + 1).map_err(named)?;
        let chosen = found.get(rank).ok_or_else(|| {
            unsupported(format!("cuBLASLt {version} has {} algorithms for it, not {}", found.len(), rank + 1))
        })?;
        plan.algorithm = chosen.algorithm;
        Ok(plan)
    }

    /// All but the algorithm.
    fn described(cublas: &'static Cublas, spec: &MatmulSpec) -> Result<Self, Fault> {
        let (element, out, rows) = (kind(spec.element), kind(spec.out), spec.rows as usize);
        let residual = spec.residual_stride.filter(|stride| *stride != spec.out_stride);
        Ok(Self {
            spec: *spec,
            product: product(cublas, spec)?,
            weight: cublas.layout(element, spec.k, spec.n, spec.k)?,
            x: cublas.layout(element, spec.k, rows, spec.x_stride)?,
            out: cublas.layout(out, spec.n, rows, spec.out_stride)?,
            residual: residual.map(|stride| cublas.layout(out, spec.n, rows, stride)).transpose()?,
            preference: preference(cublas, spec)?,
            algorithm: Candidate::EMPTY.algorithm,
        })
    }

    pub(in super::super) fn spec(&self) -> &MatmulSpec {
        &self.spec
    }

    /// Puts the product over `rows` rows into the stream.
    ///
    /// # Errors
    /// What the library reports.
    ///
    /// # Safety
    /// The handle's context is current, the stream is one of it, and the operands have passed their check.
    pub(in super::super) unsafe fn launch(
        &mut self,
        handle: &Handle,
        operands: &MatmulOperands,
        rows: u32,
        stream: *mut c_void,
    ) -> Result<(), Fault> {
        self.set_rows(rows)?;
        set_pointers(&self.product, &self.spec, operands)?;
        // SAFETY: the caller's.
        let refused = match unsafe { self.enqueue(handle, operands, &self.algorithm, stream) } {
            Err(fault) if fault.is_refusal() && rows != self.spec.rows => fault,
            result => return result,
        };
        match self.candidates(handle, 1)?.first() {
            // SAFETY: the caller's.
            Some(other) => unsafe { self.enqueue(handle, operands, &other.algorithm, stream) },
            None => Err(refused),
        }
    }

    fn set_rows(&mut self, rows: u32) -> Result<(), Fault> {
        let matrices = [Some(&self.x), Some(&self.out), self.residual.as_ref()];
        matrices.into_iter().flatten().try_for_each(|matrix| matrix.set(abi::layout::COLUMNS, u64::from(rows)))
    }

    /// At most so many algorithms for the rows that are set, fastest first.
    fn candidates(&self, handle: &Handle, most: usize) -> Result<Vec<Candidate>, Fault> {
        let mut found = vec![Candidate::EMPTY; most];
        let mut count: c_int = 0;
        // SAFETY: handle and descriptors are live; `found` has the length that is told.
        let code = unsafe {
            (handle.cublas.get_heuristic)(
                handle.raw,
                self.product.raw,
                self.weight.raw,
                self.x.raw,
                self.residual.as_ref().unwrap_or(&self.out).raw,
                self.out.raw,
                self.preference.raw,
                most as c_int,
                found.as_mut_ptr(),
                &raw mut count,
            )
        };
        handle.cublas.check(code, "cublasLtMatmulAlgoGetHeuristic")?;
        found.truncate(usize::try_from(count).unwrap_or(0));
        found.retain(|candidate| {
            candidate.status == abi::SUCCESS && candidate.workspace_bytes <= self.spec.workspace_bytes
        });
        Ok(found)
    }

    /// # Safety
    /// As of [`Plan::launch`].
    unsafe fn enqueue(
        &self,
        handle: &Handle,
        operands: &MatmulOperands,
        algorithm: &Algorithm,
        stream: *mut c_void,
    ) -> Result<(), Fault> {
        let has_residual = self.spec.residual_stride.is_some();
        let (one, share) = (1.0_f32, if has_residual { 1.0_f32 } else { 0.0 });
        // Of no share it is not read, but must be somewhere.
        let added = if has_residual { operands.residual } else { operands.out };
        // SAFETY: handle and descriptors are live, both factors are on this side until the call returns; the rest is the
        // caller's.
        let code = unsafe {
            (handle.cublas.multiply)(
                handle.raw,
                self.product.raw,
                &raw const one,
                pointer(operands.weight),
                self.weight.raw,
                pointer(operands.x),
                self.x.raw,
                &raw const share,
                pointer(added),
                self.residual.as_ref().unwrap_or(&self.out).raw,
                pointer(operands.out).cast_mut(),
                self.out.raw,
                algorithm,
                pointer(operands.workspace).cast_mut(),
                self.spec.workspace_bytes,
                stream,
            )
        };
        handle.cublas.check(code, "cublasLtMatmul")
    }
}

fn product(cublas: &'static Cublas, spec: &MatmulSpec) -> Result<Object, Fault> {
    let product = cublas.product()?;
    product.set(abi::product::TRANSPOSE_A, abi::TRANSPOSED)?;
    if spec.bias {
        product.set(abi::product::EPILOGUE, abi::EPILOGUE_BIAS)?;
        product.set(abi::product::BIAS_TYPE, abi::R_32F)?;
    }
    if spec.is_scaled() {
        product.set(abi::product::A_SCALE_MODE, abi::SCALE_OUTER_VECTOR)?;
        product.set(abi::product::B_SCALE_MODE, abi::SCALE_OUTER_VECTOR)?;
    }
    // The heuristic asks of these only whether they are there and how they are aligned.
    let somewhere = OPERAND_ALIGNMENT;
    let operands =
        MatmulOperands { bias: somewhere, x_scale: somewhere, weight_scale: somewhere, ..Default::default() };
    set_pointers(&product, spec, &operands)?;
    Ok(product)
}

fn set_pointers(product: &Object, spec: &MatmulSpec, operands: &MatmulOperands) -> Result<(), Fault> {
    if spec.bias {
        product.set(abi::product::BIAS_POINTER, pointer(operands.bias))?;
    }
    if spec.is_scaled() {
        product.set(abi::product::A_SCALE_POINTER, pointer(operands.weight_scale))?;
        product.set(abi::product::B_SCALE_POINTER, pointer(operands.x_scale))?;
    }
    Ok(())
}

fn preference(cublas: &'static Cublas, spec: &MatmulSpec) -> Result<Object, Fault> {
    let preference = cublas.preference()?;
    preference.set(abi::preference::MOST_WORKSPACE_BYTES, spec.workspace_bytes as u64)?;
    preference.set(abi::preference::REDUCTION_SCHEMES, abi::REDUCTION_IN_COMPUTE_TYPE)?;
    for alignment in abi::preference::ALIGNMENTS {
        preference.set(alignment, OPERAND_ALIGNMENT as u32)?;
    }
    Ok(preference)
}

fn pointer(address: Address) -> *const c_void {
    address as *const c_void
}

fn kind(dtype: DType) -> c_int {
    match dtype {
        DType::F16 => abi::R_16F,
        DType::BF16 => abi::R_16BF,
        DType::E4M3 => abi::R_8F_E4M3,
        // Of integers the spec's check leaves none.
        DType::F32 | DType::I8 | DType::I32 => abi::R_32F,
    }
}

#[cfg(test)]
mod tests {
    use super::super::cublas;
    use super::*;

    const PLAIN: MatmulSpec = MatmulSpec {
        element: DType::BF16,
        out: DType::F32,
        rows: 7,
        n: 256,
        k: 128,
        x_stride: 128,
        out_stride: 256,
        residual_stride: None,
        bias: false,
        workspace_bytes: 1024,
        rank: 0,
    };

    /// Descriptors need no device, and the library refuses attributes that it does not know or that have another size.
    #[test]
    fn the_library_takes_every_attribute_of_every_kind_of_product() {
        let cublas = match cublas() {
            Ok(cublas) => cublas,
            Err(error) => return println!("skipped: {error}"),
        };
        let scaled =
            (cublas.version() >= FIRST_WITH_ROW_SCALES).then_some(MatmulSpec { element: DType::E4M3, ..PLAIN });
        let specs = [
            PLAIN,
            MatmulSpec { residual_stride: Some(256), bias: true, ..PLAIN },
            MatmulSpec { element: DType::F16, residual_stride: Some(300), ..PLAIN },
        ];
        for spec in specs.into_iter().chain(scaled) {
            let mut plan = Plan::described(cublas, &spec).unwrap_or_else(|fault| panic!("{spec:?}: {fault:?}"));
            assert_eq!(plan.residual.is_some(), spec.residual_stride == Some(300));
            plan.set_rows(1).unwrap();
        }
        let product = cublas.product().unwrap();
        assert!(product.set(abi::product::TRANSPOSE_A, 1_u8).unwrap_err().is_refusal());
        assert!(product.set(1000, 1_i32).unwrap_err().is_refusal());
    }
}
