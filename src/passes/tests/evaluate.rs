//! A reference interpreter in f64 for one sequence: what a graph computes, by the definitions in `types/op.rs`.

use std::collections::HashMap;

use crate::network::{Dim, Graph, Recipe, TOKENS, ValueId, Weight};
use crate::types::{Activation, AttentionSpec, Op, RopeSpec};

/// Row-major, `data.len() / columns` rows.
#[derive(Clone, Debug)]
pub struct Matrix {
    pub columns: usize,
    pub data: Vec<f64>,
}

/// Shapes of the checkpoint tensors; contents follow from the names.
pub type Tensors = HashMap<String, Vec<usize>>;

const IDS: [usize; 5] = [3, 1, 4, 1, 5];
const LOGIT_ROWS: [usize; 2] = [2, 4];

impl Matrix {
    fn row(&self, row: usize) -> &[f64] {
        &self.data[row * self.columns..(row + 1) * self.columns]
    }

    fn rows(&self) -> usize {
        self.data.len().checked_div(self.columns).unwrap_or(IDS.len())
    }

    fn by_row(&self, columns: usize, f: impl Fn(usize, &[f64]) -> Vec<f64>) -> Matrix {
        Matrix { columns, data: (0..self.rows()).flat_map(|r| f(r, self.row(r))).collect() }
    }

    fn zip(&self, other: &Matrix, f: impl Fn(f64, f64) -> f64) -> Matrix {
        assert_eq!(self.data.len(), other.data.len());
        Matrix { columns: self.columns, data: self.data.iter().zip(&other.data).map(|(a, b)| f(*a, *b)).collect() }
    }
}

/// The graph's first output.
pub fn evaluate(graph: &Graph, tensors: &Tensors) -> Matrix {
    let mut values: HashMap<ValueId, Matrix> = HashMap::new();
    let mut caches = HashMap::new();
    for id in graph.live_order().unwrap() {
        let node = &graph[id];
        let x = node.inputs.iter().filter_map(|id| values.get(id).cloned()).collect::<Vec<_>>();
        let w = node.weights.iter().map(|id| weight(&graph[*id], tensors)).collect::<Vec<_>>();
        let results = apply(&node.op, &x, &w, &mut caches);
        assert_eq!(results.len(), node.outputs.len());
        for (output, result) in node.outputs.iter().zip(results) {
            let tokens = graph[*output].shape[0] == Dim::Named(TOKENS.into());
            assert_eq!(result.rows(), if tokens { IDS.len() } else { LOGIT_ROWS.len() }, "{}", node.name);
            values.insert(*output, result);
        }
    }
    values[&graph.outputs[0].1].clone()
}

type Caches = HashMap<(usize, usize), (Matrix, Matrix)>;

fn apply(op: &Op, x: &[Matrix], w: &[Matrix], caches: &mut Caches) -> Vec<Matrix> {
    let one = match op {
        Op::Embedding { scale } => each(&pick(&w[0], &IDS), |x| x * f64::from(*scale)),
        Op::PositionEmbedding => pick(&w[0], &[0, 1, 2, 3, 4]),
        Op::RopeAngles { scale } => angles(&w[0], f64::from(*scale)),
        Op::Linear { bias, activation } => {
            let y = linear(&x[0], &w[0], bias.then(|| &w[1]));
            activation.map_or(y.clone(), |f| activate(&y, f))
        }
        Op::GatedLinear { bias, activation } => {
            let gate = linear(&x[0], &w[0], bias.then(|| &w[2]));
            let up = linear(&x[0], &w[1], bias.then(|| &w[3]));
            activate(&gate, *activation).zip(&up, |a, b| a * b)
        }
        Op::RmsNorm { .. } | Op::LayerNorm { .. } => norm(op, &x[0], w),
        Op::AddRmsNorm { eps } | Op::AddLayerNorm { eps } => {
            let sum = x[0].zip(&x[1], |a, b| a + b);
            let plain = if w.len() == 1 { Op::RmsNorm { eps: *eps } } else { Op::LayerNorm { eps: *eps } };
            let normed = norm(&plain, &sum, w);
            return vec![sum, normed];
        }
        Op::Add => x[0].zip(&x[1], |a, b| a + b),
        Op::Mul => x[0].zip(&x[1], |a, b| a * b),
        Op::Activate { activation } => activate(&x[0], *activation),
        Op::SoftCap { cap } => each(&x[0], |x| capped(x, *cap)),
        Op::Rope(spec) => rope(&x[0], &x[1], spec),
        Op::Slice { start, columns } => x[0].by_row(*columns, |_, row| row[*start..start + columns].to_vec()),
        Op::CacheAppend(spec) => {
            caches.insert((spec.group, spec.layer), (x[0].clone(), x[1].clone()));
            Matrix { columns: 0, data: Vec::new() }
        }
        Op::Attention(spec) => {
            let (k, v) = &caches[&(spec.group, spec.layer)];
            attend(spec, &x[0], k, v)
        }
        Op::FusedAttention { attention, rope: None } => attend(attention, &x[0], &x[1], &x[2]),
        Op::FusedAttention { attention, rope: Some(spec) } => {
            attend(attention, &rope(&x[0], &x[3], spec), &rope(&x[1], &x[3], spec), &x[2])
        }
        Op::GatherRows => pick(&x[0], &LOGIT_ROWS),
    };
    vec![one]
}

fn pick(table: &Matrix, rows: &[usize]) -> Matrix {
    Matrix { columns: table.columns, data: rows.iter().flat_map(|r| table.row(*r).to_vec()).collect() }
}

