//! From an engine to a running executor: device, memory plan, session, tokenizer, template.

use std::sync::Arc;

use super::{Executor, ExecutorConfig, ExecutorParts};
use crate::engine::{BLOCK_TOKENS, Engine, Limits};
use crate::error::{Error, Result};
use crate::kv::GroupSpec;
use crate::runtime::{DeviceOptions, OpenDevice};
use crate::text::{ChatTemplate, Tokenizer};

/// Most tokens and rows of a step: bounds every product below.
const MAX_STEP: usize = 1 << 20;
/// Cache bytes without a budget and without `kv_tokens`, unless less serves `max_batch_size` whole sequences.
const DEFAULT_CACHE_BYTES: usize = 4 << 30;
/// Fixed share of a budget for what is neither weights nor workspace nor cache: threads, queues, responses.
const HOST_BYTES: usize = 16 << 20;
/// A parsed tokenizer takes this many times its JSON (hash maps of vocabulary and merges, both ways).
const TOKENIZER_FACTOR: usize = 12;

impl Executor {
    /// Opens the engine's device, plans and takes all memory, and starts the threads.
    ///
    /// # Errors
    /// `InvalidArgument` naming a limit; `BudgetExceeded` with the figure that would do; `OutOfMemory` with needed and free
    /// bytes; what the device, the tokenizer or the chat template say.
    pub fn load(engine: Arc<Engine>, config: ExecutorConfig) -> Result<Self> {
        check(&config)?;
        let options = DeviceOptions {
            threads: config.threads,
            isa: config.isa.clone(),
            index: config.device,
            refuse_stored_kernels: config.refuse_stored_kernels,
        };
        let device = OpenDevice::new(engine.plan().target, &options)?;
        Self::start(device, engine, config)
    }

    /// As [`Executor::load`] on a device that is open: what the config says about opening one does not matter.
    ///
    /// # Errors
    /// As [`Executor::load`].
    pub fn load_on(device: OpenDevice, engine: Arc<Engine>, config: ExecutorConfig) -> Result<Self> {
        check(&config)?;
        Self::start(device, engine, config)
    }

    fn start(device: OpenDevice, engine: Arc<Engine>, config: ExecutorConfig) -> Result<Self> {
        let plan = engine.plan();
        let host = HOST_BYTES + TOKENIZER_FACTOR * engine.tokenizer_json().map_or(0, <[u8]>::len);
        let limits = Limits {
            tokens: config.max_batch_tokens,
            logit_rows: config.max_batch_size.min(config.max_batch_tokens),
            rows: config.max_batch_size,
            kv_blocks: 0,
        };
        let fixed = device.fixed_bytes(&engine, &limits)?.saturating_add(host);
        let limits = Limits { kv_blocks: kv_blocks(&engine, &config, fixed)?, ..limits };
        let (tokenizer, template) = texts(&engine)?;
        Executor::new(ExecutorParts {
            kv_groups: plan.kv_groups.iter().map(|group| GroupSpec { window: group.window }).collect(),
            block_tokens: BLOCK_TOKENS,
            info: plan.model.clone(),
            tokenizer,
            template,
            model: device.load(Arc::clone(&engine), limits)?,
            config,
        })
    }
}

fn check(config: &ExecutorConfig) -> Result<()> {
    let within = |name: &str, value: usize| match value {
        1..=MAX_STEP => Ok(()),
        _ => Err(Error::argument(name, format!("is {value}, must be from 1 to {MAX_STEP}"))),
    };
    within("max_batch_size", config.max_batch_size)?;
    within("max_batch_tokens", config.max_batch_tokens)?;
    within("max_queue", config.max_queue)?;
    within("max_pending_responses", config.max_pending_responses)?;
    if config.threads > 1024 {
        return Err(Error::argument("threads", format!("is {}, at most 1024 are allowed", config.threads)));
    }
    Ok(())
}

/// Blocks of each pool: as asked for, or what the budget leaves, or enough for a full batch within the default size.
fn kv_blocks(engine: &Engine, config: &ExecutorConfig, fixed: usize) -> Result<usize> {
    let plan = engine.plan();
    let block_bytes: usize = plan.kv_groups.iter().map(|group| group.block_bytes()).sum::<usize>().max(1);
    let sequence = match config.max_sequence_tokens {
        0 => plan.model.max_positions,
        tokens => tokens.min(plan.model.max_positions),
    };
    let full_batch = sequence.saturating_mul(config.max_batch_size).div_ceil(BLOCK_TOKENS);
    let budget = usize::try_from(config.memory_budget).unwrap_or(usize::MAX);
    let left = budget.saturating_sub(fixed) / block_bytes;
    let blocks = match (config.kv_tokens, budget) {
        (0, 0) => full_batch.min((DEFAULT_CACHE_BYTES / block_bytes).max(1)),
        (0, _) => left.min(full_batch).max(1),
        (tokens, _) => tokens.div_ceil(BLOCK_TOKENS),
    };
    if u32::try_from(blocks).is_err() {
        return Err(Error::argument("kv_tokens", format!("{blocks} blocks do not fit a block table")));
    }
    if budget > 0 && blocks > left {
        let needed = fixed.saturating_add(blocks.saturating_mul(block_bytes));
        let why = format!("{needed} bytes are needed ({fixed} beside the KV cache), the budget is {budget}");
        return Err(Error::BudgetExceeded { what: "engine and executor limits".into(), why });
    }
    Ok(blocks)
}

fn texts(engine: &Engine) -> Result<(Option<Tokenizer>, Option<ChatTemplate>)> {
    let Some(json) = engine.tokenizer_json() else { return Ok((None, None)) };
    let tokenizer = Tokenizer::from_json(json, engine.tokenizer_config())?;
    let template = ChatTemplate::find(engine.tokenizer_config(), engine.chat_template())?
        .map(|source| ChatTemplate::new(&source, tokenizer.bos_token(), tokenizer.eos_token()))
        .transpose()?;
    Ok((Some(tokenizer), template))
}
