//! Products whose results are known, for tests: operands on the device, sums in f64 on the host.

use super::super::super::driver::{Address, Driver, Matmul};
use super::super::super::matmul::{MatmulOperands, MatmulSpec};
use crate::error::Result;
use crate::types::{DType, bf16, e4m3, f16};

const WORKSPACE: usize = 32 << 20;
/// Columns of every product.
const N: usize = 256;
const POISON: u8 = 0xA5;

/// Reproducible numbers from -1 to 1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Values of a type, as bytes and as numbers.
struct Values {
    bytes: Vec<u8>,
    numbers: Vec<f64>,
}

impl Values {
    fn of(dtype: DType, numbers: impl Iterator<Item = f32>) -> Self {
        let mut values = Self { bytes: Vec::new(), numbers: Vec::new() };
        for x in numbers {
            let bytes = encode(dtype, x);
            values.numbers.push(decode(dtype, &bytes));
            values.bytes.extend(bytes);
        }
        values
    }
}

fn encode(dtype: DType, x: f32) -> Vec<u8> {
    match dtype {
        DType::BF16 => bf16::encode(x).to_ne_bytes().into(),
        DType::F16 => f16::encode(x).to_ne_bytes().into(),
        DType::E4M3 => vec![e4m3::encode(x)],
        _ => x.to_ne_bytes().into(),
    }
}

fn decode(dtype: DType, bytes: &[u8]) -> f64 {
    let half = || u16::from_ne_bytes(bytes.try_into().unwrap());
    f64::from(match dtype {
        DType::BF16 => bf16::decode(half()),
        DType::F16 => f16::decode(half()),
        DType::E4M3 => e4m3::decode(bytes[0]),
        _ => f32::from_ne_bytes(bytes.try_into().unwrap()),
    })
}

/// A kind of product with `N` columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) element: DType,
    pub(super) out: DType,
    pub(super) k: usize,
    pub(super) residual: bool,
    pub(super) bias: bool,
    /// Columns between the rows of x, out and residual.
    pub(super) gap: usize,
}

impl Case {
    pub(super) fn new(element: DType, out: DType, k: usize) -> Self {
        Self { element, out, k, residual: false, bias: false, gap: 0 }
    }

    pub(super) fn spec(self, rows: u32, rank: u8) -> MatmulSpec {
        MatmulSpec {
            element: self.element,
            out: self.out,
            rows,
            n: N,
            k: self.k,
            x_stride: self.k + self.gap,
            out_stride: N + self.gap,
            residual_stride: self.residual.then_some(N + 2 * self.gap),
            bias: self.bias,
            workspace_bytes: WORKSPACE,
            rank,
        }
    }
}

/// A case's operands on the device and what their product is.
pub(super) struct Product<'d> {
    driver: &'d dyn Driver,
    pub(super) spec: MatmulSpec,
    pub(super) operands: MatmulOperands,
    /// Each expected sum, and the sum of its parts' sizes, by which its error is measured.
    expected: Vec<(f64, f64)>,
}

