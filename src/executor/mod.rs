//! Serves many requests at once: queue, scheduler, step loop, delivery, statistics.

mod config;
mod core;
mod job;
mod ledger;
mod output;
mod request;
mod response;
mod scheduler;
mod stats;
mod step;

pub use config::ExecutorConfig;
pub use request::{Input, Request, RequestId};
pub use response::{FinishReason, Response};
pub use stats::{ExecutorStats, IterationStats, KvBlocks, RequestStats, Totals};
