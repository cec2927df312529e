//! Serves many requests at once: queue, scheduler, step loop, delivery, statistics.

mod config;
mod request;
mod response;

pub use config::ExecutorConfig;
pub use request::{Input, Request, RequestId};
pub use response::{FinishReason, RequestStats, Response};
