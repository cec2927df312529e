//! Decoders of many shapes from basic operations, named so that no pass could guess a role from a name.

use proptest::prelude::*;

use super::evaluate::Tensors;
use crate::network::{CacheGroup, Graph, Recipe, ValueId, WeightId};
use crate::types::{Activation, AttentionSpec, Op, RopeSpec};

const HIDDEN: usize = 8;
const HEAD: usize = 4;
const VOCAB: usize = 9;

/// What a decoder is made of.
#[derive(Debug, Clone)]
pub struct Design {
    pub layers: usize,
    pub rope: bool,
    pub layer_norm: bool,
    pub gated: bool,
    /// Biases of q, k, v, gate, up.
    pub biases: [bool; 5],
    /// Commutative operands the other way round.
    pub swapped: bool,
    /// k of each layer (after rope, where there is one) also joins the residual stream.
    pub k_leaks: bool,
    pub extras: Extras,
}

/// What fewer families have.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extras {
    /// Each head of q and k is normed.
    pub head_norms: bool,
    /// What attention and the feed-forward part give is normed before it is added.
    pub norms_after: bool,
    /// Gains are stored as their distance from 1.
    pub gains_above_one: bool,
    /// Attention scores and logits are capped, and embeddings are scaled.
    pub caps: bool,
    /// q, k and v are rows of one tensor, gate and up of another.
    pub joint: bool,
}

pub fn designs() -> impl Strategy<Value = Design> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.2));
    let extras = any::<[bool; 5]>().prop_map(|[head_norms, norms_after, gains_above_one, caps, joint]| Extras {
        head_norms,
        norms_after,
        gains_above_one,
        caps,
        joint,
    });
    (1..=3usize, flags, any::<[bool; 5]>(), extras).prop_map(|(layers, flags, biases, extras)| {
        let (rope, layer_norm, gated, swapped, k_leaks) = flags;
        Design { layers, rope, layer_norm, gated, biases, swapped, k_leaks, extras }
    })
}

impl Design {
    pub fn build(&self) -> (Graph, Tensors) {
        let mut b = Builder { g: Graph::new("decoder"), tensors: Tensors::new(), design: self };
        b.g.caches.push(CacheGroup { layers: (0..self.layers).collect(), kv_heads: 2, head_dim: HEAD, window: None });
        let (ids, positions) = (b.g.input("ids"), b.g.input("positions"));
        let table = b.weight(&[VOCAB, HIDDEN]);
        let frequencies = b.g.weight("frequencies", &[1], Recipe::Constant(vec![0.7]));
        let angles = b.op(Op::RopeAngles { scale: 1.1 }, &[positions], &[frequencies]);
        let scale = if self.extras.caps { 2.5 } else { 1.0 };
        let mut x = b.op(Op::Embedding { scale }, &[ids], &[table]);
        for layer in 0..self.layers {
            x = b.layer(layer, x, angles);
        }
        let rows = b.op(Op::GatherRows, &[x], &[]);
        let normed = b.norm(rows);
        let mut head = b.op(Op::Linear { bias: false, activation: None }, &[normed], &[table]);
        if self.extras.caps {
            head = b.op(Op::SoftCap { cap: 1.5 }, &[head], &[]);
        }
        b.g.output("logits", head);
        (b.g, b.tensors)
    }
}

struct Builder<'a> {
    g: Graph,
    tensors: Tensors,
    design: &'a Design,
}

