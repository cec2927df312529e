//! What an executor is made of, and how the parts come together.

use crate::engine::ModelInfo;
use crate::error::{Error, Result};
use crate::executor::ExecutorConfig;
use crate::executor::core::Core;
use crate::executor::intake::Intake;
use crate::executor::job::Voice;
use crate::executor::ledger::Ledger;
use crate::executor::plan::StepLimits;
use crate::executor::scheduler::Scheduler;
use crate::executor::step::Step;
use crate::kv::{GroupSpec, KvConfig, KvManager};
use crate::runtime::Forward;
use crate::text::{ChatTemplate, Tokenizer};

/// A loaded model and what belongs to it. The KV pools are the model's: [`Forward::limits`] tells their blocks.
pub struct ExecutorParts {
    pub model: Box<dyn Forward>,
    /// In the plan's order.
    pub kv_groups: Vec<GroupSpec>,
    /// Tokens of one block.
    pub block_tokens: usize,
    pub info: ModelInfo,
    /// Without one there are token ids only, in and out.
    pub tokenizer: Option<Tokenizer>,
    pub template: Option<ChatTemplate>,
    pub config: ExecutorConfig,
}

/// Responses whose memory is used again, for each row of a step.
const BLANKS_PER_ROW: usize = 16;

/// Puts the parts together. `InvalidArgument` names a limit that leaves no room for a single token; `OutOfMemory`.
pub(super) fn assemble(parts: ExecutorParts) -> Result<(Core, Intake)> {
    let limits = step_limits(&parts)?;
    let sequence_tokens = sequence_tokens(&parts);
    let groups = parts.kv_groups.len();
    let kv = KvManager::new(KvConfig {
        block_tokens: parts.block_tokens,
        blocks: parts.model.limits().kv_blocks,
        groups: parts.kv_groups,
        prefix_reuse: parts.config.prefix_reuse,
        sequence_tokens,
        sequences: limits.rows,
    })?;
    let intake = Intake {
        vocab_size: parts.info.vocab_size,
        sequence_tokens,
        pool_tokens: pool_tokens(&kv, limits.tokens.saturating_mul(limits.depth), sequence_tokens),
        tokenizer: parts.tokenizer.clone(),
        template: parts.template,
    };
    // An id that the model cannot say needs no attention.
    let eos = parts.info.eos_token_ids.into_iter().filter(|id| (*id as usize) < parts.info.vocab_size).collect();
    let voice = Voice { eos, tokenizer: parts.tokenizer };
    let scheduler = Scheduler::new(kv, limits)?;
    let ledger = Ledger::new(scheduler, voice, parts.info.vocab_size, BLANKS_PER_ROW * limits.rows)?;
    let table_blocks = groups * sequence_tokens.div_ceil(parts.block_tokens);
    let step = Step::new(parts.model, groups, &limits, table_blocks)?;
    Ok((Core::new(ledger, step, &limits)?, intake))
}

fn step_limits(parts: &ExecutorParts) -> Result<StepLimits> {
    let (config, model) = (&parts.config, parts.model.limits());
    if parts.model.vocab_size() != parts.info.vocab_size {
        let why = format!("{} columns, vocabulary of {}", parts.model.vocab_size(), parts.info.vocab_size);
        return Err(Error::internal("logits", why));
    }
    let tokens = config.max_batch_tokens.min(model.tokens);
    let rows = config.max_batch_size.min(model.rows).min(model.logit_rows).min(tokens);
    if tokens == 0 {
        return Err(Error::argument("max_batch_tokens", "must be at least 1"));
    }
    if rows == 0 {
        return Err(Error::argument("max_batch_size", "must be at least 1"));
    }
    // Sampling looks back to one token that only the device knows, so that more steps in flight would be of no use.
    let depth = parts.model.depth().clamp(1, 2);
    Ok(StepLimits { rows, tokens, logit_rows: model.logit_rows, depth })
}

fn sequence_tokens(parts: &ExecutorParts) -> usize {
    match parts.config.max_sequence_tokens {
        0 => parts.info.max_positions,
        tokens => tokens.min(parts.info.max_positions),
    }
}

/// The longest sequence that finds room when it is alone, at most `limit`.
fn pool_tokens(kv: &KvManager, step: usize, limit: usize) -> usize {
    let (mut fits, mut beyond) = (0, limit + 1);
    while beyond - fits > 1 {
        let middle = fits + (beyond - fits) / 2;
        if kv.fits_ever(middle, step) { fits = middle } else { beyond = middle }
    }
    fits
}
