//! What the kernels of linear layers and norms do beside their own work: additions move into the linear layer that makes a
//! summand, norms into the linear layers that read them where few rows are computed, quantisation into the norms.

use std::collections::HashMap;

use super::flow::Flow;
use super::lowering::Choice;
use super::{Operand, Prologue};
use crate::backend::cuda::linear::is_aligned;
use crate::engine::{Granularity, Plan, View};
use crate::types::{DType, Op};

/// A linear step that also adds: the other summand and where the sum goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) with: View,
    pub(super) into: View,
}

/// What a norm writes beside or in place of its 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) granularity: Granularity,
    /// Whether the 16 bits are written too.
    pub(super) keeps: bool,
}

/// All that moves in a plan.
pub(super) struct Fusions<'p> {
    plan: &'p Plan,
    choice: Choice,
    flow: Flow<'p>,
    /// By linear step.
    pub(super) sums: HashMap<usize, Sum>,
    /// By step: an addition that a linear step does.
    pub(super) summed: Vec<bool>,
    /// By value: the norm that whoever reads it applies, and to what.
    pub(super) prologues: HashMap<usize, (View, Prologue)>,
    /// By linear step: how its operand is scaled, where that is e4m3.
    pub(super) quantised: Vec<Option<Granularity>>,
    /// By value of a norm that writes e4m3.
    pub(super) forms: HashMap<usize, Form>,
}

impl<'p> Fusions<'p> {
    pub(super) fn new(plan: &'p Plan, choice: Choice) -> Self {
        let count = plan.steps.len();
        let mut fusions = Self {
            plan,
            choice,
            flow: Flow::new(plan),
            sums: HashMap::new(),
            summed: vec![false; count],
            prologues: HashMap::new(),
            quantised: vec![None; count],
            forms: HashMap::new(),
        };
        (0..count).for_each(|step| fusions.find_sum(step));
        (0..count).for_each(|step| fusions.find_prologue(step));
        // An operand that is normed while it is read stays as it is.
        fusions.quantised = (0..count).map(|step| fusions.quantisation(step)).collect();
        (0..count).for_each(|step| fusions.find_form(step));
        fusions
    }

    fn is_f32(&self, view: View) -> bool {
        self.plan.values[view.value].dtype == DType::F32
    }

    /// `x + y` moves into the linear step that makes `y` (or `x`) when nobody else wants that and the other is there by then.
    fn find_sum(&mut self, index: usize) {
        let step = &self.plan.steps[index];
        if !matches!(step.op, Op::Add | Op::AddRmsNorm { .. } | Op::AddLayerNorm { .. }) {
            return;
        }
        let flow = &self.flow;
        for (summand, with) in [(step.inputs[1], step.inputs[0]), (step.inputs[0], step.inputs[1])] {
            let Some(linear) = flow.producer(summand.value).filter(|step| flow.is_linear(*step)) else { continue };
            let alone = flow.users(summand.value).len() == 1 && !flow.is_output(summand.value);
            let ready = flow.producer(with.value).is_some_and(|producer| producer < linear);
            let whole = flow.is_whole(summand) && flow.is_whole(with);
            let f32s = self.is_f32(with) && self.is_f32(step.outputs[0]);
            if alone && ready && whole && f32s && !self.sums.contains_key(&linear) {
                self.sums.insert(linear, Sum { with, into: step.outputs[0] });
                self.summed[index] = true;
                return;
            }
        }
    }

    /// An RMS norm that only linear layers read becomes theirs.
    fn find_prologue(&mut self, index: usize) {
        let step = &self.plan.steps[index];
        let (of, normed, eps) = match step.op {
            Op::RmsNorm { eps } if self.plan.norm_groups(step) == 1 => (step.inputs[0], step.outputs[0], eps),
            Op::AddRmsNorm { eps } => (step.outputs[0], step.outputs[1], eps),
            _ => return,
        };
        let (flow, users) = (&self.flow, self.flow.users(normed.value));
        let only_multiplied = !users.is_empty() && users.iter().all(|user| flow.multiplies(*user, normed));
        let read = only_multiplied && !flow.is_output(normed.value);
        if self.choice.norm_prologue && read && flow.is_whole(of) && self.is_f32(of) {
            self.prologues.insert(normed.value, (of, Prologue { gain: step.weights[0], eps }));
        }
    }

    /// Operands of e4m3 weights are scaled as those are: by row, or by row and 128 columns for scales of blocks.
    fn quantisation(&self, index: usize) -> Option<Granularity> {
        let step = &self.plan.steps[index];
        if !self.choice.quantise || !self.flow.is_linear(index) || self.prologues.contains_key(&step.inputs[0].value) {
            return None;
        }
        let scale = self.plan.weights[step.weights[0]].scale?;
        let x = Operand::of(self.plan, step.inputs[0]);
        is_aligned(&x, step.outputs[0].columns, true).then_some(scale.granularity)
    }

    /// A norm writes e4m3 when a linear layer wants that of its whole result; of two ways to scale it the first reader's.
    fn find_form(&mut self, index: usize) {
        let step = &self.plan.steps[index];
        let normed = match step.op {
            Op::RmsNorm { .. } | Op::LayerNorm { .. } if self.plan.norm_groups(step) == 1 => step.outputs[0],
            Op::AddRmsNorm { .. } | Op::AddLayerNorm { .. } => step.outputs[1],
            _ => return,
        };
        let users = self.flow.users(normed.value);
        let wanted = |user: usize| self.quantised[user].filter(|_| self.flow.multiplies(user, normed));
        let Some(granularity) = users.iter().find_map(|user| wanted(*user)) else { return };
        let others = users.iter().any(|user| wanted(*user) != Some(granularity));
        let keeps = others || self.flow.is_output(normed.value);
        if !self.is_f32(normed) {
            self.forms.insert(normed.value, Form { granularity, keeps });
        }
    }
}
