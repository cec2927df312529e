//! Figures of the executor, of its iterations and of requests, as structs and as JSON.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::executor::FinishReason;
use crate::kv::Usage;

/// Times and counts of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RequestStats {
    pub prompt_tokens: usize,
    /// Prompt tokens whose cache blocks were reused.
    pub cached_tokens: usize,
    /// Generated tokens over all sequences.
    pub generated_tokens: usize,
    pub preemptions: usize,
    /// From submission to the first scheduled step.
    #[serde(serialize_with = "seconds")]
    pub queued: Duration,
    /// From submission to the first token.
    #[serde(serialize_with = "seconds")]
    pub first_token: Duration,
    /// From submission to the end.
    #[serde(serialize_with = "seconds")]
    pub total: Duration,
}

/// Blocks of the KV cache in one group's pool; all groups have equally many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct KvBlocks {
    /// Needed by running sequences; shared ones count once.
    pub used: usize,
    /// Kept for a prefix hit, given up when room is needed.
    pub cached: usize,
    pub free: usize,
}

impl From<Usage> for KvBlocks {
    fn from(usage: Usage) -> Self {
        Self { used: usage.used, cached: usage.cached, free: usage.free }
    }
}

/// Counts since the executor was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// Requests that ended by EOS, stop or length.
    pub completed: u64,
    pub cancelled: u64,
    /// Requests that ran past their time limit.
    pub expired: u64,
    pub failed: u64,
    pub preemptions: u64,
    pub generated_tokens: u64,
}

impl Totals {
    pub(super) fn count(&mut self, finish: FinishReason) {
        match finish {
            FinishReason::Eos | FinishReason::Stop | FinishReason::Length => self.completed += 1,
            FinishReason::Cancelled => self.cancelled += 1,
            FinishReason::TimeLimit => self.expired += 1,
            FinishReason::Error => self.failed += 1,
        }
    }
}

/// The executor as of its last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ExecutorStats {
    pub iterations: u64,
    /// Requests whose last response was not taken or delivered.
    pub requests: usize,
    /// Sequences with cache blocks.
    pub running: usize,
    /// Sequences without.
    pub waiting: usize,
    /// Tokens of the last step.
    pub batch_tokens: usize,
    pub kv: KvBlocks,
    /// Prompt tokens that were looked up in the prefix cache, and those found.
    pub prefix_lookup_tokens: u64,
    pub prefix_hit_tokens: u64,
    #[serde(flatten)]
    pub totals: Totals,
    #[serde(serialize_with = "seconds")]
    pub last_step: Duration,
    /// Time spent in steps.
    #[serde(serialize_with = "seconds")]
    pub busy: Duration,
    /// Of the last step on its device, from its first work to its last.
    #[serde(serialize_with = "seconds")]
    pub last_step_device: Duration,
    /// The same of all steps: what `busy` has beyond it is time of the host that the device did not hide.
    #[serde(serialize_with = "seconds")]
    pub device_busy: Duration,
    /// Time that the device waited for its next step while there were requests.
    #[serde(serialize_with = "seconds")]
    pub device_idle: Duration,
    /// Bytes of weights (mapped or not), workspace, scratch and KV pools; on a GPU with kernels, graphs and page-locked memory.
    pub memory_bytes: u64,
}

/// One iteration of the loop that computed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct IterationStats {
    /// From 1.
    pub iteration: u64,
    /// Sequences that took part.
    pub rows: usize,
    /// Those of them with one token.
    pub decode_rows: usize,
    /// Tokens of all rows.
    pub tokens: usize,
    /// Sequences that began or resumed.
    pub admitted: usize,
    /// Sequences that gave up their blocks.
    pub preempted: usize,
    /// After the step.
    pub running: usize,
    /// After the step.
    pub waiting: usize,
    /// After the step.
    pub kv: KvBlocks,
    #[serde(serialize_with = "seconds")]
    pub duration: Duration,
    /// On the device.
    #[serde(serialize_with = "seconds")]
    pub device: Duration,
}

macro_rules! to_json {
    ($($name:ident),*) => {$(
        impl $name {
            /// One JSON object; times are in seconds.
            #[must_use]
            pub fn to_json(&self) -> String {
                serde_json::to_string(self).expect("plain numbers have a JSON form")
            }
        }
    )*};
}
to_json!(RequestStats, ExecutorStats, IterationStats);

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_flat_and_in_seconds() {
        let stats = ExecutorStats {
            busy: Duration::from_millis(1500),
            totals: Totals { completed: 3, ..Totals::default() },
            ..ExecutorStats::default()
        };
        let json: serde_json::Value = serde_json::from_str(&stats.to_json()).unwrap();
        assert_eq!((&json["busy"], &json["completed"], &json["kv"]["free"]), (&1.5.into(), &3.into(), &0.into()));
    }
}
