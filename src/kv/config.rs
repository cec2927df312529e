//! What the room is told and what it tells: shapes, keys and figures.

use crate::error::{Error, Result};

/// Longest accepted [`PrefixKey::salt`].
pub const MAX_SALT_BYTES: usize = 256;

/// One KV group of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSpec {
    /// Tokens that attention sees, the querying one included; `None` is the whole context.
    pub window: Option<usize>,
}

/// The shape of the cache; fixed for the life of a manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvConfig {
    /// Tokens of one block.
    pub block_tokens: usize,
    /// Blocks in each group's pool.
    pub blocks: usize,
    pub groups: Vec<GroupSpec>,
    /// Whether any sequence may share blocks with others.
    pub prefix_reuse: bool,
    /// Tokens for which a sequence's tables are allocated up front; a longer sequence grows its tables.
    pub sequence_tokens: usize,
    /// Sequences that live at once, for which tables are allocated up front; more take theirs when they start.
    pub sequences: usize,
}

impl KvConfig {
    /// Rejects shapes that cannot hold a single token.
    pub(super) fn check(&self) -> Result<()> {
        if self.block_tokens == 0 {
            return Err(Error::argument("block_tokens", "must be at least 1"));
        }
        if self.blocks == 0 || u32::try_from(self.blocks).is_err() {
            return Err(Error::argument("blocks", format!("{} is not in 1..=2^32-1", self.blocks)));
        }
        if self.groups.is_empty() {
            return Err(Error::argument("groups", "a cache has at least one KV group"));
        }
        if self.groups.iter().any(|group| group.window == Some(0)) {
            return Err(Error::argument("window", "must be at least 1"));
        }
        Ok(())
    }

    /// Blocks that hold `tokens` tokens.
    pub(super) fn blocks_of(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_tokens)
    }

    /// The first block of `group` that a sequence of `len` tokens still needs for its next token.
    pub(super) fn first_needed(&self, group: usize, len: usize) -> usize {
        match self.groups[group].window {
            None => 0,
            Some(window) => (len + 1).saturating_sub(window) / self.block_tokens,
        }
    }

    /// Most blocks of any one pool that a sequence of `tokens` tokens holds when it reserves at most `step` at a time.
    pub(super) fn blocks_needed(&self, tokens: usize, step: usize) -> usize {
        let whole = self.blocks_of(tokens);
        let of_group = |group: &GroupSpec| match group.window {
            None => whole,
            // `window - 1` old tokens and the step's own, at the worst alignment.
            Some(window) => whole.min(self.blocks_of((window - 1).saturating_add(step).saturating_sub(1)) + 1),
        };
        self.groups.iter().map(of_group).max().unwrap_or(whole)
    }
}

/// What besides the tokens decides a block's content (`adapter`) and who may share it (`salt`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PrefixKey {
    /// The adapter the sequence runs with; 0 for none.
    pub adapter: u64,
    /// Sequences share blocks only under equal salts; at most [`MAX_SALT_BYTES`].
    pub salt: Vec<u8>,
}

/// How the blocks of one pool are used; the three sum to the pool's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Blocks that hold nothing.
    pub free: usize,
    /// Blocks that wait for a prefix hit and are evicted when room is needed.
    pub cached: usize,
    /// Blocks that live sequences need, shared ones counted once.
    pub used: usize,
}

/// Counters since the manager was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KvStats {
    /// Sequences started with reuse.
    pub lookups: u64,
    /// Tokens those sequences started with.
    pub lookup_tokens: u64,
    /// Tokens of these that were found in the cache.
    pub hit_tokens: u64,
    /// Cached blocks, of any group, given up for room.
    pub evicted_blocks: u64,
}
