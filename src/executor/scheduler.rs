//! Decides who computes what in the next step. Pure: no device, no clock, no thread.
//!
//! A step takes decode rows first, then prefill chunks of running sequences, then admits those that wait, each in order
//! of arrival. When the pool is exhausted the youngest running sequence gives up its blocks and waits again; all that it
//! said is computed once more, from the cache where that still holds it. The oldest running sequence can thus always
//! take a step, so that everything that fits the empty pool ends.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::executor::RequestId;
use crate::kv::{KvManager, PrefixKey, Sequence};

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
    /// Prompt and output so far. What lies behind the cached length is yet to be computed.
    pub tokens: Vec<u32>,
    pub key: PrefixKey,
    /// Take from and give to the prefix cache.
    pub reuse: bool,
    /// Logits are wanted from this position on, and always of the last token.
    pub logits_from: usize,
}

impl Task {
    fn first_logit(&self) -> usize {
        self.logits_from.min(self.tokens.len() - 1)
    }
}

/// The largest step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimits {
    /// Sequences that run at once; at most `tokens` and `logit_rows`.
    pub rows: usize,
    pub tokens: usize,
    pub logit_rows: usize,
}

/// One sequence's part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedRow {
    pub task: TaskId,
    /// Tokens of the sequence that are in the cache.
    pub context: usize,
    /// Tokens to compute, at least 1.
    pub len: usize,
    /// How many of the last of these give logits.
    pub logits: usize,
    /// Whether the sequence's last token is among them, so that the next one can be sampled.
    pub samples: bool,
}

/// What one step computes; memory is used again from step to step.
#[derive(Debug, Default)]
pub struct StepPlan {
    pub rows: Vec<PlannedRow>,
    /// Sequences that began or resumed with this step.
    pub admitted: Vec<TaskId>,
    /// Sequences that gave up their blocks.
    pub preempted: Vec<TaskId>,
}

impl StepPlan {
    /// Tokens of all rows.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.rows.iter().map(|row| row.len).sum()
    }

    /// Logit rows of all rows.
    #[must_use]
    pub fn logits(&self) -> usize {
        self.rows.iter().map(|row| row.logits).sum()
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.admitted.clear();
        self.preempted.clear();
    }
}

/// A task with its blocks.
#[derive(Debug)]
struct Running {
    task: Task,
    cache: Sequence,
}

/// All unfinished sequences and the cache that they share.
pub struct Scheduler {
    kv: KvManager,
    limits: StepLimits,
    waiting: BTreeMap<TaskId, Task>,
    /// By arrival.
    running: Vec<Running>,
}

impl Scheduler {
    #[must_use]
    pub fn new(kv: KvManager, limits: StepLimits) -> Self {
        Self { kv, limits, waiting: BTreeMap::new(), running: Vec::with_capacity(limits.rows) }
    }

    /// Lets a task wait for its turn. The caller has checked with [`KvManager::fits_ever`] that all it will ever hold
    /// fits the pool in steps of `limits.tokens`, and that its salt is short enough.
    pub fn add(&mut self, task: Task) {
        self.waiting.insert(task.id, task);
    }

    /// Ends a task at whatever stage; false if it is not there. With `discard` its blocks are forgotten instead of
    /// cached: their content is not to be trusted.
    pub fn remove(&mut self, id: TaskId, discard: bool) -> bool {
        let Some(at) = self.find(id) else { return self.waiting.remove(&id).is_some() };
        let running = self.running.remove(at);
        if discard {
            self.kv.discard(running.cache);
        } else {
            self.kv.release(running.cache);
        }
        true
    }

    /// Plans the next step and reserves its blocks. Each planned row must be committed, rolled back or removed before
    /// the next plan.
    pub fn plan(&mut self, plan: &mut StepPlan) {
        plan.clear();
        self.plan_running(plan, |pending| pending == 1);
        self.plan_running(plan, |pending| pending > 1);
        // Whoever was just preempted must not take the freed blocks at once.
        if plan.preempted.is_empty() {
            self.admit(plan);
        }
    }

    /// The row's tokens are in the cache.
    ///
    /// # Errors
    /// `Internal` when the row was not reserved by the last plan.
    pub fn commit(&mut self, row: &PlannedRow) -> Result<()> {
        let Some(at) = self.find(row.task) else { return Ok(()) };
        let Running { task, cache } = &self.running[at];
        self.kv.commit(cache, &task.tokens[row.context..row.context + row.len])
    }

    /// The row was not computed.
    pub fn roll_back(&mut self, row: &PlannedRow) {
        if let Some(at) = self.find(row.task) {
            self.kv.truncate(&self.running[at].cache, 0);
        }
    }

