//! Workspace planning: values whose lifetimes do not overlap share a slot.

use crate::engine::{Output, Rows, Slot, Step, Value};

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
    let need = value.columns * value.dtype.bytes();
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::View;
    use crate::types::{DType, Op};

    /// A value per step, which reads a few of the values before it through a part of their columns.
    fn network(shapes: &[(bool, usize)], reads: &[Vec<prop::sample::Index>]) -> (Vec<Value>, Vec<Step>) {
        let value = |(index, (logits, columns)): (usize, &(bool, usize))| Value {
            name: index.to_string(),
            rows: if *logits { Rows::LogitRows } else { Rows::Tokens },
            columns: *columns,
            dtype: DType::F32,
            slot: usize::MAX,
        };
        let step = |(index, reads): (usize, &Vec<prop::sample::Index>)| Step {
            name: index.to_string(),
            op: Op::Add,
            inputs: reads
                .iter()
                .filter(|_| index > 0)
                .map(|read| View { value: read.index(index), start: 0, columns: 1 })
                .collect(),
            weights: vec![],
            outputs: vec![View { value: index, start: 0, columns: shapes[index].1 }],
            fused: vec![],
        };
        (shapes.iter().enumerate().map(value).collect(), reads.iter().enumerate().map(step).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn values_alive_together_never_share_a_slot(
            shapes in prop::collection::vec((any::<bool>(), 1usize..100), 40),
            reads in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 1..40),
            kept in any::<prop::sample::Index>(),
        ) {
            let count = reads.len();
            let (mut values, steps) = network(&shapes[..count], &reads);
            let outputs = [Output { name: "kept".into(), value: kept.index(count) }];
            let slots = assign_slots(&mut values, &steps, &outputs);

            let needed = |value: usize, step: usize| {
                outputs[0].value == value
                    || steps[step..].iter().any(|s| s.inputs.iter().chain(&s.outputs).any(|view| view.value == value))
            };
            for step in 0..count {
                // Value `v` is written by step `v`.
                let alive: Vec<usize> = (0..=step).filter(|value| needed(*value, step)).collect();
                let mut used: Vec<usize> = alive.iter().map(|value| values[*value].slot).collect();
                used.sort_unstable();
                used.dedup();
                prop_assert_eq!(used.len(), alive.len(), "two of {:?} share a slot at step {}", alive, step);
            }
            for value in &values {
                let slot = &slots[value.slot];
                let bytes = if value.rows == Rows::Tokens { slot.bytes_per_token } else { slot.bytes_per_logit_row };
                prop_assert!(bytes >= value.columns * 4);
            }
        }
    }

    #[test]
    fn a_chain_needs_two_slots_however_long() {
        let shapes = vec![(false, 8); 50];
        let (mut values, mut steps) = network(&shapes, &vec![vec![]; 50]);
        for (index, step) in steps.iter_mut().enumerate().skip(1) {
            step.inputs = vec![View { value: index - 1, start: 0, columns: 8 }];
        }
        let outputs = [Output { name: "last".into(), value: 49 }];
        assert_eq!(
            assign_slots(&mut values, &steps, &outputs),
            [Slot { bytes_per_token: 32, bytes_per_logit_row: 0 }; 2]
        );
    }
}
