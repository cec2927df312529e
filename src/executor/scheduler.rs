//! Decides who computes what in the next step. Pure: no device, no clock, no thread.
//!
//! A step takes decode rows first, then prefill chunks of running sequences, then admits those that wait, each in order
//! of arrival. When the pool is exhausted the youngest running sequence gives up its blocks and waits again; all that it
//! said is computed once more, from the cache where that still holds it. The oldest running sequence can thus always
//! take a step, so that everything that fits the empty pool ends.
//!
//! A step is planned while the one before may be in flight. Its rows then follow tokens whose values only the device
//! knows. What is given up meanwhile, because a sequence ends or is preempted, can go to the step that is planned next:
//! - Steps take effect in the order of their launches, so that what an abandoned row writes into a block is overwritten
//!   by its new owner before that reads it, and what it reads is still there. The same holds for sample slots.
//! - An abandoned row writes at positions that were not committed, so never into an indexed block; and what it wrote is
//!   never committed, because its sequence is gone or waits. A sequence that waits is admitted again only when nothing
//!   of it is in flight, so that a row that lands on a running sequence was launched for the blocks that it has now.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::executor::plan::{Chooser, PlannedRow, StepLimits, StepPlan};
use crate::executor::task::{Task, TaskId};
use crate::kv::{KvManager, Sequence};
use crate::types::heap;

/// A planned row's sequence.
pub struct RowView<'a> {
    /// The row's tokens as far as the host knows them: all, or all but the last.
    pub tokens: &'a [u32],
    /// Where the device keeps what the sequence samples.
    pub slot: u32,
    cache: &'a Sequence,
}

/// A task with its blocks.
#[derive(Debug)]
struct Running {
    task: Task,
    cache: Sequence,
    slot: u32,
}

/// All unfinished sequences and the cache that they share.
pub struct Scheduler {
    kv: KvManager,
    limits: StepLimits,
    waiting: BTreeMap<TaskId, Task>,
    /// By arrival.
    running: Vec<Running>,
    /// Sample slots that no running sequence has.
    slots: Vec<u32>,
}

impl Scheduler {
    /// # Errors
    /// `OutOfMemory`.
    pub fn new(kv: KvManager, limits: StepLimits) -> Result<Self> {
        let slots = heap::collect((0..limits.rows as u32).rev(), "scheduler")?;
        let running = heap::vector(limits.rows, "scheduler")?;
        Ok(Self { kv, limits, waiting: BTreeMap::new(), running, slots })
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
        self.slots.push(running.slot);
        if discard {
            self.kv.discard(running.cache);
        } else {
            self.kv.release(running.cache);
        }
        true
    }

    /// Plans the next step and reserves its blocks. Each planned row must be [launched](Self::launch) or its task removed
    /// before the next plan.
    pub fn plan(&mut self, plan: &mut StepPlan) {
        plan.clear();
        self.plan_running(plan, |pending| pending == 1);
        self.plan_running(plan, |pending| pending > 1);
        // Whoever was just preempted must not take the freed blocks at once.
        if plan.preempted.is_empty() {
            self.admit(plan);
        }
    }

    /// The row is in flight.
    pub fn launch(&mut self, row: &PlannedRow) {
        if let Some(task) = self.task(row.task) {
            task.launch(row);
        }
    }

    /// The row was collected, in the order of launches. False when its task has ended meanwhile.
    #[must_use]
    pub fn land(&mut self, row: &PlannedRow) -> bool {
        self.task(row.task).map(|task| task.land(row)).is_some()
    }

    /// The tokens of a row that has landed are in the cache; a task that waits again has none.
    ///
    /// # Errors
    /// `Internal` when the row was not reserved.
    pub fn commit(&mut self, row: &PlannedRow) -> Result<()> {
        let Some(at) = self.find(row.task) else { return Ok(()) };
        let Running { task, cache, .. } = &self.running[at];
        self.kv.commit(cache, &task.tokens[row.context..row.context + row.len])
    }

    /// Appends a sampled token to a task.
    pub fn push(&mut self, id: TaskId, token: u32) {
        if let Some(task) = self.task(id) {
            task.tokens.push(token);
        }
    }

    /// Sets from which position on a task's logits are wanted.
    pub fn want_logits_from(&mut self, id: TaskId, position: usize) {
        if let Some(task) = self.task(id) {
            task.logits_from = position;
        }
    }

