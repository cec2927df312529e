//! Products with i8 weights: of integers to the bit, of f32 activations as those of the codes.

use std::ops::Range;
use std::sync::Arc;

use super::super::quantize::MOST_COLUMNS;
use super::super::team::Team;
use super::*;
use crate::error::Status;
use crate::types::Activation;

const PRECISIONS: [Precision; 2] = [Precision::Int8, Precision::Int8W8a8];

/// `act(x W^T + b)`, times `x U^T + c` where there are two weights.
struct Product {
    m: usize,
    n: usize,
    k: usize,
    activation: Option<Activation>,
    x: Vec<f32>,
    /// Codes, scales and bias of each weight.
    factors: Vec<(Vec<i8>, Vec<f32>, Vec<f32>)>,
}

impl Product {
    fn new(m: usize, n: usize, k: usize, factors: usize, seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let mut factor = || {
            // -128 too, which the builder never writes.
            let codes = (0..n * k).map(|_| (numbers.below(256) as i16 - 128) as i8).collect();
            let scales = (0..n).map(|_| (1 + numbers.below(1000)) as f32 / 3e5 / (k as f32).sqrt()).collect();
            (codes, scales, numbers.vec(n))
        };
        let factors: Vec<_> = (0..factors).map(|_| factor()).collect();
        let x = numbers.vec(m * k);
        Product { m, n, k, activation: (factors.len() > 1).then_some(Activation::Silu), x, factors }
    }

    fn op(&self) -> Op {
        match self.factors.len() {
            1 => Op::Linear { bias: true, activation: self.activation },
            _ => Op::GatedLinear { bias: true, activation: self.activation.unwrap() },
        }
    }

    fn run(&self, precision: Precision, device: &CpuDevice, rows: Range<usize>) -> Vec<f32> {
        let x = &self.x[rows.start * self.k..rows.end * self.k];
        let mut case = Case::new(self.op()).input(self.k, x).output(Rows::Tokens, rows.len(), self.n);
        case.plan.precision = precision;
        for (codes, scales, _) in &self.factors {
            case = case.int8(codes, self.k, scales);
        }
        for (_, _, bias) in &self.factors {
            case = case.vector(bias);
        }
        case.run(device, &plain_batch(rows.len())).unwrap();
        case.result(0).to_vec()
    }

    /// What a plain linear of quantised rows gives, its sums by i64.
    fn of_integers(&self) -> Vec<f32> {
        let (codes, scales, bias) = &self.factors[0];
        let mut result = Vec::new();
        for x in self.x.chunks(self.k) {
            let most = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let x: Vec<i64> = x.iter().map(|x| (x * (127.0 / most)).round_ties_even() as i64).collect();
            assert!(x.iter().all(|code| code.abs() <= 127) && x.iter().any(|code| code.abs() == 127));
            for (row, codes) in codes.chunks(self.k).enumerate() {
                let sum: i64 = std::iter::zip(&x, codes).map(|(x, code)| x * i64::from(*code)).sum();
                result.push(sum as f32 * (most / 127.0) * scales[row] + bias[row]);
            }
        }
        result
    }

    /// What the weights stand for, by f64.
    fn by_f64(&self) -> Vec<f64> {
        let mut result = Vec::new();
        for x in self.x.chunks(self.k) {
            for row in 0..self.n {
                let products = self.factors.iter().map(|(codes, scales, bias)| {
                    let codes = &codes[row * self.k..(row + 1) * self.k];
                    let sum: f64 = std::iter::zip(x, codes).map(|(x, code)| f64::from(*x) * f64::from(*code)).sum();
                    sum * f64::from(scales[row]) + f64::from(bias[row])
                });
                let products: Vec<f64> = products.collect();
                let first = self.activation.map_or(products[0], |f| activation(f, products[0]));
                result.push(first * products.get(1).unwrap_or(&1.0));
            }
        }
        result
    }
}

const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 1),
    (1, 33, 47),
    (1, 300, 600),
    (2, 290, 65),
    (5, 270, 130),
    (13, 129, 128),
    (40, 161, 131),
    (300, 65, 1027),
    (800, 33, 35),
];

/// A device for every instruction set, and one more where dot products hide how AVX-512 does without.
fn devices(threads: usize) -> Vec<(String, CpuDevice)> {
    let mut devices = Vec::new();
    each_isa(|isa| devices.push((isa.to_string(), device(isa, threads))));
    #[cfg(target_arch = "x86_64")]
    if Isa::Avx512.compiled().is_some() {
        let team = Arc::new(Team::new(threads, &crate::backend::cpu::x86::AVX512).unwrap());
        devices.push(("avx512 without vnni".into(), CpuDevice { isa: Isa::Avx512, team }));
    }
    devices
}

