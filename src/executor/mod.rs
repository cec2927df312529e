//! Serves many requests at once: queue, scheduler, step loop, delivery, statistics.

mod config;
mod core;
mod exchange;
mod intake;
mod job;
mod ledger;
mod load;
mod mailbox;
mod mailroom;
mod output;
mod parts;
mod plan;
mod request;
mod response;
mod scheduler;
mod service;
mod stats;
mod step;
mod sync;
mod task;
mod threads;

#[cfg(test)]
mod alone;
#[cfg(test)]
mod cases;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod endings;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod flights;
#[cfg(test)]
mod seeded;
#[cfg(test)]
mod shuttled;
#[cfg(test)]
mod traces;

pub use config::ExecutorConfig;
pub use intake::{MAX_INPUT_BYTES, MAX_LOGITS_BYTES};
pub use mailbox::Callback;
pub use parts::ExecutorParts;
pub use request::{Input, Request, RequestId};
pub use response::{FinishReason, Response};
pub use service::Executor;
pub use stats::{ExecutorStats, IterationStats, KvBlocks, RequestStats, Totals};
