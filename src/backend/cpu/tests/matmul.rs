use super::*;
use crate::types::Activation;

struct Shape {
    m: usize,
    n: usize,
    k: usize,
    dtype: DType,
    bias: bool,
    activation: Option<Activation>,
    gated: bool,
}

impl Shape {
    fn plain(m: usize, n: usize, k: usize, dtype: DType) -> Self {
        Shape { m, n, k, dtype, bias: false, activation: None, gated: false }
    }

    fn op(&self) -> Op {
        match self.gated {
            true => Op::GatedLinear { bias: self.bias, activation: self.activation.unwrap() },
            false => Op::Linear { bias: self.bias, activation: self.activation },
        }
    }
}

/// Operands of a shape: activations, then weight and bias of each factor.
struct Operands {
    x: Vec<f32>,
    factors: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Operands {
    fn new(shape: &Shape, seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let x = numbers.vec(shape.m * shape.k);
        let mut factor = || {
            let scale = 1.0 / (shape.k as f32).sqrt();
            let weight = numbers.vec(shape.n * shape.k).into_iter().map(|w| w * scale);
            let weight = weight.map(|w| round(w, shape.dtype)).collect();
            (weight, numbers.vec(shape.n))
        };
        let factors = (0..if shape.gated { 2 } else { 1 }).map(|_| factor()).collect();
        Operands { x, factors }
    }

    fn case(&self, shape: &Shape, rows: std::ops::Range<usize>) -> Case {
        let x = &self.x[rows.start * shape.k..rows.end * shape.k];
        let mut case = Case::new(shape.op()).input(shape.k, x).output(Rows::Tokens, rows.len(), shape.n);
        for (weight, _) in &self.factors {
            case = case.matrix(weight, shape.k, shape.dtype, Packing::Panels);
        }
        for (_, bias) in self.factors.iter().filter(|_| shape.bias) {
            case = case.vector(bias);
        }
        case
    }

    fn run(&self, shape: &Shape, device: &CpuDevice, rows: std::ops::Range<usize>) -> Vec<f32> {
        let mut case = self.case(shape, rows.clone());
        case.run(device, &plain_batch(rows.len())).unwrap();
        case.result(0).to_vec()
    }

    fn expected(&self, shape: &Shape, isa: Isa) -> Vec<f64> {
        let rounded = isa == Isa::Avx512Bf16 && shape.dtype == DType::BF16;
        let mut result = Vec::new();
        for x in self.x.chunks(shape.k) {
            for n in 0..shape.n {
                let products: Vec<f64> = self
                    .factors
                    .iter()
                    .map(|(weight, bias)| {
                        let row = &weight[n * shape.k..(n + 1) * shape.k];
                        let x = x.iter().map(|x| if rounded { round(*x, DType::BF16) } else { *x });
                        let sum: f64 = std::iter::zip(x, row).map(|(x, w)| f64::from(x) * f64::from(*w)).sum();
                        sum + if shape.bias { f64::from(bias[n]) } else { 0.0 }
                    })
                    .collect();
                let first = shape.activation.map_or(products[0], |f| activation(f, products[0]));
                result.push(first * products.get(1).unwrap_or(&1.0));
            }
        }
        result
    }

    fn check(&self, shape: &Shape, isa: Isa, device: &CpuDevice) {
        let what = format!("{isa} {}x{}x{} {} {:?}", shape.m, shape.n, shape.k, shape.dtype, shape.op());
        assert_close(&self.run(shape, device, 0..shape.m), &self.expected(shape, isa), 1e-5, &what);
    }
}

#[test]
fn every_height_and_odd_tail_agrees_with_f64() {
    each_isa(|isa| {
        let device = device(isa, 2);
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            for m in 1..=40 {
                let shape = Shape::plain(m, 33, 47, dtype);
                Operands::new(&shape, m as u64).check(&shape, isa, &device);
            }
            for (m, n, k) in
                [(1, 1, 1), (1, 300, 64), (2, 290, 65), (5, 270, 130), (3, 31, 2), (300, 100, 600), (800, 33, 35)]
            {
                let shape = Shape::plain(m, n, k, dtype);
                Operands::new(&shape, 7).check(&shape, isa, &device);
            }
        }
    });
}

#[test]
fn biases_activations_and_gates_agree_with_f64() {
    each_isa(|isa| {
        let device = device(isa, 2);
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            for f in [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
                for (m, n, k) in [(1, 300, 33), (4, 33, 64), (29, 161, 300)] {
                    for (bias, gated) in [(false, false), (true, false), (false, true), (true, true)] {
                        let shape = Shape { m, n, k, dtype, bias, activation: Some(f), gated };
                        Operands::new(&shape, 11).check(&shape, isa, &device);
                    }
                }
            }
        }
    });
}

