//! Plays a script: clients, loop and delivery take turns on one thread and by a clock of its own, so that a seed always
//! gives the same trace.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::coverage::Coverage;
use super::owners::Auditor;
use super::script::{Cancel, Habit, Order, Script};
use super::verdict::Hearing;
use crate::error::Status;
use crate::executor::core::Core;
use crate::executor::exchange::{Exchange, Inbox, Report};
use crate::executor::fake::id;
use crate::executor::intake::Intake;
use crate::executor::mailbox::{Callback, Receiver};
use crate::executor::threads::{deliver, iterate, say_farewell};
use crate::executor::{RequestId, Response};

/// More steps than any of these traces needs; what hangs reaches it.
const MANY_STEPS: usize = 2000;
/// Steps for which a client repeats what the full queue refuses.
const PATIENCE: usize = 20;

/// The parts of an executor, its clients, and what came of them so far.
pub(super) struct Stage<'a> {
    pub(super) core: Core,
    pub(super) intake: &'a Intake,
    pub(super) exchange: Exchange,
    pub(super) auditor: Auditor,
    pub(super) coverage: &'a mut Coverage,
}

/// A request that was accepted.
struct Live {
    hearing: Hearing,
    habit: Habit,
    cancel: Option<Cancel>,
    submitted: usize,
    /// What its callback was called with.
    called: Arc<Mutex<Vec<Response>>>,
}

/// Responses whose memory comes back to the loop: fewer than there are, so that some is new.
pub(super) const BLANKS: usize = 8;

pub(super) struct Play<'a> {
    stage: Stage<'a>,
    script: &'a Script,
    /// Orders that were neither accepted nor given up, with their client's habit.
    pending: Vec<(Habit, &'a Order)>,
    lives: Vec<Live>,
    inbox: Inbox,
    start: Instant,
    step: usize,
    closed: bool,
}

impl<'a> Play<'a> {
    pub(super) fn new(stage: Stage<'a>, script: &'a Script) -> Self {
        let orders = |client: &'a super::script::Client| client.orders.iter().map(|order| (client.habit, order));
        let mut pending: Vec<_> = script.clients.iter().flat_map(orders).collect();
        pending.sort_by_key(|(_, order)| order.at);
        Self {
            stage,
            script,
            pending,
            lives: Vec::new(),
            inbox: Inbox::new(BLANKS).expect("memory"),
            start: Instant::now(),
            step: 0,
            closed: false,
        }
    }

    /// Plays to the end; what every request said follows.
    pub(super) fn run(mut self) -> Vec<Hearing> {
        while !self.pending.is_empty() || self.computes() || self.waits_for_shutdown() {
            self.turn();
            self.step += 1;
            assert!(self.step < MANY_STEPS, "hang: {}", self.stage.core.stats().to_json());
        }
        self.hear_out();
        self.lives.into_iter().map(|live| live.hearing).collect()
    }

    fn computes(&self) -> bool {
        !self.closed && !self.stage.core.is_idle()
    }

    fn waits_for_shutdown(&self) -> bool {
        !self.closed && self.script.shutdown_at.is_some_and(|at| at >= self.step)
    }

