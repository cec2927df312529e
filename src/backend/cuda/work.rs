//! A plan as this backend runs it: steps become works, each of them one or two kernels. Sums move into the linear layer
//! that makes them, norms into the linear layers that read them where few rows are computed.

use std::collections::HashMap;

use super::linear::is_aligned;
use crate::engine::{Granularity, Plan, Rows, Step, View};
use crate::types::{Activation, AttentionSpec, DType, Op, RopeSpec};

/// Columns of a buffer as a kernel sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operand {
    /// Index into [`Works::buffers`].
    pub(super) buffer: usize,
    pub(super) rows: Rows,
    /// Columns of the whole buffer: the row stride in elements.
    pub(super) stride: usize,
    pub(super) start: usize,
    pub(super) columns: usize,
    pub(super) dtype: DType,
}

/// A matrix in the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Buffer {
    pub(super) rows: Rows,
    pub(super) columns: usize,
    pub(super) dtype: DType,
}

/// RMS norm applied to a linear layer's operand while it is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Prologue {
    pub(super) gain: usize,
    pub(super) eps: f32,
}

/// A linear layer with all that runs in its kernel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Linear {
    pub(super) x: Operand,
    /// Per-row scales of an e4m3 operand.
    pub(super) x_scale: Option<Operand>,
    /// One matrix, or gate and up.
    pub(super) weights: Vec<usize>,
    pub(super) biases: Vec<usize>,
    pub(super) activation: Option<Activation>,
    pub(super) norm: Option<Prologue>,
    pub(super) residual: Option<Operand>,
    pub(super) out: Operand,
}

/// A norm by itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Norm {
    pub(super) layer: bool,
    pub(super) eps: f32,
    pub(super) x: Operand,
    /// What is added first, and where the sum goes.
    pub(super) add: Option<(Operand, Operand)>,
    pub(super) gain: usize,
    pub(super) bias: Option<usize>,
    pub(super) out: Operand,
}

/// Attention over the paged cache.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Attention {
    pub(super) spec: AttentionSpec,
    pub(super) rope: Option<RopeSpec>,
    pub(super) q: Operand,
    /// New keys and values that the attention appends itself; `None` where they are in the cache already.
    pub(super) kv: Option<(Operand, Operand)>,
    pub(super) angles: Option<Operand>,
    pub(super) out: Operand,
}

/// Two operands or one, element by element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Elementwise {
    Add,
    Mul,
    Activate(Activation),
}

/// What one or two kernels do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Work {
    Embedding {
        table: usize,
        by_position: bool,
        out: Operand,
    },
    Angles {
        frequencies: usize,
        scale: f32,
        out: Operand,
    },
    Linear(Linear),
    Norm(Norm),
    Elementwise {
        function: Elementwise,
        x: Operand,
        y: Option<Operand>,
        out: Operand,
    },
    Rope {
        spec: RopeSpec,
        x: Operand,
        angles: Operand,
        out: Operand,
    },
    Append {
        spec: AttentionSpec,
        k: Operand,
        v: Operand,
    },
    Attention(Attention),
    Gather {
        x: Operand,
        out: Operand,
    },
    /// To e4m3 with a scale for each row.
    Quantise {
        x: Operand,
        out: Operand,
        scale: Operand,
    },
}

impl Work {
    /// Every operand that is read, then every one that is written.
    pub(super) fn operands(&self) -> (Vec<Operand>, Vec<Operand>) {
        match self {
            Work::Embedding { out, .. } | Work::Angles { out, .. } => (vec![], vec![*out]),
            Work::Linear(l) => ([Some(l.x), l.x_scale, l.residual].into_iter().flatten().collect(), vec![l.out]),
            Work::Norm(n) => {
                let add = n.add.map(|(y, _)| y);
                let sum = n.add.map(|(_, sum)| sum);
                ([Some(n.x), add].into_iter().flatten().collect(), [Some(n.out), sum].into_iter().flatten().collect())
            }
            Work::Elementwise { x, y, out, .. } => ([Some(*x), *y].into_iter().flatten().collect(), vec![*out]),
            Work::Rope { x, angles, out, .. } => (vec![*x, *angles], vec![*out]),
            Work::Append { k, v, .. } => (vec![*k, *v], vec![]),
            Work::Attention(a) => {
                let kv = a.kv.into_iter().flat_map(|(k, v)| [k, v]);
                ([a.q].into_iter().chain(kv).chain(a.angles).collect(), vec![a.out])
            }
            Work::Gather { x, out } => (vec![*x], vec![*out]),
            Work::Quantise { x, out, scale } => (vec![*x], vec![*out, *scale]),
        }
    }
}

