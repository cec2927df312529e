//! Where clients, the loop and the delivery thread meet: one lock over what is on its way in and out.

use std::collections::VecDeque;
use std::time::Instant;

use super::sync::{Condvar, Mutex, MutexGuard};
use crate::error::{Error, Result};
use crate::executor::job::Job;
use crate::executor::mailbox::{Callback, Receiver};
use crate::executor::mailroom::{Call, Mailroom};
use crate::executor::{ExecutorStats, FinishReason, IterationStats, RequestId, Response};

/// Iterations remembered for [`Exchange::take_iterations`].
const ITERATION_HISTORY: usize = 1024;

/// What clients want of the loop.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) jobs: Vec<Job>,
    pub(super) cancels: Vec<RequestId>,
}

impl Inbox {
    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.cancels.is_empty()
    }
}

/// What the loop reports after an iteration.
pub(super) struct Report<'a> {
    pub(super) responses: &'a mut Vec<Response>,
    pub(super) stats: ExecutorStats,
    /// What was computed; nothing when there was nothing to compute, or the model's error.
    pub(super) outcome: Result<Option<IterationStats>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// No request is accepted; the loop is told to end.
    Closing,
    /// The loop has ended; every request has its last response.
    Closed,
}

struct State {
    phase: Phase,
    inbox: Inbox,
    mail: Mailroom,
    /// Why the loop ended early.
    broken: Option<Error>,
    /// The last step's error.
    fault: Option<Error>,
    stats: ExecutorStats,
    iterations: VecDeque<IterationStats>,
}

pub(super) struct Exchange {
    state: Mutex<State>,
    /// Wakes the loop.
    work: Condvar,
    /// Wakes those who await responses.
    arrived: Condvar,
    /// Wakes the delivery thread.
    calls: Condvar,
    capacity: usize,
}

impl Exchange {
    /// Accepts up to `capacity` requests whose last response was not taken, with mailboxes of `mailbox_limit` responses.
    pub(super) fn new(capacity: usize, mailbox_limit: usize, stats: ExecutorStats) -> Self {
        let state = State {
            phase: Phase::Open,
            inbox: Inbox::default(),
            mail: Mailroom::new(mailbox_limit),
            broken: None,
            fault: None,
            stats,
            iterations: VecDeque::with_capacity(ITERATION_HISTORY),
        };
        let (work, arrived, calls) = (Condvar::new(), Condvar::new(), Condvar::new());
        Self { state: Mutex::new(state), work, arrived, calls, capacity }
    }

    /// Hands a job to the loop.
    pub(super) fn submit(&self, job: Job, receiver: Receiver) -> Result<()> {
        let mut state = self.state.lock();
        state.check_open()?;
        if state.mail.len() >= self.capacity {
            let why = format!("{} requests are unfinished or their last response was not taken", self.capacity);
            return Err(Error::QueueFull { what: "executor".into(), why });
        }
        state.mail.open(job.id, receiver);
        state.inbox.jobs.push(job);
        self.work.notify_one();
        Ok(())
    }

    /// Asks the loop to end a request; nothing happens if it has ended.
    pub(super) fn cancel(&self, id: RequestId) {
        let mut state = self.state.lock();
        if state.mail.cancel(id) {
            state.inbox.cancels.push(id);
            self.work.notify_one();
        }
    }

    /// Waits for responses of one request or of any; at most `most`.
    pub(super) fn receive(
        &self,
        filter: Option<RequestId>,
        deadline: Option<Instant>,
        most: usize,
    ) -> Result<Vec<Response>> {
        let mut state = self.state.lock();
        let mut late = false;
        loop {
            let responses = match filter {
                Some(id) => state.mail.take_of(id, most)?,
                None => state.take_any(most)?,
            };
            if !responses.is_empty() {
                return Ok(responses);
            }
            if late {
                return Err(Error::Timeout { what: "a response".into(), why: "none came in time".into() });
            }
            match deadline {
                Some(deadline) => late = self.arrived.wait_until(&mut state, deadline).timed_out(),
                None => self.arrived.wait(&mut state),
            }
        }
    }

    /// Swaps `inbox`, which is empty, for what has come in; waits for something if the loop is `idle`. False when the
    /// loop is to end.
    pub(super) fn next_work(&self, idle: bool, inbox: &mut Inbox) -> bool {
        let mut state = self.state.lock();
        while idle && state.inbox.is_empty() && state.phase == Phase::Open {
            self.work.wait(&mut state);
        }
        std::mem::swap(&mut state.inbox, inbox);
        state.phase == Phase::Open
    }