fn angles(frequencies: &Matrix, scale: f64) -> Matrix {
    let f = &frequencies.data;
    let row = |p: usize| {
        let turned = move |turn: fn(f64) -> f64| f.iter().map(move |f| scale * turn(p as f64 * f));
        turned(f64::cos).chain(turned(f64::sin)).collect::<Vec<_>>()
    };
    Matrix { columns: 2 * f.len(), data: (0..IDS.len()).flat_map(row).collect() }
}

fn linear(x: &Matrix, w: &Matrix, bias: Option<&Matrix>) -> Matrix {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    x.by_row(w.rows(), |_, row| {
        (0..w.rows()).map(|n| dot(row, w.row(n)) + bias.map_or(0.0, |bias| bias.data[n])).collect()
    })
}

/// Stand-ins suffice, as long as they are nonlinear and differ.
fn activate(x: &Matrix, activation: Activation) -> Matrix {
    let f = |x: f64| match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => x * (1.0 + x.tanh()) / 2.0,
        Activation::GeluTanh => x * (1.0 + (0.8 * x).tanh()) / 2.0,
        Activation::Relu => x.max(0.0),
    };
    each(x, f)
}

fn each(x: &Matrix, f: impl Fn(f64) -> f64) -> Matrix {
    Matrix { columns: x.columns, data: x.data.iter().map(|x| f(*x)).collect() }
}

fn capped(x: f64, cap: f32) -> f64 {
    f64::from(cap) * (x / f64::from(cap)).tanh()
}

fn norm(op: &Op, x: &Matrix, w: &[Matrix]) -> Matrix {
    let part = |row: &[f64]| {
        let n = row.len() as f64;
        let (mean, eps, bias) = match op {
            Op::LayerNorm { eps } => (row.iter().sum::<f64>() / n, *eps, Some(&w[1].data)),
            Op::RmsNorm { eps } => (0.0, *eps, None),
            other => panic!("{other:?}"),
        };
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let scaled = row.iter().zip(&w[0].data).map(|(x, g)| (x - mean) / (variance + f64::from(eps)).sqrt() * g);
        scaled.enumerate().map(|(i, y)| y + bias.map_or(0.0, |bias| bias[i])).collect::<Vec<_>>()
    };
    x.by_row(x.columns, |_, row| row.chunks(w[0].data.len()).flat_map(part).collect())
}

fn rope(x: &Matrix, angles: &Matrix, spec: &RopeSpec) -> Matrix {
    let half = spec.rotary_dim / 2;
    x.by_row(x.columns, |r, row| {
        let (cos, sin) = angles.row(r).split_at(half);
        let mut out = row.to_vec();
        for head in out.chunks_mut(spec.head_dim) {
            for i in 0..half {
                let (a, b) = (head[i], head[i + half]);
                (head[i], head[i + half]) = (a * cos[i] - b * sin[i], b * cos[i] + a * sin[i]);
            }
        }
        out
    })
}

fn attend(spec: &AttentionSpec, q: &Matrix, k: &Matrix, v: &Matrix) -> Matrix {
    let d = spec.head_dim;
    q.by_row(q.columns, |r, row| {
        let head = |h: usize| {
            let of = h / (spec.heads / spec.kv_heads) * d;
            let dot = |t: usize| (0..d).map(|i| row[h * d + i] * k.row(t)[of + i]).sum::<f64>();
            let score = |t: usize| f64::from(spec.scale) * dot(t);
            let score = |t: usize| spec.soft_cap.map_or(score(t), |cap| capped(score(t), cap));
            let weights = (0..=r).map(|t| score(t).exp()).collect::<Vec<_>>();
            let total = weights.iter().sum::<f64>();
            (0..d).map(move |i| weights.iter().enumerate().map(|(t, w)| w * v.row(t)[of + i]).sum::<f64>() / total)
        };
        (0..spec.heads).flat_map(head).collect()
    })
}

fn weight(weight: &Weight, tensors: &Tensors) -> Matrix {
    let made = made(&weight.recipe, tensors);
    assert_eq!(made.data.len(), weight.shape.iter().product::<usize>(), "{}", weight.name);
    Matrix { columns: weight.shape.get(1).copied().unwrap_or(1), data: made.data }
}

fn made(recipe: &Recipe, tensors: &Tensors) -> Matrix {
    match recipe {
        Recipe::Tensor(name) => tensor(name, &tensors[name]),
        Recipe::Transpose(of) => {
            let m = made(of, tensors);
            let column = |c: usize| (0..m.rows()).map(|r| m.row(r)[c]).collect::<Vec<_>>();
            Matrix { columns: m.rows(), data: (0..m.columns).flat_map(column).collect() }
        }
        Recipe::Concat(parts) => {
            let parts = parts.iter().map(|part| made(part, tensors)).collect::<Vec<_>>();
            Matrix { columns: parts[0].columns, data: parts.into_iter().flat_map(|part| part.data).collect() }
        }
        Recipe::Rows { of, start, rows } => {
            let m = made(of, tensors);
            Matrix { columns: m.columns, data: m.data[start * m.columns..(start + rows) * m.columns].to_vec() }
        }
        Recipe::Plus { of, addend } => each(&made(of, tensors), |x| x + f64::from(*addend)),
        Recipe::Constant(values) => Matrix { columns: 1, data: values.iter().map(|x| f64::from(*x)).collect() },
    }
}

/// Numbers in -1..1 that depend on the name and on the place.
fn tensor(name: &str, shape: &[usize]) -> Matrix {
    let seed = name.bytes().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
    let number = |i: usize| ((seed as f64 * 0.000_1 + i as f64 * 1.37).sin() * 1e4).fract();
    let count = shape.iter().product();
    Matrix { columns: shape.get(1).copied().unwrap_or(1), data: (0..count).map(number).collect() }
}