    /// The sequence of a row of the last plan.
    #[must_use]
    pub fn view(&self, row: &PlannedRow) -> RowView<'_> {
        let Running { task, cache, slot } = &self.running[self.find(row.task).expect("planned rows are running")];
        let known = task.tokens.len().min(row.context + row.len);
        RowView { tokens: &task.tokens[row.context..known], slot: *slot, cache }
    }

    /// The block table of a row in `group`.
    #[must_use]
    pub fn table(&self, row: &RowView, group: usize) -> &[u32] {
        self.kv.table(row.cache, group)
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

    /// All tasks, and what those that run hold of the cache.
    #[cfg(test)]
    pub fn tasks(&self) -> impl Iterator<Item = (&Task, Option<&Sequence>)> {
        let running = self.running.iter().map(|running| (&running.task, Some(&running.cache)));
        running.chain(self.waiting.values().map(|task| (task, None)))
    }

    fn find(&self, id: TaskId) -> Option<usize> {
        self.running.binary_search_by_key(&id, |r| r.task.id).ok()
    }

    fn task(&mut self, id: TaskId) -> Option<&mut Task> {
        match self.find(id) {
            Some(at) => Some(&mut self.running[at].task),
            None => self.waiting.get_mut(&id),
        }
    }

    /// Tokens of a sequence that are in the cache when the steps in flight have ended.
    fn cached(&self, cache: &Sequence) -> usize {
        self.kv.len(cache) + self.kv.reserved(cache)
    }

    fn plan_running(&mut self, plan: &mut StepPlan, takes: impl Fn(usize) -> bool) {
        let mut at = 0;
        // Preemption takes from the end, so that `at` stays where it is.
        while at < self.running.len() {
            let Running { task, cache, .. } = &self.running[at];
            // A row that this plan has already leaves nothing pending.
            if task.can_go_on() && takes(task.len() - self.cached(cache)) {
                self.plan_row(at, plan);
            }
            at += 1;
        }
    }

    fn plan_row(&mut self, at: usize, plan: &mut StepPlan) {
        let Running { task, cache, .. } = &self.running[at];
        let Some(row) = self.next_row(task, cache, plan) else { return };
        while !self.kv.reserve(&self.running[at].cache, row.len) {
            if at + 1 == self.running.len() {
                return; // The youngest waits for the others to end.
            }
            self.preempt_youngest(plan);
        }
        plan.push(row);
    }

    /// As much of a sequence as the step still has room for.
    fn next_row(&self, task: &Task, cache: &Sequence, plan: &StepPlan) -> Option<PlannedRow> {
        let context = self.cached(cache);
        let pending = task.len() - context;
        let silent = task.first_logit().saturating_sub(context);
        let room = self.limits.logit_rows.saturating_sub(plan.logits());
        let len = pending.min(self.limits.tokens.saturating_sub(plan.tokens())).min(silent + room);
        let (logits, samples) = (len.saturating_sub(silent), len == pending);
        let row = PlannedRow { task: task.id, context, len, logits, samples, chooser: Chooser::Host };
        (len > 0).then_some(row)
    }

    fn preempt_youngest(&mut self, plan: &mut StepPlan) {
        let Running { task, cache, slot } = self.running.pop().expect("the caller has seen a younger sequence");
        self.kv.release(cache);
        self.slots.push(slot);
        plan.drop_row(task.id);
        plan.preempted.push(task.id);
        self.waiting.insert(task.id, task);
    }

    fn admit(&mut self, plan: &mut StepPlan) {
        let mut promised = None;
        while self.running.len() < self.limits.rows && plan.tokens() < self.limits.tokens {
            let Some(first) = self.waiting.first_entry().filter(|first| first.get().is_grounded()) else { return };
            let task = first.remove();
            let promises = *promised.get_or_insert_with(|| self.promised());
            match self.start(task, promises, plan) {
                Ok(promise) => promised = Some(promises + promise),
                Err(task) => {
                    self.waiting.insert(task.id, task);
                    return;
                }
            }
        }
    }

    /// Starts a task with its first row and returns the blocks that it is going to take; or gives it back.
    fn start(&mut self, task: Task, promised: usize, plan: &mut StepPlan) -> Result<usize, Task> {
        if promised + self.blocks(task.len() + 1) > self.kv.available_blocks() {
            return Err(task);
        }
        let Ok(cache) = self.kv.start(&task.tokens, &task.key, task.reuse) else { return Err(task) };
        match self.next_row(&task, &cache, plan).filter(|row| self.kv.reserve(&cache, row.len)) {
            Some(row) => {
                plan.push(row);
                plan.admitted.push(row.task);
                let at = self.running.partition_point(|r| r.task.id < row.task);
                let slot = self.slots.pop().expect("there are as many slots as running sequences");
                self.running.insert(at, Running { task, cache, slot });
                Ok(self.promise(&self.running[at]))
            }
            None => {
                self.kv.release(cache);
                Err(task)
            }
        }
    }

    /// Blocks that the running sequences are going to take for what they must compute; an estimate that keeps
    /// newcomers from being preempted at once.
    fn promised(&self) -> usize {
        self.running.iter().map(|running| self.promise(running)).sum()
    }

    fn promise(&self, running: &Running) -> usize {
        self.blocks(running.task.len() + 1).saturating_sub(self.kv.table(&running.cache, 0).len())
    }

    /// Blocks of a sequence at most.
    fn blocks(&self, tokens: usize) -> usize {
        self.kv.blocks_needed(tokens, self.limits.tokens.saturating_mul(self.limits.depth))
    }
}
