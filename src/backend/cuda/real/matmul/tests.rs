//! Products on a real device against f64 sums on the host; without a device or the library they say what is missing.

use std::sync::Arc;

use super::*;
use crate::backend::cuda::driver::Address;
use crate::error::Status;
use crate::types::{DType, bf16, e4m3, f16};

const WORKSPACE: usize = 32 << 20;
const N: usize = 256;
const POISON: u8 = 0xA5;

/// A device with the library; `None` with the reason printed where there is none.
fn device() -> Option<Arc<dyn Driver>> {
    let ready = || {
        let driver = RealDriver::open(0)?;
        let matmul = driver.matmul(&Case::new(DType::BF16, DType::BF16, 128).spec(1, 0))?;
        driver.release_matmul(matmul);
        Ok::<_, Error>(driver)
    };
    ready().inspect_err(|error| println!("skipped: {error}")).ok()
}

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
struct Case {
    element: DType,
    out: DType,
    k: usize,
    residual: bool,
    bias: bool,
    /// Columns between the rows of x, out and residual.
    gap: usize,
}

impl Case {
    fn new(element: DType, out: DType, k: usize) -> Self {
        Self { element, out, k, residual: false, bias: false, gap: 0 }
    }

    fn spec(self, rows: u32, rank: u8) -> MatmulSpec {
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
struct Product<'d> {
    driver: &'d dyn Driver,
    spec: MatmulSpec,
    operands: MatmulOperands,
    /// Each expected sum, and the sum of its parts' sizes, by which its error is measured.
    expected: Vec<(f64, f64)>,
}

impl<'d> Product<'d> {
    fn new(driver: &'d dyn Driver, spec: MatmulSpec) -> Self {
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

    fn launch(&self, matmul: Matmul, rows: u32) -> Result<()> {
        // SAFETY: the operands have the spec's extents and live as long as this.
        unsafe { self.driver.launch_matmul(matmul, &self.operands, rows) }
    }

    /// Compares the first rows, looks whether all else was left alone, and poisons the output again.
    fn check(&self, rows: u32) {
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

fn place(driver: &dyn Driver, bytes: &[u8]) -> Address {
    let address = driver.allocate(bytes.len(), "operand").unwrap();
    // SAFETY: the allocation has as many bytes, and the stream is waited for while they live.
    unsafe { driver.upload(address, bytes.as_ptr(), bytes.len()).unwrap() };
    driver.synchronize().unwrap();
    address
}

/// Runs a case for each number of rows, and for fewer rows than it was prepared for.
fn run(driver: &dyn Driver, case: Case) {
    for rows in [1, 7, 65] {
        let product = Product::new(driver, case.spec(rows, 0));
        let matmul = driver.matmul(&product.spec).unwrap_or_else(|error| panic!("{case:?}: {error}"));
        for fewer in [rows, rows.div_ceil(2), 1] {
            product.launch(matmul, fewer).unwrap_or_else(|error| panic!("{case:?}: {error}"));
            product.check(fewer);
        }
        driver.release_matmul(matmul);
    }
}

#[test]
fn half_products_agree_with_the_host() {
    let Some(driver) = device() else { return };
    for element in [DType::BF16, DType::F16] {
        for k in [128, 640] {
            run(&*driver, Case::new(element, element, k));
            run(&*driver, Case { gap: 16, ..Case::new(element, DType::F32, k) });
        }
    }
}

#[test]
fn residuals_and_biases_are_added() {
    let Some(driver) = device() else { return };
    let case = Case { residual: true, ..Case::new(DType::BF16, DType::F32, 384) };
    for case in [case, Case { gap: 8, ..case }, Case { bias: true, ..case }, Case { out: DType::BF16, ..case }] {
        run(&*driver, case);
    }
}

#[test]
fn a_residual_may_be_the_output() {
    let Some(driver) = device() else { return };
    let case = Case { residual: true, ..Case::new(DType::BF16, DType::F32, 256) };
    let mut product = Product::new(&*driver, case.spec(65, 0));
    driver.release(std::mem::replace(&mut product.operands.out, product.operands.residual));
    let matmul = driver.matmul(&product.spec).unwrap();
    product.launch(matmul, 65).unwrap();
    product.check(65);
    // One allocation is released twice below, which the driver ignores.
    driver.release_matmul(matmul);
}

#[test]
fn e4m3_products_have_a_scale_for_each_row() {
    let Some(driver) = device() else { return };
    let case = Case::new(DType::E4M3, DType::BF16, 512);
    if let Err(error) = driver.matmul(&case.spec(1, 0)) {
        assert_eq!(error.status(), Status::Unsupported);
        assert_ne!(driver.info().arch.major, 9, "{error}");
        return println!("skipped: {error}");
    }
    for case in [case, Case { gap: 16, ..case }, Case { out: DType::F32, ..case }] {
        run(&*driver, case);
    }
    run(&*driver, Case { out: DType::F32, residual: true, ..case });
}

#[test]
fn captured_products_are_replayed() {
    let Some(driver) = device() else { return };
    let case = Case { residual: true, ..Case::new(DType::BF16, DType::F32, 128) };
    let product = Product::new(&*driver, case.spec(65, 0));
    let matmul = driver.matmul(&product.spec).unwrap();
    driver.begin_capture().unwrap();
    // The first launch of this product at all, so that whatever it loads is loaded here.
    product.launch(matmul, 33).unwrap();
    let graph = driver.end_capture().unwrap();
    driver.release_matmul(matmul);
    for _ in 0..3 {
        // SAFETY: as of the launch that was recorded.
        unsafe { driver.launch_graph(graph).unwrap() };
        product.check(33);
    }
    driver.release_graph(graph);
}

#[test]
fn every_algorithm_that_is_offered_computes_the_same() {
    let Some(driver) = device() else { return };
    let case = Case::new(DType::BF16, DType::BF16, 2048);
    let product = Product::new(&*driver, case.spec(65, 0));
    let offered = (0..=u8::MAX).map_while(|rank| match driver.matmul(&case.spec(65, rank)) {
        Ok(matmul) => Some(matmul),
        Err(error) => {
            assert_eq!(error.status(), Status::Unsupported, "{error}");
            assert!(error.to_string().contains("algorithms for it"), "{error}");
            None
        }
    });
    let offered: Vec<Matmul> = offered.take(8).collect();
    println!("{} algorithms tried", offered.len());
    assert!(!offered.is_empty());
    for matmul in offered {
        for rows in [65, 7] {
            product.launch(matmul, rows).unwrap();
            product.check(rows);
        }
        driver.release_matmul(matmul);
    }
}

#[test]
fn what_is_not_there_is_an_error_and_the_device_lives() {
    let Some(driver) = device() else { return };
    let case = Case::new(DType::BF16, DType::BF16, 128);
    let product = Product::new(&*driver, case.spec(7, 0));
    assert_eq!(product.launch(Matmul(1 << 40), 7).unwrap_err().status(), Status::Internal);
    let matmul = driver.matmul(&product.spec).unwrap();
    assert_eq!(product.launch(matmul, 8).unwrap_err().status(), Status::Internal);
    // A row of 129 e4m3 is no multiple of 16 bytes.
    let odd = MatmulSpec { k: 129, x_stride: 129, ..Case::new(DType::E4M3, DType::BF16, 128).spec(7, 0) };
    let error = driver.matmul(&odd).unwrap_err();
    assert_eq!(error.status(), Status::Unsupported);
    let text = error.to_string();
    assert!(text.contains("[7, 129]"), "{text}");
    product.launch(matmul, 7).unwrap();
    product.check(7);
}
