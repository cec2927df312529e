use super::*;
use crate::types::{Activation, RopeSpec};

const WIDTHS: [usize; 6] = [1, 15, 16, 33, 128, 2050];

fn f64s(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// Runs a row operation on all rows at once and on each row alone; both must have the same bits.
fn run(isa: Isa, threads: usize, rows: usize, case: impl Fn(std::ops::Range<usize>) -> Case) -> Case {
    let device = device(isa, threads);
    let mut whole = case(0..rows);
    whole.run(&device, &plain_batch(rows)).unwrap();
    for row in 0..rows {
        let mut alone = case(row..row + 1);
        alone.run(&device, &plain_batch(1)).unwrap();
        for output in 0..whole.plan.steps[0].outputs.len() {
            let width = alone.result(output).len();
            let want = &whole.result(output)[row * width..(row + 1) * width];
            assert_same_bits(alone.result(output), want, &format!("{isa}, row {row} alone"));
        }
    }
    whole
}

#[test]
fn norms_agree_with_f64() {
    for width in WIDTHS {
        let (rows, eps) = (9, 1e-5);
        let mut numbers = Numbers::new(width as u64);
        let (x, y) = (numbers.vec(rows * width), numbers.vec(rows * width));
        let (gain, bias) = (numbers.vec(width), numbers.vec(width));
        each_isa(|isa| {
            for (layer, add) in [(false, false), (true, false), (false, true), (true, true)] {
                let op = match (layer, add) {
                    (false, false) => Op::RmsNorm { eps },
                    (true, false) => Op::LayerNorm { eps },
                    (false, true) => Op::AddRmsNorm { eps },
                    (true, true) => Op::AddLayerNorm { eps },
                };
                let name = op.name();
                let case = run(isa, 2, rows, |range| {
                    let part = range.start * width..range.end * width;
                    let mut case = Case::new(op.clone()).input(width, &x[part.clone()]);
                    if add {
                        case = case.input(width, &y[part]).output(Rows::Tokens, range.len(), width);
                    }
                    case = case.output(Rows::Tokens, range.len(), width).vector(&gain);
                    if layer { case.vector(&bias) } else { case }
                });
                let sum: Vec<f32> = std::iter::zip(&x, &y).map(|(x, y)| if add { x + y } else { *x }).collect();
                if add {
                    assert_same_bits(case.result(0), &sum, name);
                }
                let want: Vec<f64> =
                    sum.chunks(width).flat_map(|row| norm(row, &gain, layer.then_some(&bias), eps)).collect();
                // A single column has no variance: its LayerNorm magnifies nothing but rounding.
                assert_close(case.result(usize::from(add)), &want, 1e-5, &format!("{isa} {name} {width}"));
            }
        });
    }
}

fn norm(x: &[f32], gain: &[f32], bias: Option<&Vec<f32>>, eps: f32) -> Vec<f64> {
    let n = x.len() as f64;
    let x = f64s(x);
    let mean = if bias.is_some() { x.iter().sum::<f64>() / n } else { 0.0 };
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance + f64::from(eps)).sqrt();
    (0..x.len())
        .map(|i| (x[i] - mean) * scale * f64::from(gain[i]) + bias.map_or(0.0, |bias| f64::from(bias[i])))
        .collect()
}

#[test]
fn parts_of_a_row_are_normed_by_themselves() {
    for (part, parts) in [(1, 3), (8, 5), (64, 4), (72, 2), (256, 3)] {
        let (rows, eps, width) = (5, 1e-6, part * parts);
        let mut numbers = Numbers::new(width as u64);
        let (x, gain) = (numbers.vec(rows * width), numbers.vec(part));
        each_isa(|isa| {
            let case = run(isa, 2, rows, |range| {
                let case = Case::new(Op::RmsNorm { eps }).input(width, &x[range.start * width..range.end * width]);
                case.output(Rows::Tokens, range.len(), width).vector(&gain)
            });
            let want: Vec<f64> = x.chunks(part).flat_map(|part| norm(part, &gain, None, eps)).collect();
            assert_close(case.result(0), &want, 1e-5, &format!("{isa} {parts} parts of {part}"));
        });
    }
}

