//! What an executor needs of a model: logits for a packed batch.

use crate::backend::Batch;
use crate::engine::Limits;
use crate::error::Result;

/// A loaded model with its KV pools. A session runs a real plan; tests put a function in its place.
pub trait Forward: Send {
    /// The largest step this model is prepared for.
    fn limits(&self) -> Limits;

    /// Columns of a logit row.
    fn vocab_size(&self) -> usize;

    /// Bytes of weights, workspace, scratch and KV pools.
    fn memory_bytes(&self) -> u64;

    /// Runs one step: writes K and V of every token of the batch into the blocks its tables name and returns the logits
    /// of `batch.logit_rows`, `[logit_rows, vocab_size]`. A row of NaN is returned as it is: it concerns its request alone.
    ///
    /// # Errors
    /// A batch beyond the limits or with ids or blocks out of range; nothing was written then.
    fn forward(&mut self, batch: &Batch) -> Result<&[f32]>;
}