    /// Appends a sampled token to a running task.
    pub fn push(&mut self, id: TaskId, token: u32) {
        if let Some(at) = self.find(id) {
            self.running[at].task.tokens.push(token);
        }
    }

    /// Sets from which position on a running task's logits are wanted.
    pub fn want_logits_from(&mut self, id: TaskId, position: usize) {
        if let Some(at) = self.find(id) {
            self.running[at].task.logits_from = position;
        }
    }

    /// The tokens of a planned row.
    #[must_use]
    pub fn tokens(&self, row: &PlannedRow) -> &[u32] {
        let running = &self.running[self.find(row.task).expect("planned rows are running")];
        &running.task.tokens[row.context..row.context + row.len]
    }

    /// The block table of a planned row in `group`.
    #[must_use]
    pub fn table(&self, row: &PlannedRow, group: usize) -> &[u32] {
        let running = &self.running[self.find(row.task).expect("planned rows are running")];
        self.kv.table(&running.cache, group)
    }

    /// Sequences without blocks.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sequences with blocks.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// The cache, to look at.
    #[must_use]
    pub fn kv(&self) -> &KvManager {
        &self.kv
    }

    fn find(&self, id: TaskId) -> Option<usize> {
        self.running.binary_search_by_key(&id, |r| r.task.id).ok()
    }

    fn plan_running(&mut self, plan: &mut StepPlan, takes: impl Fn(usize) -> bool) {
        let mut at = 0;
        // Preemption takes from the end, so that `at` stays where it is.
        while at < self.running.len() {
            let running = &self.running[at];
            if takes(running.task.tokens.len() - self.kv.len(&running.cache)) {
                self.plan_row(at, plan);
            }
            at += 1;
        }
    }

    fn plan_row(&mut self, at: usize, plan: &mut StepPlan) {
        let Some(row) = self.next_row(&self.running[at], plan) else { return };
        while !self.kv.reserve(&self.running[at].cache, row.len) {
            if at + 1 == self.running.len() {
                return; // The youngest waits for the others to end.
            }
            self.preempt_youngest(plan);
        }
        plan.rows.push(row);
    }

    /// As much of a sequence as the step still has room for.
    fn next_row(&self, running: &Running, plan: &StepPlan) -> Option<PlannedRow> {
        let (task, context) = (&running.task, self.kv.len(&running.cache));
        let pending = task.tokens.len() - context;
        let silent = task.first_logit().saturating_sub(context);
        let room = self.limits.logit_rows.saturating_sub(plan.logits());
        let len = pending.min(self.limits.tokens.saturating_sub(plan.tokens())).min(silent + room);
        let row =
            PlannedRow { task: task.id, context, len, logits: len.saturating_sub(silent), samples: len == pending };
        (len > 0).then_some(row)
    }

    fn preempt_youngest(&mut self, plan: &mut StepPlan) {
        let Running { task, cache } = self.running.pop().expect("the caller has seen a younger sequence");
        self.kv.release(cache);
        plan.rows.retain(|row| row.task != task.id);
        plan.preempted.push(task.id);
        self.waiting.insert(task.id, task);
    }

    fn admit(&mut self, plan: &mut StepPlan) {
        while self.running.len() < self.limits.rows && plan.tokens() < self.limits.tokens {
            let Some((id, task)) = self.waiting.pop_first() else { return };
            if let Err(task) = self.start(task, plan) {
                self.waiting.insert(id, task);
                return;
            }
        }
    }

    /// Starts a task with its first row, or gives it back.
    fn start(&mut self, task: Task, plan: &mut StepPlan) -> Result<(), Task> {
        if self.promised() + self.blocks(task.tokens.len() + 1) > self.kv.available_blocks() {
            return Err(task);
        }
        let Ok(cache) = self.kv.start(&task.tokens, &task.key, task.reuse) else { return Err(task) };
        let running = Running { task, cache };
        match self.next_row(&running, plan).filter(|row| self.kv.reserve(&running.cache, row.len)) {
            Some(row) => {
                plan.rows.push(row);
                plan.admitted.push(row.task);
                let at = self.running.partition_point(|r| r.task.id < row.task);
                self.running.insert(at, running);
                Ok(())
            }
            None => {
                self.kv.release(running.cache);
                Err(running.task)
            }
        }
    }

    /// Blocks that the running sequences are going to take for what they must compute; an estimate that keeps
    /// newcomers from being preempted at once.
    fn promised(&self) -> usize {
        let wanted =
            |r: &Running| self.blocks(r.task.tokens.len() + 1).saturating_sub(self.kv.table(&r.cache, 0).len());
        self.running.iter().map(wanted).sum()
    }

    fn blocks(&self, tokens: usize) -> usize {
        self.kv.blocks_needed(tokens, self.limits.tokens)
    }
}
