//! The executor without threads: requests in, steps, responses out.

use std::collections::VecDeque;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::executor::job::Job;
use crate::executor::ledger::Ledger;
use crate::executor::output::Delta;
use crate::executor::plan::{StepLimits, StepPlan};
use crate::executor::stats::{ExecutorStats, IterationStats};
use crate::executor::step::Step;
use crate::executor::{FinishReason, RequestId, Response};
use crate::runtime::StepTime;

/// Everything that the loop owns.
pub(super) struct Core {
    ledger: Ledger,
    step: Step,
    /// Steps that may be in flight at once.
    depth: usize,
    /// Oldest first.
    flights: VecDeque<Flight>,
    /// Plans whose memory is used again.
    plans: Vec<StepPlan>,
    /// When the last step was collected.
    collected: Instant,
    /// Whether there was nothing to do since the last launch.
    rested: bool,
    stats: ExecutorStats,
}

/// A step that was launched and not collected.
struct Flight {
    plan: StepPlan,
    began: Instant,
    /// Whether there was nothing to do before.
    after_rest: bool,
}

impl Core {
    pub(super) fn new(ledger: Ledger, step: Step, limits: &StepLimits) -> Result<Self> {
        let stats = ExecutorStats { memory_bytes: step.memory_bytes(), ..ExecutorStats::default() };
        let (depth, collected) = (limits.depth, Instant::now());
        let flights = VecDeque::with_capacity(depth);
        // One more than can be in flight.
        let plans = (0..=depth).map(|_| StepPlan::new(limits)).collect::<Result<_>>()?;
        let mut core = Self { ledger, step, depth, flights, plans, collected, rested: true, stats };
        core.refresh_stats();
        Ok(core)
    }