#[test]
fn caps_are_accurate_over_their_range() {
    let mut x: Vec<f32> = (-6000..=6000).map(|i| i as f32 / 20.0).collect();
    x.extend((-2000..=2000).map(|i| i as f32 / 1000.0));
    x.extend([0.0, -0.0, 1e-30, -1e-30, 1e30, -1e30, f32::INFINITY, f32::NEG_INFINITY]);
    each_isa(|isa| {
        for cap in [0.5, 1.0, 30.0, 50.0] {
            let case =
                run(isa, 1, 1, |_| Case::new(Op::SoftCap { cap }).input(x.len(), &x).output(Rows::Tokens, 1, x.len()));
            for (x, got) in std::iter::zip(&x, case.result(0)) {
                let want = f64::from(cap) * (f64::from(*x) / f64::from(cap)).tanh();
                let error = (f64::from(*got) - want).abs();
                assert!(error <= 3e-7 * want.abs(), "{isa} {x} capped by {cap} is {got}, not {want}");
            }
        }
        let mut nan = Case::new(Op::SoftCap { cap: 1.0 }).input(1, &[f32::NAN]).output(Rows::Tokens, 1, 1);
        nan.run(&device(isa, 1), &plain_batch(1)).unwrap();
        assert!(nan.result(0)[0].is_nan());
    });
}

#[test]
fn sums_and_products_are_exact() {
    for width in WIDTHS {
        let mut numbers = Numbers::new(width as u64);
        let (x, y) = (numbers.vec(5 * width), numbers.vec(5 * width));
        each_isa(|isa| {
            for (op, f) in [(Op::Add, (|x, y| x + y) as fn(f32, f32) -> f32), (Op::Mul, |x, y| x * y)] {
                let case = run(isa, 2, 5, |rows| {
                    let part = rows.start * width..rows.end * width;
                    let case = Case::new(op.clone()).input(width, &x[part.clone()]).input(width, &y[part]);
                    case.output(Rows::Tokens, rows.len(), width)
                });
                let want: Vec<f32> = std::iter::zip(&x, &y).map(|(x, y)| f(*x, *y)).collect();
                assert_same_bits(case.result(0), &want, &format!("{isa} {op:?}"));
            }
        });
    }
}

#[test]
fn activations_are_accurate_over_their_range() {
    let mut x: Vec<f32> = (-4000..=4000).map(|i| i as f32 / 200.0).collect();
    x.extend([0.0, -0.0, 1e-30, -1e-30, 100.0, -100.0, 1e30, -1e30]);
    each_isa(|isa| {
        for f in [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
            let case = run(isa, 1, 1, |_| {
                Case::new(Op::Activate { activation: f }).input(x.len(), &x).output(Rows::Tokens, 1, x.len())
            });
            for (x, got) in std::iter::zip(&x, case.result(0)) {
                let want = activation(f, f64::from(*x));
                let error = (f64::from(*got) - want).abs();
                // In the tails the rounding of an exponent is magnified by its size.
                let magnified = 1.0 + f64::from(x.abs()).min(20.0);
                assert!(error <= 4e-7 * magnified * want.abs() + 1e-12, "{isa} {f:?}({x}) is {got}, not {want}");
            }
        }
    });
}