impl Builder<'_> {
    fn op(&mut self, op: Op, inputs: &[ValueId], weights: &[WeightId]) -> ValueId {
        let name = format!("n{}", self.g.nodes.len());
        self.g.apply(op, inputs, weights, name).unwrap()
    }

    fn both(&mut self, op: Op, a: ValueId, b: ValueId) -> ValueId {
        let operands = if self.design.swapped { [b, a] } else { [a, b] };
        self.op(op, &operands, &[])
    }

    fn weight(&mut self, shape: &[usize]) -> WeightId {
        let name = format!("w{}", self.tensors.len());
        self.tensors.insert(name.clone(), shape.to_vec());
        self.g.weight(name.clone(), shape, Recipe::Tensor(name))
    }

    fn linear(&mut self, x: ValueId, shape: [usize; 2], bias: bool) -> ValueId {
        let weight = self.weight(&shape);
        self.linear_by(x, weight, bias)
    }

    fn linear_by(&mut self, x: ValueId, weight: WeightId, bias: bool) -> ValueId {
        let mut weights = vec![weight];
        if bias {
            let rows = self.g[weight].shape[0];
            weights.push(self.weight(&[rows]));
        }
        self.op(Op::Linear { bias, activation: None }, &[x], &weights)
    }

    /// Matrices of so many rows that read the residual stream.
    fn matrices<const N: usize>(&mut self, rows: [usize; N]) -> [WeightId; N] {
        if !self.design.extras.joint {
            return rows.map(|rows| self.weight(&[rows, HIDDEN]));
        }
        let name = format!("w{}", self.tensors.len());
        self.tensors.insert(name.clone(), vec![rows.iter().sum(), HIDDEN]);
        let mut start = 0;
        rows.map(|rows| {
            let part = Recipe::tensor(name.clone()).rows(start, rows);
            start += rows;
            self.g.weight(format!("{name}.{start}"), &[rows, HIDDEN], part)
        })
    }

    /// A gain for `columns` columns.
    fn gain(&mut self, columns: usize) -> WeightId {
        if !self.design.extras.gains_above_one {
            return self.weight(&[columns]);
        }
        let name = format!("w{}", self.tensors.len());
        self.tensors.insert(name.clone(), vec![columns]);
        self.g.weight(name.clone(), &[columns], Recipe::tensor(name).plus(1.0))
    }

    fn head_norm(&mut self, x: ValueId) -> ValueId {
        if !self.design.extras.head_norms {
            return x;
        }
        let gain = self.gain(HEAD);
        self.op(Op::RmsNorm { eps: 1e-5 }, &[x], &[gain])
    }

    fn norm_after(&mut self, x: ValueId) -> ValueId {
        if self.design.extras.norms_after { self.norm(x) } else { x }
    }

    fn norm(&mut self, x: ValueId) -> ValueId {
        let gain = self.gain(HIDDEN);
        if !self.design.layer_norm {
            return self.op(Op::RmsNorm { eps: 1e-5 }, &[x], &[gain]);
        }
        let bias = self.weight(&[HIDDEN]);
        self.op(Op::LayerNorm { eps: 1e-5 }, &[x], &[gain, bias])
    }

    fn layer(&mut self, layer: usize, x: ValueId, angles: ValueId) -> ValueId {
        let n = self.norm(x);
        let (attended, k) = self.attention(layer, n, angles);
        let attended = self.norm_after(attended);
        let mut x = self.both(Op::Add, x, attended);
        if self.design.k_leaks {
            x = self.both(Op::Add, x, k);
        }
        let n = self.norm(x);
        let fed = if self.design.gated { self.gated(n) } else { self.plain(n) };
        let fed = self.norm_after(fed);
        self.both(Op::Add, x, fed)
    }

    /// The projected result and k as it goes to the cache.
    fn attention(&mut self, layer: usize, x: ValueId, angles: ValueId) -> (ValueId, ValueId) {
        let soft_cap = self.design.extras.caps.then_some(0.8);
        let spec = AttentionSpec { group: 0, layer, heads: 4, kv_heads: 2, head_dim: HEAD, scale: 0.5, soft_cap };
        let [bq, bk, bv, ..] = self.design.biases;
        let [wq, wk, wv] = self.matrices([4 * HEAD, 2 * HEAD, 2 * HEAD]);
        let v = self.linear_by(x, wv, bv);
        let k = self.linear_by(x, wk, bk);
        let mut k = self.head_norm(k);
        let q = self.linear_by(x, wq, bq);
        let mut q = self.head_norm(q);
        if self.design.rope {
            let rope = Op::Rope(RopeSpec { head_dim: HEAD, rotary_dim: 2 });
            k = self.op(rope.clone(), &[k, angles], &[]);
            q = self.op(rope, &[q, angles], &[]);
        }
        let cache = self.op(Op::CacheAppend(spec), &[k, v], &[]);
        let attended = self.op(Op::Attention(spec), &[q, cache], &[]);
        (self.linear(attended, [HIDDEN, 4 * HEAD], false), k)
    }

    fn gated(&mut self, x: ValueId) -> ValueId {
        let [.., bias_gate, bias_up] = self.design.biases;
        let [gate, up] = self.matrices([12, 12]);
        let up = self.linear_by(x, up, bias_up);
        let gate = self.linear_by(x, gate, bias_gate);
        let gate = self.op(Op::Activate { activation: Activation::Silu }, &[gate], &[]);
        let product = self.both(Op::Mul, gate, up);
        self.linear(product, [HIDDEN, 12], false)
    }

    fn plain(&mut self, x: ValueId) -> ValueId {
        let up = self.linear(x, [12, HIDDEN], self.design.biases[4]);
        let up = self.op(Op::Activate { activation: Activation::GeluTanh }, &[up], &[]);
        self.linear(up, [HIDDEN, 12], true)
    }
}
