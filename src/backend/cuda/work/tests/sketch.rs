//! Small plans, step by step.

use crate::engine::{
    Granularity, ModelInfo, Output, Packing, Plan, Precision, Rows, ScaleSpec, Step, Target, Value, View, WeightSpec,
    value_dtype,
};
use crate::types::{Activation, DType, Op};

/// How a matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bf16,
    /// e4m3 with these scales.
    Scaled(Granularity),
}

pub(super) const PLAIN: Kind = Kind::Bf16;
pub(super) const BY_ROW: Kind = Kind::Scaled(Granularity::Row);
pub(super) const BY_BLOCK: Kind = Kind::Scaled(Granularity::Block);

/// Columns `start..start + columns` of a view.
pub(super) fn part(of: View, start: usize, columns: usize) -> View {
    View { value: of.value, start: of.start + start, columns }
}

/// A plan under construction; every method that adds a step returns what it makes.
pub(super) struct Sketch {
    pub(super) plan: Plan,
}

impl Sketch {
    pub(super) fn new() -> Self {
        let model = ModelInfo {
            architecture: "test".into(),
            vocab_size: 64,
            hidden_size: 256,
            layers: 1,
            max_positions: 64,
            eos_token_ids: vec![],
            bos_token_id: None,
        };
        Self {
            plan: Plan {
                target: Target::Cuda,
                precision: Precision::Fp8,
                invariant: false,
                model,
                values: vec![],
                slots: vec![],
                weights: vec![],
                kv_groups: vec![],
                steps: vec![],
                outputs: vec![],
            },
        }
    }

    pub(super) fn step(&mut self, op: Op, inputs: &[View], weights: &[usize], columns: &[usize]) -> Vec<View> {
        let first = inputs.first().map(|view| &self.plan.values[view.value]);
        let rows = match op {
            Op::GatherRows => Rows::LogitRows,
            _ => first.map_or(Rows::Tokens, |value| value.rows),
        };
        let input = first.map(|value| value.dtype);
        let outputs = std::iter::zip(0.., columns).map(|(index, columns)| {
            let dtype = value_dtype(Target::Cuda, Precision::Fp8, &op, index, input);
            let value = self.plan.values.len();
            self.plan.values.push(Value { name: format!("v{value}"), rows, columns: *columns, slot: 0, dtype });
            View { value, start: 0, columns: *columns }
        });
        let outputs: Vec<View> = outputs.collect();
        self.plan.steps.push(Step {
            name: op.name().into(),
            op,
            inputs: inputs.to_vec(),
            weights: weights.to_vec(),
            outputs: outputs.clone(),
            fused: vec![],
        });
        outputs
    }

    fn weight(&mut self, shape: &[usize], dtype: DType, scale: Option<ScaleSpec>) -> usize {
        self.plan.weights.push(WeightSpec {
            name: format!("w{}", self.plan.weights.len()),
            dtype,
            shape: shape.to_vec(),
            packing: Packing::RowMajor,
            scale,
            offset: 0,
            bytes: 0,
            checksum: String::new(),
        });
        self.plan.weights.len() - 1
    }

    fn vector(&mut self, length: usize) -> usize {
        self.weight(&[length], DType::F32, None)
    }

    fn matrix(&mut self, n: usize, k: usize, kind: Kind) -> usize {
        match kind {
            Kind::Bf16 => self.weight(&[n, k], DType::BF16, None),
            Kind::Scaled(granularity) => {
                let weight = self.plan.weights.len() + 1;
                let index = self.weight(&[n, k], DType::E4M3, Some(ScaleSpec { weight, granularity }));
                self.weight(&granularity.scale_shape(n, k), DType::F32, None);
                index
            }
        }
    }

    pub(super) fn embedding(&mut self, columns: usize) -> View {
        let table = self.weight(&[64, columns], DType::BF16, None);
        self.step(Op::Embedding { scale: 1.0 }, &[], &[table], &[columns])[0]
    }

    pub(super) fn rms_norm(&mut self, x: View) -> View {
        let gain = self.vector(x.columns);
        self.step(Op::RmsNorm { eps: 1e-5 }, &[x], &[gain], &[x.columns])[0]
    }

    /// Each `columns` of a row by themselves.
    pub(super) fn head_norm(&mut self, x: View, columns: usize) -> View {
        let gain = self.vector(columns);
        self.step(Op::RmsNorm { eps: 1e-5 }, &[x], &[gain], &[x.columns])[0]
    }

    pub(super) fn layer_norm(&mut self, x: View) -> View {
        let weights = [self.vector(x.columns), self.vector(x.columns)];
        self.step(Op::LayerNorm { eps: 1e-5 }, &[x], &weights, &[x.columns])[0]
    }

    /// The sum and its norm.
    pub(super) fn add_rms_norm(&mut self, x: View, y: View) -> (View, View) {
        let gain = self.vector(x.columns);
        let made = self.step(Op::AddRmsNorm { eps: 1e-5 }, &[x, y], &[gain], &[x.columns, x.columns]);
        (made[0], made[1])
    }

    pub(super) fn add(&mut self, x: View, y: View) -> View {
        self.step(Op::Add, &[x, y], &[], &[x.columns])[0]
    }

    pub(super) fn mul(&mut self, x: View, y: View) -> View {
        self.step(Op::Mul, &[x, y], &[], &[x.columns])[0]
    }

    pub(super) fn gather(&mut self, x: View) -> View {
        self.step(Op::GatherRows, &[x], &[], &[x.columns])[0]
    }

    pub(super) fn linear(&mut self, x: View, n: usize, kind: Kind) -> View {
        let weight = self.matrix(n, x.columns, kind);
        self.step(Op::Linear { bias: false, activation: None }, &[x], &[weight], &[n])[0]
    }

    pub(super) fn gated(&mut self, x: View, n: usize, kind: Kind) -> View {
        let weights = [self.matrix(n, x.columns, kind), self.matrix(n, x.columns, kind)];
        let weights = [weights[0], weights[1], self.vector(n), self.vector(n)];
        self.step(Op::GatedLinear { bias: true, activation: Activation::Silu }, &[x], &weights, &[n])[0]
    }

    pub(super) fn output(&mut self, name: &str, view: View) {
        self.plan.outputs.push(Output { name: name.into(), value: view.value });
    }

    /// The plan, whose logits are bf16 products of `x`.
    pub(super) fn finish(mut self, x: View) -> Plan {
        let logits = self.linear(x, 64, PLAIN);
        self.plan.values[logits.value].dtype = DType::F32;
        self.output("logits", logits);
        self.plan
    }
}
