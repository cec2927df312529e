//! A sequence as the scheduler knows it.

use crate::executor::RequestId;
use crate::executor::plan::{Chooser, PlannedRow};
use crate::kv::PrefixKey;

/// Names a sequence; the order is that of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    pub request: RequestId,
    pub sequence: u32,
}

/// What the scheduler knows of a sequence.
#[derive(Debug)]
pub struct Task {
    pub id: TaskId,
    /// Prompt and output as far as the host knows it. What lies behind the cached length is yet to be computed.
    pub tokens: Vec<u32>,
    pub key: PrefixKey,
    /// Take from and give to the prefix cache.
    pub reuse: bool,
    /// Logits are wanted from this position on, and always of the last token.
    pub logits_from: usize,
    /// Tokens with which it is complete, so that no step computes what follows them.
    pub most: usize,
    pub flying: Flying,
}

/// What of a task is in steps that were launched and not collected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flying {
    rows: usize,
    /// Tokens that these steps give, which follow the known ones.
    tokens: usize,
    /// The last of these tokens is chosen by the host, so that the device cannot go on from it.
    held: bool,
}

impl Task {
    /// Tokens, known or not.
    pub fn len(&self) -> usize {
        self.tokens.len() + self.flying.tokens
    }

    /// Whether no row of it is in flight.
    pub fn is_grounded(&self) -> bool {
        self.flying.rows == 0
    }

    /// Whether a step launched now can and should go on with it.
    pub fn can_go_on(&self) -> bool {
        !self.flying.held && self.len() < self.most
    }

    /// The first position whose logits are wanted.
    pub fn first_logit(&self) -> usize {
        self.logits_from.min(self.len() - 1)
    }

    /// A row of it was launched.
    pub fn launch(&mut self, row: &PlannedRow) {
        self.flying.rows += 1;
        if row.samples {
            self.flying.tokens += 1;
            self.flying.held = row.chooser == Chooser::Host;
        }
    }

    /// The oldest row of it that was launched was collected; what it sampled is not among the tokens yet.
    pub fn land(&mut self, row: &PlannedRow) {
        self.flying.rows -= 1;
        if row.samples {
            self.flying.tokens -= 1;
            self.flying.held &= self.flying.tokens > 0;
        }
    }
}
