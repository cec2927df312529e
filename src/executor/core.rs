//! The executor without threads: requests in, steps, responses out.

use std::time::Instant;

use crate::error::{Error, Result};
use crate::executor::job::Job;
use crate::executor::ledger::Ledger;
use crate::executor::scheduler::StepPlan;
use crate::executor::stats::{ExecutorStats, IterationStats};
use crate::executor::step::Step;
use crate::executor::{FinishReason, RequestId, Response};

/// Everything that the loop owns.
pub(super) struct Core {
    ledger: Ledger,
    step: Step,
    plan: StepPlan,
    stats: ExecutorStats,
}

impl Core {
    pub(super) fn new(ledger: Ledger, step: Step) -> Self {
        let stats = ExecutorStats { memory_bytes: step.memory_bytes(), ..ExecutorStats::default() };
        let mut core = Self { ledger, step, plan: StepPlan::default(), stats };
        core.refresh_stats();
        core
    }

    /// Whether no request is unfinished.
    pub(super) fn is_idle(&self) -> bool {
        self.ledger.is_empty()
    }

    pub(super) fn add(&mut self, job: Job, now: Instant, out: &mut Vec<Response>) {
        self.ledger.add(job, now, out);
    }

    pub(super) fn cancel(&mut self, id: RequestId, now: Instant, out: &mut Vec<Response>) {
        self.ledger.end(id, FinishReason::Cancelled, now, out);
    }

    pub(super) fn cancel_all(&mut self, now: Instant, out: &mut Vec<Response>) {
        self.ledger.end_all(FinishReason::Cancelled, now, out);
        self.refresh_stats();
    }

    /// Ends what is over time and computes one step. `None` when there was nothing to compute.
    ///
    /// # Errors
    /// The model's: the requests of the step have failed with it, the others go on.
    pub(super) fn step(&mut self, now: Instant, out: &mut Vec<Response>) -> Result<Option<IterationStats>> {
        self.ledger.expire(now, out);
        self.ledger.scheduler.plan(&mut self.plan);
        self.ledger.note_plan(&self.plan, now);
        let outcome = if self.plan.rows.is_empty() { self.check_idle(now, out) } else { self.compute(out) };
        self.refresh_stats();
        outcome?;
        Ok((!self.plan.rows.is_empty()).then(|| self.count_iteration(now)))
    }

    /// Figures as of now.
    pub(super) fn stats(&self) -> &ExecutorStats {
        &self.stats
    }

    /// An empty plan while somebody waits would stay empty for ever.
    fn check_idle(&mut self, now: Instant, out: &mut Vec<Response>) -> Result<()> {
        if self.is_idle() {
            return Ok(());
        }
        let error = Error::internal("scheduler", "no waiting request can take a step");
        self.ledger.fail_all(&error, now, out);
        Err(error)
    }

    fn compute(&mut self, out: &mut Vec<Response>) -> Result<()> {
        let vocab_size = self.step.vocab_size();
        let logits = match self.step.run(&self.plan, &self.ledger.scheduler) {
            Ok(logits) => logits,
            Err(error) => {
                fail_rows(&mut self.ledger, &self.plan, &error, out);
                return Err(error);
            }
        };
        let (now, mut rest) = (Instant::now(), logits);
        for row in &self.plan.rows {
            let (of_row, others) = rest.split_at(row.logits * vocab_size);
            rest = others;
            self.ledger.advance(row, of_row, now, out);
        }
        Ok(())
    }

    fn count_iteration(&mut self, began: Instant) -> IterationStats {
        let decoding = self.plan.rows.iter().filter(|row| row.len == 1).count();
        let stats = &mut self.stats;
        stats.iterations += 1;
        stats.last_step = began.elapsed();
        stats.busy += stats.last_step;
        stats.batch_tokens = self.plan.tokens();
        IterationStats {
            iteration: stats.iterations,
            rows: self.plan.rows.len(),
            decode_rows: decoding,
            tokens: stats.batch_tokens,
            admitted: self.plan.admitted.len(),
            preempted: self.plan.preempted.len(),
            running: stats.running,
            waiting: stats.waiting,
            kv: stats.kv,
            duration: stats.last_step,
        }
    }

    fn refresh_stats(&mut self) {
        let scheduler = &self.ledger.scheduler;
        let prefix = scheduler.kv().stats();
        let stats = &mut self.stats;
        stats.running = scheduler.running();
        stats.waiting = scheduler.waiting();
        stats.kv = scheduler.kv().usage(0).into();
        stats.prefix_lookup_tokens = prefix.lookup_tokens;
        stats.prefix_hit_tokens = prefix.hit_tokens;
        stats.totals = self.ledger.totals;
    }

    /// Checks the cache's bookkeeping.
    #[cfg(test)]
    pub(super) fn verify(&self) {
        self.ledger.scheduler.kv().verify().expect("the cache is consistent");
    }
}

fn fail_rows(ledger: &mut Ledger, plan: &StepPlan, error: &Error, out: &mut Vec<Response>) {
    let now = Instant::now();
    for row in &plan.rows {
        ledger.scheduler.roll_back(row);
        ledger.fail(row.task.request, error.clone(), now, out);
    }
}
