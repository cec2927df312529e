//! What a plan needs in bytes, worked out before anything is allocated.

use crate::engine::{Limits, Plan};
use crate::error::{Error, Result};
use crate::types::heap;

/// Alignment of workspace slots: a cache line, and a full vector on every instruction set.
const SLOT_ALIGNMENT: usize = 64;

/// Bytes by purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    pub weights: usize,
    /// Offset of each slot in the workspace.
    pub slot_offsets: Vec<usize>,
    /// Size of each slot.
    pub slot_bytes: Vec<usize>,
    pub workspace: usize,
    /// Bytes of each KV group's pool.
    pub cache: Vec<usize>,
}

impl MemoryPlan {
    /// Sizes of everything `plan` needs under `limits`.
    ///
    /// # Errors
    /// `RequestTooLarge` when a size does not fit the address space; `OutOfMemory`.
    pub fn new(plan: &Plan, limits: &Limits) -> Result<Self> {
        let too_large = || Error::RequestTooLarge {
            what: "executor limits".into(),
            why: format!("{} tokens, {} KV blocks overflow the address space", limits.tokens, limits.kv_blocks),
        };
        let mut slot_offsets = heap::vector(plan.slots.len(), "memory plan")?;
        let mut slot_bytes = heap::vector(plan.slots.len(), "memory plan")?;
        let mut workspace = 0usize;
        for slot in &plan.slots {
            let tokens = slot.bytes_per_token.checked_mul(limits.tokens);
            let logits = slot.bytes_per_logit_row.checked_mul(limits.logit_rows);
            let bytes = tokens.zip(logits).map(|(a, b)| a.max(b)).ok_or_else(too_large)?;
            let padded = bytes.checked_next_multiple_of(SLOT_ALIGNMENT).ok_or_else(too_large)?;
            slot_offsets.push(workspace);
            slot_bytes.push(bytes);
            workspace = workspace.checked_add(padded).ok_or_else(too_large)?;
        }
        let cache = plan
            .kv_groups
            .iter()
            .map(|group| group.block_bytes().checked_mul(limits.kv_blocks).ok_or_else(too_large))
            .collect::<Result<_>>()?;
        let weights = plan.weights.iter().try_fold(0u64, |sum, w| sum.checked_add(w.bytes));
        let weights = weights.and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(too_large)?;
        Ok(Self { weights, slot_offsets, slot_bytes, workspace, cache })
    }

    /// Everything together; saturates.
    #[must_use]
    pub fn total(&self) -> usize {
        self.cache.iter().fold(self.weights.saturating_add(self.workspace), |sum, bytes| sum.saturating_add(*bytes))
    }
}
