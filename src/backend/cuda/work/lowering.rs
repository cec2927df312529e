//! How a plan's steps become works.

use super::fusion::Fusions;
use super::{Attention, Buffer, Elementwise, Linear, Norm, Operand, Quantised, Work};
use crate::engine::{Granularity, Plan, Rows, SCALE_BLOCK, Value, View};
use crate::types::{Activation, DType, Op};

/// How works are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend::cuda) struct Choice {
    /// Norms run inside the linear layers that read them.
    pub(in crate::backend::cuda) norm_prologue: bool,
    /// Operands of e4m3 weights are quantised too.
    pub(in crate::backend::cuda) quantise: bool,
}

/// A plan's works with the matrices that they need.
#[derive(Debug)]
pub(in crate::backend::cuda) struct Works {
    pub(in crate::backend::cuda) works: Vec<Work>,
    pub(in crate::backend::cuda) buffers: Vec<Buffer>,
    pub(in crate::backend::cuda) logits: Operand,
}

impl Works {
    /// Works of a validated plan, whose values are the first buffers.
    pub(in crate::backend::cuda) fn new(plan: &Plan, choice: Choice) -> Self {
        let mut lowering = Lowering::new(plan, choice);
        (0..plan.steps.len()).for_each(|step| lowering.step(step));
        let logits = plan.outputs.iter().find(|output| output.name == "logits").map_or(0, |output| output.value);
        let logits = lowering.operand(View { value: logits, start: 0, columns: plan.values[logits].columns });
        Self { works: lowering.works, buffers: lowering.buffers, logits }
    }
}

struct Lowering<'p> {
    plan: &'p Plan,
    fusions: Fusions<'p>,
    works: Vec<Work>,
    buffers: Vec<Buffer>,
    /// What was quantised, with its form.
    quantised: Vec<(Operand, Quantised)>,
    /// What was f32, with its 16-bit form.
    narrowed: Vec<(Operand, Operand)>,
}

impl<'p> Lowering<'p> {
    fn new(plan: &'p Plan, choice: Choice) -> Self {
        let buffer = |value: &Value| Buffer { rows: value.rows, columns: value.columns, dtype: value.dtype };
        Self {
            plan,
            fusions: Fusions::new(plan, choice),
            works: Vec::new(),
            buffers: plan.values.iter().map(buffer).collect(),
            quantised: Vec::new(),
            narrowed: Vec::new(),
        }
    }

    fn operand(&self, view: View) -> Operand {
        Operand::of(self.plan, view)
    }

    fn temporary(&mut self, rows: Rows, columns: usize, dtype: DType) -> Operand {
        self.buffers.push(Buffer { rows, columns, dtype });
        Operand { buffer: self.buffers.len() - 1, rows, stride: columns, start: 0, columns, dtype }
    }

    fn step(&mut self, index: usize) {
        let step = &self.plan.steps[index];
        let input = |position: usize| self.operand(step.inputs[position]);
        let output = |position: usize| self.operand(step.outputs[position]);
        let work = match &step.op {
            Op::Embedding { scale } => {
                Work::Embedding { table: step.weights[0], by_position: false, scale: *scale, out: output(0) }
            }
            Op::PositionEmbedding => {
                Work::Embedding { table: step.weights[0], by_position: true, scale: 1.0, out: output(0) }
            }
            Op::RopeAngles { scale } => Work::Angles { frequencies: step.weights[0], scale: *scale, out: output(0) },
            Op::Linear { activation, .. } => return self.linear(index, 1, *activation),
            Op::GatedLinear { activation, .. } => return self.linear(index, 2, Some(*activation)),
            Op::RmsNorm { eps } => return self.norm(index, *eps, false),
            Op::LayerNorm { eps } => return self.norm(index, *eps, true),
            Op::AddRmsNorm { eps } => return self.add_norm(index, *eps, false),
            Op::AddLayerNorm { eps } => return self.add_norm(index, *eps, true),
            Op::Add if self.fusions.summed[index] => return,
            Op::Add => elementwise(Elementwise::Add, input(0), Some(input(1)), output(0)),
            Op::Mul => elementwise(Elementwise::Mul, input(0), Some(input(1)), output(0)),
            Op::Activate { activation } => elementwise(Elementwise::Activate(*activation), input(0), None, output(0)),
            Op::Rope(spec) => {
                let (angles, out) = (input(1), output(0));
                Work::Rope { spec: *spec, x: self.narrow(input(0)), angles, out }
            }
            Op::Slice { .. } => return,
            Op::SoftCap { cap } => elementwise(Elementwise::SoftCap(*cap), input(0), None, output(0)),
            Op::CacheAppend(spec) => {
                let (k, v) = (input(0), input(1));
                Work::Append { spec: *spec, k: self.narrow(k), v: self.narrow(v) }
            }
            Op::Attention(spec) => {
                let (q, out) = (input(0), output(0));
                Work::Attention(Attention { spec: *spec, rope: None, q: self.narrow(q), kv: None, angles: None, out })
            }
            Op::FusedAttention { attention, rope } => {
                let ([q, k, v], angles, out) = ([0, 1, 2].map(input), rope.map(|_| input(3)), output(0));
                let [q, k, v] = [q, k, v].map(|operand| self.narrow(operand));
                Work::Attention(Attention { spec: *attention, rope: *rope, q, kv: Some((k, v)), angles, out })
            }
            Op::GatherRows => Work::Gather { x: input(0), out: output(0) },
        };
        self.works.push(work);
    }

