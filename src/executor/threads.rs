//! What the executor's two threads do: one computes, the other calls the clients' callbacks.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::exchange::{Exchange, Inbox, Report};
use crate::error::{Error, Result};
use crate::executor::IterationStats;
use crate::executor::core::Core;
use crate::executor::mailroom::Call;

/// Computes until told to end. A panic and a lost device end it too; either way no request is left without its last
/// response.
pub(super) fn run_loop(exchange: &Exchange, core: &mut Core, mut inbox: Inbox) {
    while exchange.next_work(core.is_idle(), &mut inbox) {
        let iteration = AssertUnwindSafe(|| iterate(core, &mut inbox, Instant::now()));
        let (outcome, broken) = match catch_unwind(iteration) {
            Ok(Err(error @ Error::DeviceLost { .. })) => (Ok(None), Some(error)),
            Ok(outcome) => (outcome, None),
            Err(payload) => (Ok(None), Some(panic_error("executor loop", payload.as_ref()))),
        };
        let report = Report { responses: &mut inbox.responses, stats: *core.stats(), outcome };
        if broken.is_some() {
            return exchange.close(Some(report), broken);
        }
        exchange.publish(report);
    }
    say_farewell(exchange, core, &mut inbox, Instant::now());
}

/// Ends every request, those that have just come too: the executor was told to end.
pub(super) fn say_farewell(exchange: &Exchange, core: &mut Core, inbox: &mut Inbox, now: Instant) {
    let farewell = AssertUnwindSafe(|| {
        take_in(core, inbox, now);
        core.cancel_all(now, &mut inbox.responses);
    });
    let broken = catch_unwind(farewell).err().map(|payload| panic_error("executor loop", payload.as_ref()));
    let report = Report { responses: &mut inbox.responses, stats: *core.stats(), outcome: Ok(None) };
    exchange.close(Some(report), broken);
}

/// Takes in what has come, and takes one step.
pub(super) fn iterate(core: &mut Core, inbox: &mut Inbox, now: Instant) -> Result<Option<IterationStats>> {
    take_in(core, inbox, now);
    core.step(now, &mut inbox.responses)
}

fn take_in(core: &mut Core, inbox: &mut Inbox, now: Instant) {
    let Inbox { jobs, cancels, blanks, responses } = inbox;
    core.recycle(blanks);
    for job in jobs.drain(..) {
        core.add(job, now, responses);
    }
    for id in cancels.drain(..) {
        core.cancel(id, now, responses);
    }
}

/// Calls callbacks until the loop has ended and everything is delivered.
pub(super) fn run_delivery(exchange: &Exchange) {
    while let Some(call) = exchange.next_call() {
        deliver(exchange, call);
    }
}

/// Calls one callback, and takes care of what becomes of it.
pub(super) fn deliver(exchange: &Exchange, call: Call) {
    let Call { request, mut callback, response } = call;
    let called = catch_unwind(AssertUnwindSafe(|| callback(response)));
    let over = match called {
        Ok(()) => exchange.return_callback(request, callback),
        Err(_) => {
            exchange.give_up_callback(request);
            Some(callback)
        }
    };
    // What a callback owns may panic when it is dropped, or call the executor: no lock is held here. Such a panic
    // concerns nobody else.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(over)));
}

fn panic_error(what: &str, payload: &(dyn Any + Send)) -> Error {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    Error::Panic { what: what.into(), why: text.unwrap_or("no message").into() }
}
