//! The executor as clients see it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::exchange::{Exchange, Inbox};
use super::sync::thread::{self, JoinHandle, ThreadId};
use super::sync::{AtomicU64, Mutex, Ordering};
use super::threads::{run_delivery, run_loop};
use crate::error::{Error, Result};
use crate::executor::intake::Intake;
use crate::executor::mailbox::{Callback, Receiver};
use crate::executor::parts::{ExecutorParts, assemble};
use crate::executor::{ExecutorStats, IterationStats, Request, RequestId, Response};
use crate::types::heap;

/// Serves requests on one model. All methods may be called from any thread, also from callbacks but for
/// [`shutdown`](Self::shutdown). Dropping it shuts it down.
///
/// Every accepted request ends in exactly one response with `last` set, whatever happens to it.
pub struct Executor {
    exchange: Arc<Exchange>,
    intake: Intake,
    next_id: AtomicU64,
    delivery: ThreadId,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Executor {
    /// Starts the loop and the delivery thread.
    ///
    /// # Errors
    /// `InvalidArgument` for limits without room for a single token, `OutOfMemory`, `ThreadFailed`.
    pub fn new(parts: ExecutorParts) -> Result<Self> {
        let capacity = parts.config.max_queue.saturating_add(parts.config.max_batch_size);
        let mailbox_limit = parts.config.max_pending_responses.max(1);
        let (mut core, intake) = assemble(parts)?;
        let blanks = core.blanks();
        let exchange = Arc::new(Exchange::new(capacity, mailbox_limit, blanks, *core.stats())?);
        let inbox = Inbox::new(blanks)?;
        let (of_loop, of_delivery) = (exchange.clone(), exchange.clone());
        let delivery = spawn("trtllm-delivery", move || run_delivery(&of_delivery))?;
        let delivery_id = delivery.thread().id();
        let looping = spawn("trtllm-loop", move || run_loop(&of_loop, &mut core, inbox)).inspect_err(|_| {
            // Lets the delivery thread, which has nothing to do yet, end.
            exchange.close(None, None);
        })?;
        Ok(Self {
            exchange,
            intake,
            next_id: AtomicU64::new(1),
            delivery: delivery_id,
            threads: Mutex::new(vec![looping, delivery]),
        })
    }

    /// Accepts a request whose responses are [awaited](Self::await_responses). Its text is tokenised on this thread.
    ///
    /// # Errors
    /// `InvalidArgument` names the field at fault; `RequestTooLarge` when it can never run here; `QueueFull`;
    /// `InvalidTokenizer` and `InvalidTemplate` as the text says; `ShuttingDown`; what broke the executor.
    pub fn submit(&self, request: Request) -> Result<RequestId> {
        self.enqueue(request, Receiver::Pull)
    }

    /// Accepts a request whose responses go to `callback`, called on the delivery thread alone, maybe before this
    /// returns. The callback is dropped exactly once: after the last response, or before this returns an error. While
    /// it runs, no other callback does; a slow one gets several deltas as one. A panic in it cancels the request.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_with_callback(&self, request: Request, callback: Callback) -> Result<RequestId> {
        self.enqueue(request, Receiver::Callback(Some(callback)))
    }

    /// Asks for the end of a request; its last response follows as for any other. Nothing happens if it has ended.
    ///
    /// # Errors
    /// `NotFound` for an id that this executor never gave; `OutOfMemory`, and the request goes on.
    pub fn cancel(&self, id: RequestId) -> Result<()> {
        if id.0 == 0 || id.0 >= self.next_id.load(Ordering::Relaxed) {
            let why = "this executor never gave that id".to_string();
            return Err(Error::NotFound { what: format!("request {}", id.0), why });
        }
        self.exchange.cancel(id)
    }

    /// Waits until there are responses of `filter`, or of any request without a callback, and takes up to `most`; never
    /// none. Without `timeout` it waits for as long as that takes, for any request also while there is none.
    ///
    /// # Errors
    /// `Timeout`; `NotFound` for an id that was never given or whose last response was taken; `InvalidArgument` for
    /// `most` of 0 or a request with a callback; for any request, once the executor has ended and all is taken,
    /// `ShuttingDown` or what broke it.
    pub fn await_responses(
        &self,
        filter: Option<RequestId>,
        timeout: Option<Duration>,
        most: usize,
    ) -> Result<Vec<Response>> {
        if most == 0 {
            return Err(Error::argument("most", "must be at least 1"));
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.exchange.receive(filter, deadline, most)
    }

    /// Figures as of the last step.
    #[must_use]
    pub fn stats(&self) -> ExecutorStats {
        self.exchange.stats()
    }

    /// The iterations since the last call, oldest first; the latest 1024 are kept.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn take_iteration_stats(&self) -> Result<Vec<IterationStats>> {
        self.exchange.take_iterations()
    }

    /// The latest iterations, oldest first, 1024 at most, as a JSON array; they stay for
    /// [`Executor::take_iteration_stats`].
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn iterations_json(&self) -> Result<String> {
        heap::json(&self.exchange.iterations()?, "iterations")
    }

    /// Whether requests are served.
    ///
    /// # Errors
    /// What broke the executor, the error of the last step, or `ShuttingDown`.
    pub fn health(&self) -> Result<()> {
        self.exchange.health()
    }

    /// Cancels every request and waits until the loop has ended and all callbacks were called. Responses can still be
    /// awaited. Repeating it is fine.
    ///
    /// # Errors
    /// `WouldDeadlock` from a callback; nothing has changed then.
    pub fn shutdown(&self) -> Result<()> {
        if thread::current().id() == self.delivery {
            let why = "a callback runs on the thread that shutdown waits for".to_string();
            return Err(Error::WouldDeadlock { what: "shutdown".into(), why });
        }
        self.exchange.stop();
        let mut threads = self.threads.lock();
        for thread in threads.drain(..) {
            // Both threads catch panics; whatever else ended one has nothing left to tell.
            let _ = thread.join();
        }
        Ok(())
    }

    fn enqueue(&self, request: Request, receiver: Receiver) -> Result<RequestId> {
        self.exchange.check_open()?;
        let id = RequestId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let job = self.intake.accept(id, request, Instant::now())?;
        self.exchange.submit(job, receiver)?;
        Ok(id)
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // A callback that owned the executor cannot wait for its own thread: both threads then end by themselves.
        if self.shutdown().is_err() {
            self.exchange.stop();
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let failed = |e: std::io::Error| Error::ThreadFailed { what: name.into(), why: e.to_string() };
    thread::Builder::new().name(name.into()).spawn(work).map_err(failed)
}