    fn linear(&mut self, index: usize, matrices: usize, activation: Option<Activation>) {
        let step = &self.plan.steps[index];
        let (weights, biases) = step.weights.split_at(matrices);
        let (x, norm) = match self.fusions.prologues.get(&step.inputs[0].value) {
            Some((of, prologue)) => (self.operand(*of), Some(*prologue)),
            None => (self.narrow(self.operand(step.inputs[0])), None),
        };
        let (x, x_scale) = match self.fusions.quantised[index] {
            Some(granularity) => {
                let form = self.quantise(x, granularity);
                (form.codes, Some(form.scale))
            }
            None => (x, None),
        };
        let sum = self.fusions.sums.get(&index);
        self.works.push(Work::Linear(Linear {
            x,
            x_scale,
            weights: weights.to_vec(),
            biases: biases.to_vec(),
            activation,
            norm,
            residual: sum.map(|sum| self.operand(sum.with)),
            out: self.operand(sum.map_or(step.outputs[0], |sum| sum.into)),
        }));
    }

    /// The 16-bit form of an operand, which is made once: kernels that multiply read no f32.
    fn narrow(&mut self, x: Operand) -> Operand {
        if x.dtype != DType::F32 {
            return x;
        }
        if let Some((_, form)) = self.narrowed.iter().find(|(of, _)| *of == x) {
            return *form;
        }
        let form = self.temporary(x.rows, x.columns, self.plan.precision.base());
        self.works.push(elementwise(Elementwise::Convert, x, None, form));
        self.narrowed.push((x, form));
        form
    }

    /// The e4m3 form of an operand, which is made once.
    fn quantise(&mut self, x: Operand, granularity: Granularity) -> Quantised {
        let by_block = granularity == Granularity::Block;
        let made = self.quantised.iter().find(|(of, form)| *of == x && form.by_block == by_block);
        if let Some((_, form)) = made {
            return *form;
        }
        let out = self.quantised_form(x, granularity);
        self.works.push(Work::Quantise { x, out });
        out
    }

    /// Room for the e4m3 form of an operand; whoever asks for it writes it.
    fn quantised_form(&mut self, x: Operand, granularity: Granularity) -> Quantised {
        let scales = match granularity {
            Granularity::Row => 1,
            Granularity::Block => x.columns.div_ceil(SCALE_BLOCK),
        };
        let codes = self.temporary(x.rows, x.columns, DType::E4M3);
        let scale = self.temporary(x.rows, scales, DType::F32);
        let form = Quantised { codes, scale, by_block: granularity == Granularity::Block };
        self.quantised.push((x, form));
        form
    }

    fn norm(&mut self, index: usize, eps: f32, layer: bool) {
        let step = &self.plan.steps[index];
        if !self.fusions.prologues.contains_key(&step.outputs[0].value) {
            let work = self.norm_of(index, eps, layer, self.operand(step.inputs[0]), None);
            self.works.push(work);
        }
    }

    fn add_norm(&mut self, index: usize, eps: f32, layer: bool) {
        let step = &self.plan.steps[index];
        let (x, y) = (self.operand(step.inputs[0]), self.operand(step.inputs[1]));
        let sum = self.operand(step.outputs[0]);
        let in_prologue = self.fusions.prologues.contains_key(&step.outputs[1].value);
        let work = match (self.fusions.summed[index], in_prologue) {
            (true, true) => return,
            (true, false) => self.norm_of(index, eps, layer, sum, None),
            (false, true) => elementwise(Elementwise::Add, x, Some(y), sum),
            (false, false) => self.norm_of(index, eps, layer, x, Some((y, sum))),
        };
        self.works.push(work);
    }

    /// The norm of a step, whose last output it is.
    fn norm_of(&mut self, index: usize, eps: f32, layer: bool, x: Operand, add: Option<(Operand, Operand)>) -> Work {
        let step = &self.plan.steps[index];
        let normed = step.outputs[step.outputs.len() - 1];
        let out = self.operand(normed);
        let form = self.fusions.forms.get(&normed.value).copied();
        Work::Norm(Norm {
            layer,
            eps,
            groups: self.plan.norm_groups(step),
            x,
            add,
            gain: step.weights[0],
            bias: step.weights.get(1).copied(),
            out: form.is_none_or(|form| form.keeps).then_some(out),
            quantised: form.map(|form| self.quantised_form(out, form.granularity)),
        })
    }
}

fn elementwise(function: Elementwise, x: Operand, y: Option<Operand>, out: Operand) -> Work {
    Work::Elementwise { function, x, y, out }
}
