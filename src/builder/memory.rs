//! Workspace planning: values whose lifetimes do not overlap share a slot.

use crate::engine::{Output, Rows, Slot, Step, Value};
use crate::types::DType;

/// Chooses a slot for every value and returns the slots. A value lives from the step that writes it to the last step that
/// reads it, through whatever view; an output lives to the end. A step's outputs never share a slot with its inputs.
pub(super) fn assign_slots(values: &mut [Value], steps: &[Step], outputs: &[Output]) -> Vec<Slot> {
    let dying = dying_values(values.len(), steps, outputs);
    let (mut slots, mut free) = (Vec::new(), Vec::new());
    for (step, dying) in steps.iter().zip(dying) {
        for view in &step.outputs {
            let value = &mut values[view.value];
            value.slot = take_slot(value, &mut slots, &mut free);
        }
        free.extend(dying.into_iter().map(|value| values[value].slot));
    }
    slots
}

/// By step: the values that nobody needs after it.
fn dying_values(count: usize, steps: &[Step], outputs: &[Output]) -> Vec<Vec<usize>> {
    let mut last: Vec<Option<usize>> = vec![None; count];
    for (index, step) in steps.iter().enumerate() {
        for view in step.inputs.iter().chain(&step.outputs) {
            last[view.value] = Some(index);
        }
    }
    for output in outputs {
        last[output.value] = None;
    }
    let mut dying = vec![Vec::new(); steps.len()];
    for (value, last) in last.into_iter().enumerate() {
        if let Some(step) = last {
            dying[step].push(value);
        }
    }
    dying
}

/// The smallest free slot that is large enough, else the largest free one, which grows, else a new one.
fn take_slot(value: &Value, slots: &mut Vec<Slot>, free: &mut Vec<usize>) -> usize {
    let need = value.columns * DType::F32.bytes();
    let size = |slot: &Slot| match value.rows {
        Rows::Tokens => slot.bytes_per_token,
        Rows::LogitRows => slot.bytes_per_logit_row,
    };
    let rank = |slot: &usize| {
        let size = size(&slots[*slot]);
        if size >= need { (0, size) } else { (1, usize::MAX - size) }
    };
    let best = free.iter().enumerate().min_by_key(|(_, slot)| rank(slot)).map(|(position, _)| position);
    let slot = best.map(|position| free.swap_remove(position)).unwrap_or_else(|| {
        slots.push(Slot { bytes_per_token: 0, bytes_per_logit_row: 0 });
        slots.len() - 1
    });
    let chosen = &mut slots[slot];
    match value.rows {
        Rows::Tokens => chosen.bytes_per_token = chosen.bytes_per_token.max(need),
        Rows::LogitRows => chosen.bytes_per_logit_row = chosen.bytes_per_logit_row.max(need),
    }
    slot
}