/// How works are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    /// Norms run inside the linear layers that read them.
    pub(super) norm_prologue: bool,
    /// Operands of e4m3 weights are quantised too.
    pub(super) quantise: bool,
}

/// A plan's works with the matrices that they need.
#[derive(Debug)]
pub(super) struct Works {
    pub(super) works: Vec<Work>,
    pub(super) buffers: Vec<Buffer>,
    pub(super) logits: Operand,
}

impl Works {
    /// Works of a validated plan, whose values are the first buffers.
    pub(super) fn new(plan: &Plan, choice: Choice) -> Self {
        let mut lowering = Lowering::new(plan, choice);
        for index in 0..plan.steps.len() {
            lowering.step(index);
        }
        let logits = plan.outputs.iter().find(|output| output.name == "logits").map_or(0, |output| output.value);
        let logits = lowering.whole(logits);
        Self { works: lowering.works, buffers: lowering.buffers, logits }
    }
}

/// A linear step that also adds: the other summand and where the sum goes.
#[derive(Debug, Clone, Copy)]
struct Sum {
    with: View,
    into: View,
}

struct Lowering<'p> {
    plan: &'p Plan,
    choice: Choice,
    works: Vec<Work>,
    buffers: Vec<Buffer>,
    /// By linear step.
    sums: HashMap<usize, Sum>,
    /// By step of an addition that its linear step does.
    summed: Vec<bool>,
    /// By value: the norm that whoever reads it applies, and to what.
    prologues: HashMap<usize, (View, Prologue)>,
    /// By buffer, first column and columns: the e4m3 form, once made.
    quantised: HashMap<(usize, usize, usize), (Operand, Operand)>,
}

impl<'p> Lowering<'p> {
    fn new(plan: &'p Plan, choice: Choice) -> Self {
        let buffer =
            |value: &crate::engine::Value| Buffer { rows: value.rows, columns: value.columns, dtype: value.dtype };
        let mut lowering = Self {
            plan,
            choice,
            works: Vec::new(),
            buffers: plan.values.iter().map(buffer).collect(),
            sums: HashMap::new(),
            summed: vec![false; plan.steps.len()],
            prologues: HashMap::new(),
            quantised: HashMap::new(),
        };
        let flow = Flow::new(plan);
        for index in 0..plan.steps.len() {
            lowering.find_sum(&flow, index);
            lowering.find_prologue(&flow, index);
        }
        lowering
    }

    /// `x + y` moves into the linear step that makes `y` (or `x`) when nobody else wants that.
    fn find_sum(&mut self, flow: &Flow, index: usize) {
        let step = &self.plan.steps[index];
        if !matches!(step.op, Op::Add | Op::AddRmsNorm { .. } | Op::AddLayerNorm { .. }) {
            return;
        }
        for (summand, with) in [(step.inputs[1], step.inputs[0]), (step.inputs[0], step.inputs[1])] {
            let Some(linear) = flow.producer[summand.value] else { continue };
            let whole = summand.columns == self.plan.values[summand.value].columns;
            let alone = flow.users[summand.value].len() == 1 && !flow.is_output[summand.value];
            let ready = flow.producer[with.value].is_some_and(|producer| producer < linear);
            let makes = matches!(self.plan.steps[linear].op, Op::Linear { .. } | Op::GatedLinear { .. });
            let f32s = self.plan.values[with.value].dtype == DType::F32
                && self.plan.values[step.outputs[0].value].dtype == DType::F32;
            let packed = with.columns == self.plan.values[with.value].columns;
            if makes && whole && alone && ready && f32s && packed && !self.sums.contains_key(&linear) {
                self.sums.insert(linear, Sum { with, into: step.outputs[0] });
                self.summed[index] = true;
                return;
            }
        }
    }