    /// A millisecond for each step.
    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.step as u64)
    }

    fn turn(&mut self) {
        self.submit();
        self.cancel();
        if self.script.shutdown_at == Some(self.step) {
            self.stage.exchange.stop();
        }
        if !self.closed {
            self.compute();
        }
        self.deliver();
        self.listen();
    }

    /// Submits what is due; the full queue is tried again for a while.
    fn submit(&mut self) {
        let (due, later) = std::mem::take(&mut self.pending).into_iter().partition(|(_, order)| order.at <= self.step);
        self.pending = later;
        for (habit, order) in due {
            match self.accept(habit, order) {
                Ok(live) => self.lives.push(live),
                Err(Status::QueueFull) if self.step < order.at + PATIENCE => self.pending.push((habit, order)),
                Err(status) => self.stage.coverage.note(refusal(status)),
            }
        }
    }

    fn accept(&mut self, habit: Habit, order: &'a Order) -> Result<Live, Status> {
        let Stage { intake, exchange, coverage, .. } = &mut self.stage;
        let id = id(self.lives.len());
        let now = self.start + Duration::from_millis(self.step as u64);
        let job = intake.accept(id, order.request.clone(), now).map_err(|error| error.status())?;
        let called = Arc::default();
        let hearing = Hearing::new(&job, &order.request, matches!(habit, Habit::Fails { .. }));
        exchange.submit(job, receiver(habit, &called)).map_err(|error| {
            coverage.add("submissions that the full queue refused", u64::from(error.status() == Status::QueueFull));
            error.status()
        })?;
        Ok(Live { hearing, habit, cancel: order.cancel, submitted: self.step, called })
    }

    fn cancel(&mut self) {
        for at in 0..self.lives.len() {
            let Live { hearing, cancel, submitted, .. } = &mut self.lives[at];
            let age = self.step - *submitted;
            let due = match *cancel {
                None => false,
                Some(Cancel::Steps(steps)) => age >= steps,
                Some(Cancel::Tokens(tokens)) => hearing.tokens() >= tokens,
                Some(Cancel::End) => hearing.is_over(),
            };
            if due {
                *cancel = None;
                self.stage.coverage.note(stage_of(&self.stage.core, hearing, age));
                hearing.may_be_cut = true;
                self.stage.exchange.cancel(hearing.id).expect("memory");
            }
        }
    }

    /// One turn of the loop, and an audit.
    fn compute(&mut self) {
        let now = self.now();
        let Stage { core, exchange, auditor, coverage, .. } = &mut self.stage;
        let open = exchange.next_work(false, &mut self.inbox);
        if open {
            let outcome = iterate(core, &mut self.inbox, now);
            let iteration = outcome.expect("the model has no faults");
            if let Some(iteration) = &iteration {
                coverage.note("steps");
                coverage.add("preemptions", iteration.preempted as u64);
                coverage.add("rows that join others", iteration.rows.saturating_sub(1) as u64);
            }
            let report = Report { responses: &mut self.inbox.responses, stats: *core.stats(), outcome: Ok(iteration) };
            exchange.publish(report);
        } else {
            let unfinished = exchange.stats().requests;
            coverage.add("requests at a shutdown", unfinished as u64);
            self.lives.iter_mut().for_each(|live| live.hearing.may_be_cut = true);
            say_farewell(exchange, core, &mut self.inbox, now);
            self.closed = true;
        }
        auditor.check(core, coverage);
    }

    /// The delivery thread's turn.
    fn deliver(&mut self) {
        while let Some(call) = self.stage.exchange.poll_call() {
            deliver(&self.stage.exchange, call);
        }
        for live in &mut self.lives {
            let said = std::mem::take(&mut *live.called.lock());
            said.into_iter().for_each(|response| live.hearing.hear(response));
        }
    }

    /// Each client takes what it likes to take now.
    fn listen(&mut self) {
        for at in 0..self.lives.len() {
            let Live { hearing, habit, submitted, .. } = &self.lives[at];
            let (id, age) = (hearing.id, self.step - submitted);
            match *habit {
                _ if hearing.is_over() => {}
                Habit::One { every, most } if age.is_multiple_of(every) => self.receive(Some(id), most),
                Habit::Late { after } if age >= after => self.receive(Some(id), usize::MAX),
                Habit::Any { every, most } if age.is_multiple_of(every) => self.receive(None, most),
                _ => {}
            }
        }
    }

    /// Takes up to `most` responses without waiting.
    fn receive(&mut self, filter: Option<RequestId>, most: usize) {
        match self.stage.exchange.receive(filter, Some(self.start), most) {
            Ok(responses) => {
                assert!((1..=most).contains(&responses.len()));
                for response in responses {
                    let of = |live: &&mut Live| live.hearing.id == response.request;
                    let live = self.lives.iter_mut().find(of).expect("somebody submitted it");
                    live.hearing.hear(response);
                }
            }
            Err(error) => {
                let expected = error.status() == Status::Timeout
                    || self.closed && filter.is_none() && error.status() == Status::ShuttingDown;
                assert!(expected, "{error}");
            }
        }
    }

    /// Everything is over: whoever has not listened does, and nothing is left.
    fn hear_out(&mut self) {
        self.deliver();
        for at in 0..self.lives.len() {
            let called = matches!(self.lives[at].habit, Habit::Callback | Habit::Fails { .. });
            while !called && !self.lives[at].hearing.is_over() {
                let (id, before) = (self.lives[at].hearing.id, self.lives[at].hearing.responses.len());
                self.receive(Some(id), 3);
                assert!(self.lives[at].hearing.responses.len() > before, "{id:?} never ends");
            }
        }
        let Stage { core, exchange, coverage, .. } = &mut self.stage;
        for live in &self.lives {
            let gone = exchange.receive(Some(live.hearing.id), Some(self.start), 1).map_err(|error| error.status());
            assert_eq!(gone, Err(Status::NotFound));
        }
        let (stats, kv) = (exchange.stats(), core.scheduler().kv());
        assert_eq!((stats.requests, stats.running, stats.waiting, kv.sequences()), (0, 0, 0, 0));
        coverage.add("prefix hits in tokens", kv.stats().hit_tokens);
        coverage.add("evicted blocks", kv.stats().evicted_blocks);
    }
}

/// How a client's responses reach it.
fn receiver(habit: Habit, called: &Arc<Mutex<Vec<Response>>>) -> Receiver {
    let (called, mut calls) = (called.clone(), 0);
    let callback: Callback = match habit {
        Habit::Callback => Box::new(move |response| called.lock().push(response)),
        Habit::Fails { at } => Box::new(move |response| {
            calls += 1;
            if calls == at {
                // A panic that no hook reports.
                resume_unwind(Box::new("a client's bug"));
            }
            called.lock().push(response);
        }),
        _ => return Receiver::Pull,
    };
    Receiver::Callback(Some(callback))
}

fn refusal(status: Status) -> &'static str {
    match status {
        Status::QueueFull => "orders given up because the queue stayed full",
        Status::RequestTooLarge => "orders refused as too large",
        Status::ShuttingDown => "orders refused after a shutdown",
        status => panic!("{status:?}"),
    }
}

/// How far a request is that is cancelled `age` steps after its submission.
fn stage_of(core: &Core, hearing: &Hearing, age: usize) -> &'static str {
    let tasks = || core.scheduler().tasks().filter(|(task, _)| task.id.request == hearing.id);
    let speaks = tasks().any(|(task, _)| task.tokens.len() > hearing.prompt.len());
    let runs = tasks().any(|(_, sequence)| sequence.is_some());
    match (tasks().next().is_some(), runs, speaks) {
        (false, ..) if hearing.is_over() => "cancels after the end",
        (false, ..) if age == 0 => "cancels in the inbox",
        (false, ..) => "cancels of what has ended and was not heard",
        (true, false, false) => "cancels while waiting",
        (true, false, true) => "cancels while preempted",
        (true, true, false) => "cancels in the prompt",
        (true, true, true) => "cancels in the output",
    }
}