    /// Whether no request is unfinished and nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.ledger.is_empty() && self.flights.is_empty()
    }

    pub(super) fn add(&mut self, job: Job, now: Instant, out: &mut Vec<Response>) {
        self.ledger.add(job, now, out);
    }

    /// Responses whose memory is kept.
    pub(super) fn blanks(&self) -> usize {
        self.ledger.blanks()
    }

    /// Takes memory back that clients have no more use for.
    pub(super) fn recycle(&mut self, blanks: &mut Vec<Delta>) {
        self.ledger.recycle(blanks);
    }

    pub(super) fn cancel(&mut self, id: RequestId, now: Instant, out: &mut Vec<Response>) {
        self.ledger.end(id, FinishReason::Cancelled, now, out);
    }

    pub(super) fn cancel_all(&mut self, now: Instant, out: &mut Vec<Response>) {
        self.ledger.end_all(FinishReason::Cancelled, now, out);
        self.refresh_stats();
    }

    /// Ends what is over time, launches one step if there is something to compute, and collects the oldest step unless
    /// another one can be launched first. `None` when nothing was collected.
    ///
    /// # Errors
    /// The model's: the requests of the step have failed with it, the others go on. After `DeviceLost` every request has
    /// failed, and no step follows.
    pub(super) fn step(&mut self, now: Instant, out: &mut Vec<Response>) -> Result<Option<IterationStats>> {
        self.ledger.expire(now, out);
        let outcome = self.turn(now, out);
        if let Err(error @ Error::DeviceLost { .. }) = &outcome {
            self.plans.extend(self.flights.drain(..).map(|flight| flight.plan));
            self.ledger.fail_all(error, now, out);
        }
        self.refresh_stats();
        self.rested |= self.is_idle();
        Ok(outcome?.map(|(flight, time)| self.count_iteration(flight, time)))
    }

    /// Figures as of now.
    pub(super) fn stats(&self) -> &ExecutorStats {
        &self.stats
    }

    fn turn(&mut self, now: Instant, out: &mut Vec<Response>) -> Result<Option<(Flight, StepTime)>> {
        let launched = self.launch(now, out)?;
        if launched && self.flights.len() < self.depth {
            return Ok(None);
        }
        match self.flights.pop_front() {
            Some(flight) => match self.collect(&flight, out) {
                Ok(time) => Ok(Some((flight, time))),
                Err(error) => {
                    self.plans.push(flight.plan);
                    Err(error)
                }
            },
            None => self.check_idle(now, out).map(|()| None),
        }
    }

    /// Plans a step and launches it; false when there is nothing to compute.
    fn launch(&mut self, now: Instant, out: &mut Vec<Response>) -> Result<bool> {
        let mut plan = self.plans.pop().expect("a plan for each flight and one more");
        self.ledger.scheduler.plan(&mut plan);
        self.ledger.note_plan(&plan, now);
        if plan.rows.is_empty() {
            self.plans.push(plan);
            return Ok(false);
        }
        if let Err(error) = self.step.launch(&mut plan, &self.ledger) {
            let now = Instant::now();
            plan.rows.iter().for_each(|row| self.ledger.fail(row.task.request, error.clone(), now, out));
            self.plans.push(plan);
            return Err(error);
        }
        plan.rows.iter().for_each(|row| self.ledger.scheduler.launch(row));
        let after_rest = std::mem::take(&mut self.rested);
        self.flights.push_back(Flight { plan, began: now, after_rest });
        Ok(true)
    }

    /// Waits for a step, the oldest in flight, and lets its requests go on.
    fn collect(&mut self, flight: &Flight, out: &mut Vec<Response>) -> Result<StepTime> {
        let rows = &flight.plan.rows;
        let outputs = self.step.collect(&flight.plan);
        let now = Instant::now();
        match outputs {
            Ok((time, outputs)) => {
                rows.iter().zip(outputs).for_each(|(row, output)| self.ledger.advance(row, output, now, out));
                Ok(time)
            }
            Err(error) => {
                rows.iter().for_each(|row| self.ledger.fail_row(row, &error, now, out));
                Err(error)
            }
        }
    }

    /// An empty plan while somebody waits and nothing is in flight would stay empty for ever.
    fn check_idle(&mut self, now: Instant, out: &mut Vec<Response>) -> Result<()> {
        if self.is_idle() {
            return Ok(());
        }
        let error = Error::internal("scheduler", "no waiting request can take a step");
        self.ledger.fail_all(&error, now, out);
        Err(error)
    }

    fn count_iteration(&mut self, flight: Flight, time: StepTime) -> IterationStats {
        let Flight { plan, began, after_rest } = flight;
        let stats = &mut self.stats;
        stats.iterations += 1;
        // A step that was launched behind another one begins when that ends.
        let began = began.max(self.collected);
        self.collected = Instant::now();
        stats.last_step = self.collected.saturating_duration_since(began);
        stats.busy += stats.last_step;
        stats.last_step_device = time.device;
        stats.device_busy += time.device;
        if !after_rest {
            stats.device_idle += time.idle;
        }
        stats.batch_tokens = plan.tokens();
        let iteration = IterationStats {
            iteration: stats.iterations,
            rows: plan.rows.len(),
            decode_rows: plan.rows.iter().filter(|row| row.len == 1).count(),
            tokens: stats.batch_tokens,
            admitted: plan.admitted.len(),
            preempted: plan.preempted.len(),
            running: stats.running,
            waiting: stats.waiting,
            kv: stats.kv,
            duration: stats.last_step,
            device: time.device,
        };
        self.plans.push(plan);
        iteration
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

    #[cfg(test)]
    pub(super) fn scheduler(&self) -> &crate::executor::scheduler::Scheduler {
        &self.ledger.scheduler
    }

    /// Checks the cache's bookkeeping.
    #[cfg(test)]
    pub(super) fn verify(&self) {
        assert_eq!(self.plans.len() + self.flights.len(), self.depth + 1, "a plan was lost");
        self.ledger.scheduler.kv().verify().expect("the cache is consistent");
    }
}
