//! What one step computes.

use crate::error::Result;
use crate::executor::task::TaskId;
use crate::types::heap;

/// The largest step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimits {
    /// Sequences that run at once; at most `tokens` and `logit_rows`.
    pub rows: usize,
    pub tokens: usize,
    pub logit_rows: usize,
    /// Steps in flight at once.
    pub depth: usize,
}

/// Who chooses the token after a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Chooser {
    /// The host, from a row of logits.
    #[default]
    Host,
    /// The device; the logits come to the host only if it `keeps_logits`.
    Device { keeps_logits: bool },
}

/// One sequence's part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedRow {
    pub task: TaskId,
    /// Tokens of the sequence that are in the cache, or are going to be once the steps in flight have ended.
    pub context: usize,
    /// Tokens to compute, at least 1.
    pub len: usize,
    /// How many of the last of these give logits.
    pub logits: usize,
    /// Whether the sequence's last token is among them, so that the next one can be sampled.
    pub samples: bool,
    /// Decided when the step is packed; the host where nothing is sampled.
    pub chooser: Chooser,
}

impl PlannedRow {
    /// Rows of logits that come to the host.
    #[must_use]
    pub fn host_logits(&self) -> usize {
        match self.chooser {
            Chooser::Device { keeps_logits: false } => self.logits - 1,
            _ => self.logits,
        }
    }

    /// Whether the device samples.
    #[must_use]
    pub fn is_sampled_on_device(&self) -> bool {
        self.chooser != Chooser::Host
    }
}

/// What one step computes; memory is used again from step to step.
#[derive(Debug, Default)]
pub struct StepPlan {
    /// Changed through [`push`](Self::push) and [`drop_row`](Self::drop_row) while it is made.
    pub rows: Vec<PlannedRow>,
    /// Sequences that began or resumed with this step.
    pub admitted: Vec<TaskId>,
    /// Sequences that gave up their blocks.
    pub preempted: Vec<TaskId>,
    tokens: usize,
    logits: usize,
}

impl StepPlan {
    /// An empty plan with room for steps within `limits`.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn new(limits: &StepLimits) -> Result<Self> {
        let (rows, what) = (limits.rows, "plan of a step");
        Ok(Self {
            rows: heap::vector(rows, what)?,
            admitted: heap::vector(rows, what)?,
            preempted: heap::vector(rows, what)?,
            ..Self::default()
        })
    }

    /// Tokens of all rows.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Logit rows of all rows.
    #[must_use]
    pub fn logits(&self) -> usize {
        self.logits
    }

    /// Adds a row.
    pub fn push(&mut self, row: PlannedRow) {
        self.tokens += row.len;
        self.logits += row.logits;
        self.rows.push(row);
    }

    /// Takes a task's row out, if it has one.
    pub fn drop_row(&mut self, task: TaskId) {
        if let Some(at) = self.rows.iter().position(|row| row.task == task) {
            let row = self.rows.remove(at);
            self.tokens -= row.len;
            self.logits -= row.logits;
        }
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.admitted.clear();
        self.preempted.clear();
        (self.tokens, self.logits) = (0, 0);
    }
}
