//! What an executor needs of a model: packed batches go in, logits and sampled tokens come out, maybe a step later.

use crate::backend::{Batch, StepTime};
use crate::engine::Limits;
use crate::error::Result;

/// Why a row of logits gave no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleFault {
    /// A logit is NaN or +inf.
    NotFinite,
    /// Every logit is -inf, as the model gave them or after the adjustments.
    NothingLeft,
}

/// What one step gave.
#[derive(Debug, Clone, Copy, Default)]
pub struct StepOutput<'a> {
    /// By sample row of the batch: the token or why there is none, which concerns its request alone.
    pub sampled: &'a [Result<u32, SampleFault>],
    /// `[rows, vocab_size]` of the batch's [host rows](Batch::host_rows). A row of NaN comes as it is.
    pub logits: &'a [f32],
    /// The computation alone where the device is the host's processor.
    pub time: StepTime,
}

/// A loaded model with its KV pools. A session runs a real plan; tests put a function in its place.
///
/// Steps take effect in the order of their launches, each as if the one before had ended: a step that was launched later
/// may be given blocks and sample slots that an earlier one still uses. Dropping a model waits for what was launched.
pub trait Forward: Send {
    /// The largest step this model is prepared for.
    fn limits(&self) -> Limits;

    /// Columns of a logit row.
    fn vocab_size(&self) -> usize;

    /// Bytes of weights, workspace, scratch and KV pools.
    fn memory_bytes(&self) -> u64;

    /// Steps that may be launched and not collected: 1, or 2 where the host works one step late.
    fn depth(&self) -> usize {
        1
    }

    /// The most [adjustments](Batch::adjustments) of one step if the device samples; `None` if it only computes logits, so
    /// that a batch has neither feeds nor sample rows.
    fn sampling(&self) -> Option<usize> {
        None
    }

    /// Starts one step: it writes K and V of every token of the batch into the blocks its tables name. The batch may
    /// change once this returns. Steps launched and not collected are fewer than [`depth`](Self::depth); where that is 1
    /// the step may run to its end here.
    ///
    /// # Errors
    /// A batch beyond the limits or with ids or blocks out of range; `DeviceLost`. There is nothing to collect then.
    fn launch(&mut self, batch: &Batch) -> Result<()>;

    /// Waits for the oldest step that was launched and not collected.
    ///
    /// # Errors
    /// The step's: it counts as collected. After `DeviceLost` nothing else works.
    fn collect(&mut self) -> Result<StepOutput<'_>>;

    /// Launches a step and waits for its logits, while nothing else is in flight.
    ///
    /// # Errors
    /// See [`launch`](Self::launch) and [`collect`](Self::collect).
    fn forward(&mut self, batch: &Batch) -> Result<&[f32]> {
        self.launch(batch)?;
        Ok(self.collect()?.logits)
    }
}