    /// Takes an iteration's results and wakes who waits for them.
    pub(super) fn publish(&self, report: Report) {
        let mut state = self.state.lock();
        if state.take(report) {
            self.wake(state);
        }
    }

    /// The loop ends after this report, with `broken` not as it was told to. Every request that has no last response gets
    /// it; nobody sees that response before the executor says that it is closed.
    pub(super) fn close(&self, report: Option<Report>, broken: Option<Error>) {
        let mut state = self.state.lock();
        if let Some(report) = report {
            state.take(report);
        }
        state.phase = Phase::Closed;
        let finish = if broken.is_some() { FinishReason::Error } else { FinishReason::Cancelled };
        for id in state.mail.unfinished() {
            state.mail.put(Response::ending(id, finish, broken.clone()));
        }
        state.broken = broken;
        self.wake(state);
    }

    /// Tells the loop to end.
    pub(super) fn stop(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
            self.work.notify_one();
        }
    }

    /// Waits for a callback to call. `None` when no more will come.
    pub(super) fn next_call(&self) -> Option<Call> {
        let mut state = self.state.lock();
        loop {
            if let Some(call) = state.mail.next_call() {
                return Some(call);
            }
            if state.phase == Phase::Closed {
                return None;
            }
            self.calls.wait(&mut state);
        }
    }

    /// A callback to call, if there is one now.
    #[cfg(test)]
    pub(super) fn poll_call(&self) -> Option<Call> {
        self.state.lock().mail.next_call()
    }

    /// Puts a callback back after its call, or gives it up for good when its request is over.
    pub(super) fn return_callback(&self, request: RequestId, callback: Callback) -> Option<Callback> {
        self.state.lock().mail.return_callback(request, callback)
    }

    /// The request's callback failed: it is cancelled, and what it says is dropped.
    pub(super) fn give_up_callback(&self, request: RequestId) {
        self.cancel(request);
        self.state.lock().mail.mute(request);
    }

    /// Whether requests are accepted.
    pub(super) fn check_open(&self) -> Result<()> {
        self.state.lock().check_open()
    }

    pub(super) fn health(&self) -> Result<()> {
        let state = self.state.lock();
        state.check_open()?;
        state.fault.clone().map_or(Ok(()), Err)
    }

    pub(super) fn stats(&self) -> ExecutorStats {
        let state = self.state.lock();
        ExecutorStats { requests: state.mail.len(), ..state.stats }
    }

    /// What is remembered of the iterations; it stays remembered.
    pub(super) fn iterations(&self) -> Vec<IterationStats> {
        self.state.lock().iterations.iter().copied().collect()
    }

    /// Iterations since the last call, the latest [`ITERATION_HISTORY`] of them.
    pub(super) fn take_iterations(&self) -> Vec<IterationStats> {
        self.state.lock().iterations.drain(..).collect()
    }

    fn wake(&self, state: MutexGuard<State>) {
        drop(state);
        self.arrived.notify_all();
        self.calls.notify_one();
    }
}

impl State {
    fn check_open(&self) -> Result<()> {
        match (&self.broken, self.phase) {
            (Some(error), _) => Err(error.clone()),
            (None, Phase::Open) => Ok(()),
            (None, _) => Err(Error::ShuttingDown { what: "executor".into(), why: "shutdown was called".into() }),
        }
    }

    /// Keeps what a report says; true if it has responses.
    fn take(&mut self, report: Report) -> bool {
        self.stats = report.stats;
        self.record(report.outcome);
        let speaks = !report.responses.is_empty();
        report.responses.drain(..).for_each(|response| self.mail.put(response));
        speaks
    }

    fn record(&mut self, outcome: Result<Option<IterationStats>>) {
        match outcome {
            Ok(None) => {}
            Ok(Some(iteration)) => {
                self.fault = None;
                if self.iterations.len() == ITERATION_HISTORY {
                    self.iterations.pop_front();
                }
                self.iterations.push_back(iteration);
            }
            Err(error) => self.fault = Some(error),
        }
    }

    /// Responses of any request, maybe none; an error once nothing more will come.
    fn take_any(&mut self, most: usize) -> Result<Vec<Response>> {
        let responses = self.mail.take_any(most)?;
        if responses.is_empty() && self.phase == Phase::Closed {
            self.check_open()?;
        }
        Ok(responses)
    }
}
