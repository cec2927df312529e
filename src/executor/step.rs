//! Steps on the model: a plan becomes a packed batch, and what comes back is given out row by row.

use crate::error::{Error, Result};
use crate::executor::ledger::Ledger;
use crate::executor::plan::{Chooser, PlannedRow, StepLimits, StepPlan};
use crate::runtime::{Batch, BatchRow, Feed, Forward, SampleFault, StepOutput, StepTime};
use crate::types::heap;

/// The model with the batch that it is given; the batch's memory is used again from step to step.
pub(super) struct Step {
    model: Box<dyn Forward>,
    groups: usize,
    batch: Batch,
}

/// What a step gave for one row.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowOutput<'a> {
    /// `[row.host_logits(), vocab_size]`.
    pub(super) logits: &'a [f32],
    /// What the device chose, if it was to choose.
    pub(super) token: Option<Result<u32, SampleFault>>,
}

impl Step {
    /// Takes the memory of the largest batch; the tables of one row have up to `table_blocks` entries together.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn new(
        model: Box<dyn Forward>,
        groups: usize,
        limits: &StepLimits,
        table_blocks: usize,
    ) -> Result<Self> {
        let (tokens, rows, what) = (limits.tokens, limits.rows, "batch of a step");
        let batch = Batch {
            tokens: heap::vector(tokens, what)?,
            positions: heap::vector(tokens, what)?,
            rows: heap::vector(rows, what)?,
            tables: heap::vector(rows.saturating_mul(table_blocks), what)?,
            table_starts: heap::vector(rows * groups + 1, what)?,
            logit_rows: heap::vector(limits.logit_rows, what)?,
            feeds: heap::vector(rows, what)?,
            samples: heap::vector(rows, what)?,
            adjustments: heap::vector(model.sampling().unwrap_or(0), what)?,
        };
        Ok(Self { model, groups, batch })
    }

    /// What the model takes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.model.memory_bytes()
    }

    /// Starts a planned step; decides who samples its rows.
    pub(super) fn launch(&mut self, plan: &mut StepPlan, ledger: &Ledger) -> Result<()> {
        self.pack(plan, ledger);
        self.model.launch(&self.batch)
    }

    /// Waits for the oldest step in flight, whose plan this is. Its time and one output for each row follow.
    pub(super) fn collect<'a>(
        &'a mut self,
        plan: &'a StepPlan,
    ) -> Result<(StepTime, impl Iterator<Item = RowOutput<'a>>)> {
        let vocab_size = self.model.vocab_size();
        let output = self.model.collect()?;
        check(&output, plan, vocab_size)?;
        let (mut logits, mut sampled) = (output.logits, output.sampled.iter());
        let outputs = plan.rows.iter().map(move |row| {
            let (of_row, others) = logits.split_at(row.host_logits() * vocab_size);
            logits = others;
            let token = if row.is_sampled_on_device() { sampled.next().copied() } else { None };
            RowOutput { logits: of_row, token }
        });
        Ok((output.time, outputs))
    }

    fn pack(&mut self, plan: &mut StepPlan, ledger: &Ledger) {
        self.clear();
        let adjustments = self.model.sampling();
        for row in &mut plan.rows {
            let view = ledger.scheduler.view(row);
            let batch = &mut self.batch;
            let start = batch.tokens.len();
            let end = start + row.len;
            batch.rows.push(BatchRow { start, len: row.len, context: row.context });
            batch.tokens.extend_from_slice(view.tokens);
            let ahead = view.tokens.len() < row.len;
            if ahead {
                batch.tokens.push(0);
                batch.feeds.push(Feed { token: end as u32 - 1, slot: view.slot });
            }
            batch.positions.extend((row.context..row.context + row.len).map(|p| p as u32));
            batch.logit_rows.extend((end - row.logits..end).map(|t| t as u32));
            for group in 0..self.groups {
                batch.tables.extend_from_slice(ledger.scheduler.table(&view, group));
                batch.table_starts.push(batch.tables.len());
            }
            if let Some(most) = adjustments.filter(|_| row.samples) {
                row.chooser = sample(batch, row, view.slot, ahead, most, ledger);
            }
        }
    }

    fn clear(&mut self) {
        let Batch { tokens, positions, rows, tables, table_starts, logit_rows, feeds, samples, adjustments } =
            &mut self.batch;
        tokens.clear();
        positions.clear();
        rows.clear();
        tables.clear();
        table_starts.clear();
        table_starts.push(0);
        logit_rows.clear();
        feeds.clear();
        samples.clear();
        adjustments.clear();
    }
}

/// Lets the device sample the last logit row, unless that takes more adjustments than the device has room for.
fn sample(batch: &mut Batch, row: &PlannedRow, slot: u32, ahead: bool, most: usize, ledger: &Ledger) -> Chooser {
    let Some((sampler, keeps_logits)) = ledger.sampler(row) else { return Chooser::Host };
    if batch.adjustments.len() + sampler.adjustments() > most {
        return Chooser::Host;
    }
    let logit_row = batch.logit_rows.len() as u32 - 1;
    let mut sample = sampler.row(logit_row, slot, ahead, &mut batch.adjustments);
    sample.keep_logits |= keeps_logits;
    batch.samples.push(sample);
    Chooser::Device { keeps_logits: sample.keep_logits }
}

fn check(output: &StepOutput, plan: &StepPlan, vocab_size: usize) -> Result<()> {
    let logits = plan.rows.iter().map(PlannedRow::host_logits).sum::<usize>() * vocab_size;
    let sampled = plan.rows.iter().filter(|row| row.is_sampled_on_device()).count();
    if (output.logits.len(), output.sampled.len()) != (logits, sampled) {
        let got = format!("{} logits and {} tokens", output.logits.len(), output.sampled.len());
        return Err(Error::internal("model", format!("{got} instead of {logits} and {sampled}")));
    }
    let beyond = |token: &Result<u32, _>| token.is_ok_and(|token| token as usize >= vocab_size);
    if output.sampled.iter().any(beyond) {
        return Err(Error::internal("model", "a sampled token is outside the vocabulary"));
    }
    Ok(())
}
