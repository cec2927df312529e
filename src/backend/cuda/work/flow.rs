//! Who makes and who reads each value of a plan.

use crate::engine::{Plan, View};
use crate::types::Op;

/// Indices of steps, by value.
pub(super) struct Flow<'p> {
    plan: &'p Plan,
    producers: Vec<Option<usize>>,
    /// A step that reads a value twice is there twice.
    users: Vec<Vec<usize>>,
    is_output: Vec<bool>,
}

impl<'p> Flow<'p> {
    pub(super) fn new(plan: &'p Plan) -> Self {
        let count = plan.values.len();
        let mut flow =
            Self { plan, producers: vec![None; count], users: vec![Vec::new(); count], is_output: vec![false; count] };
        for (index, step) in plan.steps.iter().enumerate() {
            step.inputs.iter().for_each(|view| flow.users[view.value].push(index));
            step.outputs.iter().for_each(|view| flow.producers[view.value] = Some(index));
        }
        plan.outputs.iter().for_each(|output| flow.is_output[output.value] = true);
        flow
    }

    pub(super) fn producer(&self, value: usize) -> Option<usize> {
        self.producers[value]
    }

    pub(super) fn users(&self, value: usize) -> &[usize] {
        &self.users[value]
    }

    /// Whether a value leaves the plan.
    pub(super) fn is_output(&self, value: usize) -> bool {
        self.is_output[value]
    }

    pub(super) fn is_whole(&self, view: View) -> bool {
        view.start == 0 && view.columns == self.plan.values[view.value].columns
    }

    pub(super) fn is_linear(&self, step: usize) -> bool {
        matches!(self.plan.steps[step].op, Op::Linear { .. } | Op::GatedLinear { .. })
    }

    /// Whether a step is a linear layer of exactly this operand.
    pub(super) fn multiplies(&self, step: usize, operand: View) -> bool {
        self.is_linear(step) && self.plan.steps[step].inputs[0] == operand
    }
}