#[test]
fn products_of_bytes_are_those_of_integers_on_every_instruction_set() {
    for (name, device) in devices(2) {
        for (m, n, k) in SHAPES.into_iter().chain((1..=16).map(|m| (m, 33, 50))) {
            let product = Product::new(m, n, k, 1, (m + k) as u64);
            let got = product.run(Precision::Int8W8a8, &device, 0..m);
            assert_same_bits(&got, &product.of_integers(), &format!("{name} {m}x{n}x{k}"));
        }
    }
}

#[test]
fn float_activations_multiply_codes_before_scales() {
    for (name, device) in devices(2) {
        for (m, n, k) in SHAPES.into_iter().chain((1..=14).map(|m| (m, 33, 50))) {
            for factors in [1, 2] {
                let product = Product::new(m, n, k, factors, (m + k) as u64);
                let got = product.run(Precision::Int8, &device, 0..m);
                assert_close(&got, &product.by_f64(), 1e-5, &format!("{name} {m}x{n}x{k}, {factors} weights"));
            }
        }
    }
}

#[test]
fn gates_of_quantised_activations_are_close_to_what_they_stand_for() {
    for (name, device) in devices(2) {
        for (m, n, k) in [(1, 300, 601), (29, 161, 300)] {
            let product = Product::new(m, n, k, 2, 3);
            let got = product.run(Precision::Int8W8a8, &device, 0..m);
            // A code is off by up to half a step, of a 127th of the largest of some hundred normal elements.
            assert_close(&got, &product.by_f64(), 0.05, &format!("{name} {m}x{n}x{k}"));
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_batch_on_any_number_of_threads() {
    let product = Product::new(300, 289, 601, 2, 3);
    for precision in PRECISIONS {
        for (name, one) in devices(1) {
            let whole = product.run(precision, &one, 0..product.m);
            let mut numbers = Numbers::new(5);
            for threads in [1, 2, 3] {
                let device = CpuDevice { isa: one.isa, team: Arc::new(Team::new(threads, one.team.compiled).unwrap()) };
                let what = format!("{name} {precision}, {threads} threads");
                assert_same_bits(&product.run(precision, &device, 0..product.m), &whole, &what);
                for length in (1..=15).chain([24, 27, 100]) {
                    let start = numbers.below(product.m - length);
                    let part = product.run(precision, &device, start..start + length);
                    let want = &whole[start * product.n..(start + length) * product.n];
                    assert_same_bits(&part, want, &format!("{what}, {length} rows"));
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_in_its_row_and_zeros_are_zero() {
    for (name, device) in devices(2) {
        for (precision, culprit) in PRECISIONS.into_iter().flat_map(|p| [(p, f32::NAN), (p, f32::NEG_INFINITY)]) {
            let mut product = Product::new(20, 40, 67, 1, 9);
            product.x[7 * 67 + 66] = culprit;
            product.x[3 * 67..4 * 67].fill(0.0);
            // Too small for a finite factor.
            product.x[4 * 67..5 * 67].fill(1e-42);
            let result = product.run(precision, &device, 0..20);
            for (row, columns) in result.chunks(40).enumerate() {
                let what = format!("{name} {precision} {culprit} row {row}");
                assert!(columns.iter().all(|y| y.is_finite() == (row != 7)), "{what}");
                if (3..5).contains(&row) {
                    assert_close(
                        columns,
                        &product.factors[0].2.iter().map(|b| f64::from(*b)).collect::<Vec<_>>(),
                        1e-30,
                        &what,
                    );
                }
            }
        }
    }
}

/// The largest sums of the most columns fit; one column more is refused.
#[test]
fn columns_whose_sums_could_overflow_are_refused() {
    let extreme = |k: usize, precision| {
        let mut case = Case::new(Op::Linear { bias: false, activation: None });
        case = case.input(k, &vec![1.0; k]).output(Rows::Tokens, 1, 1).int8(&vec![-128; k], k, &[1.0]);
        case.plan.precision = precision;
        case
    };
    for (name, device) in devices(1) {
        let mut most = extreme(MOST_COLUMNS, Precision::Int8W8a8);
        most.run(&device, &plain_batch(1)).unwrap();
        let exact = -128.0 * 127.0 * MOST_COLUMNS as f32 * (1.0 / 127.0);
        assert_same_bits(most.result(0), &[exact], &name);
        let error = extreme(MOST_COLUMNS + 1, Precision::Int8W8a8).run(&device, &plain_batch(1)).unwrap_err();
        assert_eq!(error.status(), Status::Unsupported, "{error}");
        assert!(error.to_string().contains("the step"), "{error}");
        extreme(MOST_COLUMNS + 1, Precision::Int8).run(&device, &plain_batch(1)).unwrap();
    }
}