    /// An RMS norm that only linear layers read becomes theirs.
    fn find_prologue(&mut self, flow: &Flow, index: usize) {
        let step = &self.plan.steps[index];
        let (of, normed, eps) = match step.op {
            Op::RmsNorm { eps } => (step.inputs[0], step.outputs[0], eps),
            Op::AddRmsNorm { eps } => (step.outputs[0], step.outputs[1], eps),
            _ => return,
        };
        let linear = |user: &usize| {
            let step = &self.plan.steps[*user];
            matches!(step.op, Op::Linear { .. } | Op::GatedLinear { .. }) && step.inputs[0] == normed
        };
        let whole = of.columns == self.plan.values[of.value].columns;
        let f32s = self.plan.values[of.value].dtype == DType::F32;
        let read = !flow.is_output[normed.value] && !flow.users[normed.value].is_empty();
        if self.choice.norm_prologue && read && whole && f32s && flow.users[normed.value].iter().all(linear) {
            self.prologues.insert(normed.value, (of, Prologue { gain: step.weights[0], eps }));
        }
    }

    fn whole(&self, value: usize) -> Operand {
        self.operand(View { value, start: 0, columns: self.plan.values[value].columns })
    }

    fn operand(&self, view: View) -> Operand {
        let value = &self.plan.values[view.value];
        Operand {
            buffer: view.value,
            rows: value.rows,
            stride: value.columns,
            start: view.start,
            columns: view.columns,
            dtype: value.dtype,
        }
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
            Op::Embedding => Work::Embedding { table: step.weights[0], by_position: false, out: output(0) },
            Op::PositionEmbedding => Work::Embedding { table: step.weights[0], by_position: true, out: output(0) },
            Op::RopeAngles { scale } => Work::Angles { frequencies: step.weights[0], scale: *scale, out: output(0) },
            Op::Linear { activation, .. } => return self.linear(index, 1, *activation),
            Op::GatedLinear { activation, .. } => return self.linear(index, 2, Some(*activation)),
            Op::RmsNorm { eps } => return self.norm(index, *eps, false),
            Op::LayerNorm { eps } => return self.norm(index, *eps, true),
            Op::AddRmsNorm { eps } => return self.add_norm(index, *eps, false),
            Op::AddLayerNorm { eps } => return self.add_norm(index, *eps, true),
            Op::Add if self.summed[index] => return,
            Op::Add => elementwise(Elementwise::Add, input(0), Some(input(1)), output(0)),
            Op::Mul => elementwise(Elementwise::Mul, input(0), Some(input(1)), output(0)),
            Op::Activate { activation } => elementwise(Elementwise::Activate(*activation), input(0), None, output(0)),
            Op::Rope(spec) => Work::Rope { spec: *spec, x: input(0), angles: input(1), out: output(0) },
            Op::Slice { .. } => return,
            Op::CacheAppend(spec) => Work::Append { spec: *spec, k: input(0), v: input(1) },
            Op::Attention(spec) => Work::Attention(Attention {
                spec: *spec,
                rope: None,
                q: input(0),
                kv: None,
                angles: None,
                out: output(0),
            }),
            Op::FusedAttention { attention, rope } => Work::Attention(Attention {
                spec: *attention,
                rope: *rope,
                q: input(0),
                kv: Some((input(1), input(2))),
                angles: rope.map(|_| input(3)),
                out: output(0),
            }),
            Op::GatherRows => Work::Gather { x: input(0), out: output(0) },
        };
        self.works.push(work);
    }

    fn linear(&mut self, index: usize, matrices: usize, activation: Option<Activation>) {
        let step = &self.plan.steps[index];
        let (weights, biases) = step.weights.split_at(matrices);
        let (x, norm) = match self.prologues.get(&step.inputs[0].value) {
            Some((of, prologue)) => (self.operand(*of), Some(*prologue)),
            None => (self.operand(step.inputs[0]), None),
        };
        let sum = self.sums.get(&index).copied();
        let out = self.operand(sum.map_or(step.outputs[0], |sum| sum.into));
        let (x, x_scale) = match self.wants_quantised(step, norm) {
            true => self.quantise(x),
            false => (x, None),
        };
        self.works.push(Work::Linear(Linear {
            x,
            x_scale,
            weights: weights.to_vec(),
            biases: biases.to_vec(),
            activation,
            norm,
            residual: sum.map(|sum| self.operand(sum.with)),
            out,
        }));
    }

    fn wants_quantised(&self, step: &Step, norm: Option<Prologue>) -> bool {
        // Scales of blocks want a scale for each 128 elements of the operand too: such weights multiply 16-bit operands.
        let by_row =
            self.plan.weights[step.weights[0]].scale.as_ref().is_some_and(|s| s.granularity == Granularity::Row);
        let x = self.operand(step.inputs[0]);
        let n = step.outputs[0].columns;
        self.choice.quantise
            && by_row
            && norm.is_none()
            && self.plan.weights[step.weights[0]].dtype == DType::E4M3
            && is_aligned(&x, n, true)
    }

    fn quantise(&mut self, x: Operand) -> (Operand, Option<Operand>) {
        let view = (x.buffer, x.start, x.columns);
        let made = self.quantised.get(&view).copied().unwrap_or_else(|| {
            let out = self.temporary(x.rows, x.columns, DType::E4M3);
            let scale = self.temporary(x.rows, 1, DType::F32);
            self.works.push(Work::Quantise { x, out, scale });
            self.quantised.insert(view, (out, scale));
            (out, scale)
        });
        (made.0, Some(made.1))
    }

    fn norm(&mut self, index: usize, eps: f32, layer: bool) {
        let step = &self.plan.steps[index];
        if self.prologues.contains_key(&step.outputs[0].value) {
            return;
        }
        let (x, out) = (self.operand(step.inputs[0]), self.operand(step.outputs[0]));
        let (gain, bias) = (step.weights[0], step.weights.get(1).copied());
        self.works.push(Work::Norm(Norm { layer, eps, x, add: None, gain, bias, out }));
    }

    fn add_norm(&mut self, index: usize, eps: f32, layer: bool) {
        let step = &self.plan.steps[index];
        let (x, y) = (self.operand(step.inputs[0]), self.operand(step.inputs[1]));
        let (sum, out) = (self.operand(step.outputs[0]), self.operand(step.outputs[1]));
        let (gain, bias) = (step.weights[0], step.weights.get(1).copied());
        let normed = self.prologues.contains_key(&step.outputs[1].value);
        let work = match (self.summed[index], normed) {
            (true, true) => return,
            (true, false) => Work::Norm(Norm { layer, eps, x: sum, add: None, gain, bias, out }),
            (false, true) => elementwise(Elementwise::Add, x, Some(y), sum),
            (false, false) => Work::Norm(Norm { layer, eps, x, add: Some((y, sum)), gain, bias, out }),
        };
        self.works.push(work);
    }
}

fn elementwise(function: Elementwise, x: Operand, y: Option<Operand>, out: Operand) -> Work {
    Work::Elementwise { function, x, y, out }
}

/// Who makes and who reads each value.
struct Flow {
    producer: Vec<Option<usize>>,
    users: Vec<Vec<usize>>,
    is_output: Vec<bool>,
}

impl Flow {
    fn new(plan: &Plan) -> Self {
        let count = plan.values.len();
        let mut flow =
            Self { producer: vec![None; count], users: vec![Vec::new(); count], is_output: vec![false; count] };
        for (index, step) in plan.steps.iter().enumerate() {
            step.inputs.iter().for_each(|view| flow.users[view.value].push(index));
            step.outputs.iter().for_each(|view| flow.producer[view.value] = Some(index));
        }
        plan.outputs.iter().for_each(|output| flow.is_output[output.value] = true);
        flow
    }
}