#[test]
fn rotation_follows_the_angles_of_the_positions() {
    let (rows, heads) = (5, 3);
    for (head_dim, rotary_dim) in [(16, 16), (64, 64), (40, 24), (8, 6)] {
        let mut numbers = Numbers::new(1);
        let x = numbers.vec(rows * heads * head_dim);
        let frequencies: Vec<f32> = (0..rotary_dim / 2).map(|i| 0.9f32.powi(i as i32)).collect();
        each_isa(|isa| {
            let mut angles = Case::new(Op::RopeAngles { scale: 1.5 }).vector(&frequencies);
            angles = angles.output(Rows::Tokens, rows, rotary_dim);
            let mut batch = plain_batch(rows);
            batch.positions = vec![0, 1, 77, 8191, 131_071];
            angles.run(&device(isa, 2), &batch).unwrap();
            let angle = |row: usize, i: usize| f64::from(batch.positions[row] as f32 * frequencies[i]);
            for row in 0..rows {
                let got = &angles.result(0)[row * rotary_dim..(row + 1) * rotary_dim];
                for i in 0..rotary_dim / 2 {
                    assert_eq!(got[i], angle(row, i).cos() as f32 * 1.5);
                    assert_eq!(got[rotary_dim / 2 + i], angle(row, i).sin() as f32 * 1.5);
                }
            }
            let width = heads * head_dim;
            let case = run(isa, 2, rows, |range| {
                let case = Case::new(Op::Rope(RopeSpec { head_dim, rotary_dim }));
                let case = case.input(width, &x[range.start * width..range.end * width]);
                let case = case.input(rotary_dim, &angles.result(0)[range.start * rotary_dim..range.end * rotary_dim]);
                case.output(Rows::Tokens, range.len(), width)
            });
            let mut want = f64s(&x);
            for (index, head) in want.chunks_mut(head_dim).enumerate() {
                for i in 0..rotary_dim / 2 {
                    let (sin, cos) = angle(index / heads, i).sin_cos();
                    let (a, b) = (head[i] * 1.5, head[i + rotary_dim / 2] * 1.5);
                    (head[i], head[i + rotary_dim / 2]) = (a * cos - b * sin, b * cos + a * sin);
                }
            }
            assert_close(case.result(0), &want, 1e-6, &format!("{isa} {head_dim}/{rotary_dim}"));
        });
    }
}

#[test]
fn lookups_find_their_rows_in_every_packing() {
    for (rows, width) in [(70, 33), (5, 64)] {
        let table: Vec<f32> = Numbers::new(4).vec(rows * width).into_iter().map(|x| round(x, DType::BF16)).collect();
        let ids: Vec<u32> = vec![0, rows as u32 - 1, 3, 3, 1];
        for dtype in [DType::F32, DType::BF16] {
            for packing in [Packing::RowMajor, Packing::Panels] {
                for op in [Op::Embedding { scale: 1.0 }, Op::PositionEmbedding] {
                    let mut batch = plain_batch(ids.len());
                    *(if op == (Op::Embedding { scale: 1.0 }) { &mut batch.tokens } else { &mut batch.positions }) =
                        ids.clone();
                    let mut case = Case::new(op).matrix(&table, width, dtype, packing);
                    case = case.output(Rows::Tokens, ids.len(), width);
                    case.run(&device(Isa::Portable, 2), &batch).unwrap();
                    for (got, id) in std::iter::zip(case.result(0).chunks(width), &ids) {
                        let at = *id as usize * width;
                        assert_same_bits(got, &table[at..at + width], &format!("{dtype} {packing:?} {id}"));
                    }
                }
            }
        }
    }
}

#[test]
fn rows_of_a_table_are_scaled() {
    let table: Vec<f32> = Numbers::new(6).vec(3 * 20).into_iter().map(|x| round(x, DType::BF16)).collect();
    for packing in [Packing::RowMajor, Packing::Panels] {
        let case = Case::new(Op::Embedding { scale: 8.0625 }).matrix(&table, 20, DType::BF16, packing);
        let mut case = case.output(Rows::Tokens, 1, 20);
        let mut batch = plain_batch(1);
        batch.tokens = vec![2];
        case.run(&device(Isa::Portable, 1), &batch).unwrap();
        let want: Vec<f32> = table[40..].iter().map(|x| x * 8.0625).collect();
        assert_same_bits(case.result(0), &want, &format!("{packing:?}"));
    }
}

#[test]
fn wanted_rows_are_gathered() {
    let x = Numbers::new(2).vec(6 * 20);
    let mut batch = plain_batch(6);
    batch.logit_rows = vec![1, 5];
    let mut case = Case::new(Op::GatherRows).input(20, &x).output(Rows::LogitRows, 2, 20);
    case.run(&device(Isa::Portable, 1), &batch).unwrap();
    assert_same_bits(case.result(0), &[&x[20..40], &x[100..120]].concat(), "gather");
}
