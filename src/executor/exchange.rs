//! Where clients, the loop and the delivery thread meet: one lock over what is on its way in and out.

use std::collections::VecDeque;
use std::time::Instant;

use super::sync::{Condvar, Mutex, MutexGuard};
use crate::error::{Error, Result};
use crate::executor::job::Job;
use crate::executor::mailbox::{Callback, Mailbox, Receiver};
use crate::executor::mailroom::{Call, Mailroom};
use crate::executor::output::Delta;
use crate::executor::{ExecutorStats, FinishReason, IterationStats, RequestId, Response};
use crate::types::heap;

/// Iterations remembered for [`Exchange::take_iterations`].
const ITERATION_HISTORY: usize = 1024;

/// What clients want of the loop, and memory that they have for it.
pub(super) struct Inbox {
    pub(super) jobs: Vec<Job>,
    pub(super) cancels: Vec<RequestId>,
    /// Of responses that were delivered.
    pub(super) blanks: Vec<Delta>,
    /// Empty, with room for the responses of a step: whoever submits a request sees to that.
    pub(super) responses: Vec<Response>,
}

impl Inbox {
    /// An inbox for the memory of up to `blanks` delivered responses.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn new(blanks: usize) -> Result<Self> {
        let blanks = heap::vector(blanks, "responses")?;
        Ok(Self { jobs: Vec::new(), cancels: Vec::new(), blanks, responses: Vec::new() })
    }

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
    /// The memory of up to `blanks` delivered responses is kept for the loop.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn new(capacity: usize, mailbox_limit: usize, blanks: usize, stats: ExecutorStats) -> Result<Self> {
        let state = State {
            phase: Phase::Open,
            inbox: Inbox::new(blanks)?,
            mail: Mailroom::new(mailbox_limit),
            broken: None,
            fault: None,
            stats,
            iterations: heap::deque(ITERATION_HISTORY, "iterations")?,
        };
        let (work, arrived, calls) = (Condvar::new(), Condvar::new(), Condvar::new());
        Ok(Self { state: Mutex::new(state), work, arrived, calls, capacity })
    }

    /// Hands a job to the loop.
    pub(super) fn submit(&self, job: Job, receiver: Receiver) -> Result<()> {
        let mut state = self.state.lock();
        state.check_open()?;
        if state.mail.len() >= self.capacity {
            let why = format!("{} requests are unfinished or their last response was not taken", self.capacity);
            return Err(Error::QueueFull { what: "executor".into(), why });
        }
        state.accept(job, receiver)?;
        self.work.notify_one();
        Ok(())
    }

    /// Asks the loop to end a request; nothing happens if it has ended.
    ///
    /// # Errors
    /// `OutOfMemory`; the request goes on then.
    pub(super) fn cancel(&self, id: RequestId) -> Result<()> {
        let mut state = self.state.lock();
        heap::reserve(&mut state.inbox.cancels, 1, "cancellation")?;
        if state.mail.cancel(id) {
            state.inbox.cancels.push(id);
            self.work.notify_one();
        }
        Ok(())
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
                Some(id) => state.take_of(id, most)?,
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

    /// Swaps `inbox`, whose lists are empty, for what has come in; waits for something if the loop is `idle`. False when
    /// the loop is to end.
    pub(super) fn next_work(&self, idle: bool, inbox: &mut Inbox) -> bool {
        let mut state = self.state.lock();
        while idle && state.inbox.is_empty() && state.phase == Phase::Open {
            self.work.wait(&mut state);
        }
        std::mem::swap(&mut state.inbox, inbox);
        // The loop has the longer list.
        if inbox.responses.capacity() < state.inbox.responses.capacity() {
            std::mem::swap(&mut state.inbox.responses, &mut inbox.responses);
        }
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
        state.mail.end_all(finish, broken.as_ref());
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
            if let Some(call) = state.next_call() {
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
        self.state.lock().next_call()
    }

    /// Puts a callback back after its call, or gives it up for good when its request is over.
    pub(super) fn return_callback(&self, request: RequestId, callback: Callback) -> Option<Callback> {
        self.state.lock().mail.return_callback(request, callback)
    }

    /// The request's callback failed: it is cancelled, and what it says is dropped.
    pub(super) fn give_up_callback(&self, request: RequestId) {
        // A request that nobody hears may as well run to its end.
        let _ = self.cancel(request);
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
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn iterations(&self) -> Result<Vec<IterationStats>> {
        heap::collect(self.state.lock().iterations.iter().copied(), "iterations")
    }

    /// Iterations since the last call, the latest [`ITERATION_HISTORY`] of them.
    ///
    /// # Errors
    /// `OutOfMemory`; they stay then.
    pub(super) fn take_iterations(&self) -> Result<Vec<IterationStats>> {
        let mut state = self.state.lock();
        let mut taken = heap::vector(state.iterations.len(), "iterations")?;
        taken.extend(state.iterations.drain(..));
        Ok(taken)
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

    /// Opens a mailbox for a job and passes it on, with room for all responses that a step can give.
    fn accept(&mut self, job: Job, receiver: Receiver) -> Result<()> {
        let places = Mailbox::places(job.params.n);
        heap::reserve(&mut self.inbox.responses, self.mail.places() + places, "responses")?;
        heap::reserve(&mut self.inbox.jobs, 1, "requests")?;
        self.mail.open(job.id, receiver, places)?;
        self.inbox.jobs.push(job);
        Ok(())
    }

    /// Keeps what a report says; true if it has responses.
    fn take(&mut self, report: Report) -> bool {
        self.stats = report.stats;
        self.record(report.outcome);
        let speaks = !report.responses.is_empty();
        for response in report.responses.drain(..) {
            self.put(response);
        }
        speaks
    }

    /// Passes a response on. A request that cannot be heard out has ended, and its cancellation is on its way to the loop;
    /// without memory even for that it runs to its end unheard.
    fn put(&mut self, response: Response) {
        let id = response.request;
        if self.mail.put(response).is_err() && heap::reserve(&mut self.inbox.cancels, 1, "cancellation").is_ok() {
            self.inbox.cancels.push(id);
        }
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

    /// Responses of one request, maybe none.
    fn take_of(&mut self, id: RequestId, most: usize) -> Result<Vec<Response>> {
        self.mail.take_of(id, most, &mut self.inbox.blanks)
    }

    fn next_call(&mut self) -> Option<Call> {
        self.mail.next_call(&mut self.inbox.blanks)
    }

    /// Responses of any request, maybe none; an error once nothing more will come.
    fn take_any(&mut self, most: usize) -> Result<Vec<Response>> {
        let responses = self.mail.take_any(most, &mut self.inbox.blanks)?;
        if responses.is_empty() && self.phase == Phase::Closed {
            self.check_open()?;
        }
        Ok(responses)
    }
}