#[test]
fn a_row_has_the_same_bits_in_any_batch_on_any_number_of_threads() {
    each_isa(|isa| {
        let devices = [1, 2, 3].map(|threads| device(isa, threads));
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let shape =
                Shape { m: 300, n: 289, k: 601, dtype, bias: true, activation: Some(Activation::Silu), gated: true };
            let operands = Operands::new(&shape, 3);
            let whole = operands.run(&shape, &devices[0], 0..shape.m);
            let mut numbers = Numbers::new(5);
            for (index, device) in devices.iter().enumerate() {
                let what = format!("{isa} {dtype}, {} threads", index + 1);
                assert_same_bits(&operands.run(&shape, device, 0..shape.m), &whole, &what);
                for length in (1..=15).chain([24, 27, 100]) {
                    let start = numbers.below(shape.m - length);
                    let part = operands.run(&shape, device, start..start + length);
                    let want = &whole[start * shape.n..(start + length) * shape.n];
                    assert_same_bits(&part, want, &format!("{what}, {length} rows"));
                }
            }
        }
    });
}

#[test]
fn nan_stays_in_its_row() {
    each_isa(|isa| {
        let device = device(isa, 2);
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let shape = Shape { activation: Some(Activation::Silu), ..Shape::plain(20, 40, 64, dtype) };
            let mut operands = Operands::new(&shape, 9);
            operands.x[7 * 64 + 5] = f32::NAN;
            let result = operands.run(&shape, &device, 0..20);
            for (row, columns) in result.chunks(40).enumerate() {
                assert!(columns.iter().all(|y| y.is_nan() == (row == 7)), "{isa} {dtype} row {row}");
            }
        }
    });
}

/// A matrix of codes and scales, and the f32 matrix that it stands for.
fn quantized(n: usize, k: usize, granularity: Granularity, seed: u64) -> (Vec<u8>, Vec<f32>, Vec<f32>) {
    let mut numbers = Numbers::new(seed);
    // Every code but the two NaN.
    let codes: Vec<u8> = (0..n * k).map(|_| [0, 0x80][numbers.below(2)] | numbers.below(0x7f) as u8).collect();
    let count = granularity.scale_shape(n, k).iter().product();
    let scales: Vec<f32> = (0..count).map(|_| (1 + numbers.below(1000)) as f32 / 3e5).collect();
    let scale = |index: usize| match granularity {
        Granularity::Row => scales[index / k],
        Granularity::Block => scales[index / k / 128 * k.div_ceil(128) + index % k / 128],
    };
    let values = codes.iter().enumerate().map(|(index, code)| e4m3::decode(*code) * scale(index)).collect();
    (codes, scales, values)
}

#[test]
fn quantized_weights_multiply_exactly_as_the_matrix_they_stand_for() {
    let shapes = [(1, 33, 47), (1, 300, 600), (3, 129, 128), (17, 40, 257), (40, 161, 130), (300, 65, 513)];
    each_isa(|isa| {
        let device = device(isa, 2);
        for (index, (m, n, k)) in shapes.into_iter().enumerate() {
            for granularity in [Granularity::Row, Granularity::Block] {
                for gated in [false, true] {
                    let shape = Shape {
                        gated,
                        activation: gated.then_some(Activation::Silu),
                        ..Shape::plain(m, n, k, DType::F32)
                    };
                    let x = Numbers::new(3).vec(m * k);
                    let empty = || Case::new(shape.op()).input(k, &x).output(Rows::Tokens, m, n);
                    let factors = if gated { 1..3 } else { 1..2 };
                    let (mut codes, mut values) = (empty(), empty());
                    for factor in factors {
                        let (c, s, v) = quantized(n, k, granularity, 10 * factor + index as u64);
                        codes = codes.quantized(&c, k, granularity, &s);
                        values = values.matrix(&v, k, DType::F32, Packing::Panels);
                    }
                    codes.run(&device, &plain_batch(m)).unwrap();
                    values.run(&device, &plain_batch(m)).unwrap();
                    let what = format!("{isa} {m}x{n}x{k} {granularity:?} gated {gated}");
                    assert_same_bits(codes.result(0), values.result(0), &what);
                }
            }
        }
    });
}

#[test]
fn half_precision_weights_multiply_exactly_as_their_values() {
    each_isa(|isa| {
        let device = device(isa, 2);
        for (m, n, k) in [(1, 300, 65), (5, 33, 600), (100, 70, 35)] {
            let halves = Shape::plain(m, n, k, DType::F16);
            let operands = Operands::new(&halves, 5);
            let wide = operands.run(&Shape::plain(m, n, k, DType::F32), &device, 0..m);
            assert_same_bits(&operands.run(&halves, &device, 0..m), &wide, &format!("{isa} {m}x{n}x{k}"));
        }
    });
}