impl<'d> Product<'d> {
    pub(super) fn new(driver: &'d dyn Driver, spec: MatmulSpec) -> Self {
        let mut random = Random(u64::from(spec.rows) * 1000 + spec.k as u64);
        let mut values = |dtype, count: usize, scale: f32| {
            let mut next = || random.next() * scale;
            Values::of(dtype, std::iter::repeat_with(&mut next).take(count))
        };
        let rows = spec.rows as usize;
        let x = values(spec.element, rows * spec.x_stride, 2.0);
        let weight = values(spec.element, spec.n * spec.k, 2.0);
        let residual = values(spec.out, spec.residual_stride.map_or(0, |stride| rows * stride), 4.0);
        let bias = values(DType::F32, if spec.bias { spec.n } else { 0 }, 4.0);
        let x_scale = values(DType::F32, if spec.is_scaled() { rows } else { 0 }, 0.1);
        let weight_scale = values(DType::F32, if spec.is_scaled() { spec.n } else { 0 }, 0.1);
        let sum = |row: usize, column: usize| {
            let scale = x_scale.numbers.get(row).unwrap_or(&1.0) * weight_scale.numbers.get(column).unwrap_or(&1.0);
            let (x, weight) = (&x.numbers[row * spec.x_stride..], &weight.numbers[column * spec.k..]);
            let products = x.iter().zip(weight).take(spec.k).map(|(x, weight)| x * weight * scale);
            let added = spec.residual_stride.map(|stride| residual.numbers[row * stride + column]);
            let terms: Vec<f64> = products.chain(added).chain(bias.numbers.get(column).copied()).collect();
            (terms.iter().sum(), terms.iter().map(|term| term.abs()).sum())
        };
        let expected = (0..rows * N).map(|at| sum(at / N, at % N)).collect();
        let upload = |values: &Values| place(driver, &values.bytes);
        let operands = MatmulOperands {
            x: upload(&x),
            weight: upload(&weight),
            out: place(driver, &vec![POISON; rows * spec.out_stride * spec.out.bytes()]),
            residual: upload(&residual),
            x_scale: upload(&x_scale),
            weight_scale: upload(&weight_scale),
            bias: upload(&bias),
            workspace: driver.allocate(spec.workspace_bytes, "workspace").unwrap(),
        };
        Self { driver, spec, operands, expected }
    }

    pub(super) fn launch(&self, matmul: Matmul, rows: u32) -> Result<()> {
        // SAFETY: the operands have the spec's extents and live as long as this.
        unsafe { self.driver.launch_matmul(matmul, &self.operands, rows) }
    }

    /// Compares the first rows, looks whether all else was left alone, and poisons the output again.
    pub(super) fn check(&self, rows: u32) {
        let (size, stride) = (self.spec.out.bytes(), self.spec.out_stride);
        let mut out = vec![0_u8; self.spec.rows as usize * stride * size];
        // SAFETY: both sides have as many bytes and live until the stream was waited for.
        unsafe {
            self.driver.download(out.as_mut_ptr(), self.operands.out, out.len()).unwrap();
            self.driver.fill(self.operands.out, out.len(), POISON).unwrap();
        }
        self.driver.synchronize().unwrap();
        for (at, bytes) in out.chunks(size).enumerate() {
            let (row, column) = (at / stride, at % stride);
            if row >= rows as usize || column >= N {
                assert!(bytes.iter().all(|byte| *byte == POISON), "{}: [{row}, {column}] was written", self.spec);
                continue;
            }
            let ((expected, size), actual) = (self.expected[row * N + column], decode(self.spec.out, bytes));
            let allowed = rounding(self.spec.out) * expected.abs() + self.accumulation() * size;
            assert!(
                (actual - expected).abs() <= allowed,
                "{} over {rows} rows: [{row}, {column}] is {actual}, not {expected} +- {allowed}",
                self.spec
            );
        }
    }

    /// Error of a sum relative to its parts' sizes: tensor cores add e4m3 with some 13 bits before sums move to f32.
    fn accumulation(&self) -> f64 {
        if self.spec.is_scaled() { 2.0_f64.powi(-12) } else { 2.0_f64.powi(-18) }
    }
}

impl Drop for Product<'_> {
    fn drop(&mut self) {
        let MatmulOperands { x, weight, out, residual, x_scale, weight_scale, bias, workspace } = self.operands;
        let all = [x, weight, out, residual, x_scale, weight_scale, bias, workspace];
        all.into_iter().for_each(|address| self.driver.release(address));
    }
}

/// Half a unit in the last place, relative.
fn rounding(dtype: DType) -> f64 {
    2.0_f64.powi(match dtype {
        DType::BF16 => -8,
        DType::F16 => -11,
        _ => -24,
    })
}

/// The bytes in device memory of their own; 0 for none.
fn place(driver: &dyn Driver, bytes: &[u8]) -> Address {
    if bytes.is_empty() {
        return 0;
    }
    let address = driver.allocate(bytes.len(), "operand").unwrap();
    // SAFETY: the allocation has as many bytes, and the stream is waited for while they live.
    unsafe { driver.upload(address, bytes.as_ptr(), bytes.len()).unwrap() };
    driver.synchronize().unwrap();
    address
}
