//! One step on the model: a plan becomes a packed batch and gives rows of logits.

use crate::error::{Error, Result};
use crate::executor::scheduler::{Scheduler, StepPlan};
use crate::runtime::{Batch, BatchRow, Forward};

/// The model with the batch that it is given; the batch's memory is used again from step to step.
pub(super) struct Step {
    model: Box<dyn Forward>,
    groups: usize,
    batch: Batch,
}

impl Step {
    pub(super) fn new(model: Box<dyn Forward>, groups: usize) -> Self {
        Self { model, groups, batch: Batch::default() }
    }

    /// What the model takes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.model.memory_bytes()
    }

    /// Columns of a logit row.
    pub(super) fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }

    /// Computes the plan's rows. The logits of all rows lie one after the other, `[plan.logits(), vocab_size]`.
    pub(super) fn run(&mut self, plan: &StepPlan, scheduler: &Scheduler) -> Result<&[f32]> {
        self.pack(plan, scheduler);
        let expected = self.batch.logit_rows.len() * self.model.vocab_size();
        let logits = self.model.forward(&self.batch)?;
        if logits.len() != expected {
            return Err(Error::internal("forward", format!("{} logits instead of {expected}", logits.len())));
        }
        Ok(logits)
    }

    fn pack(&mut self, plan: &StepPlan, scheduler: &Scheduler) {
        let batch = &mut self.batch;
        batch.tokens.clear();
        batch.positions.clear();
        batch.rows.clear();
        batch.tables.clear();
        batch.logit_rows.clear();
        batch.table_starts.clear();
        batch.table_starts.push(0);
        for row in &plan.rows {
            let start = batch.tokens.len();
            let end = start + row.len;
            batch.rows.push(BatchRow { start, len: row.len, context: row.context });
            batch.tokens.extend_from_slice(scheduler.tokens(row));
            batch.positions.extend((row.context..row.context + row.len).map(|p| p as u32));
            batch.logit_rows.extend((end - row.logits..end).map(|t| t as u32));
            for group in 0..self.groups {
                batch.tables.extend_from_slice(scheduler.table(row, group));
                batch.table_starts.push(batch.tables.len());
            }
        }
    }
}
