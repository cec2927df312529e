//! The face of the room.

use std::hash::{BuildHasher, RandomState};

use super::cache::Cache;
use super::config::{KvConfig, KvStats, MAX_SALT_BYTES, PrefixKey, Usage};
use super::sequence::{Sequence, State};
use super::verify;
use crate::error::{Error, Result};
use crate::types::heap;

/// Owns the block tables of all live sequences and the cache of prefixes. `S` hashes blocks of tokens; keyed at random
/// by default, so that no prompt can be made to collide.
///
/// The life of a sequence: [`start`](Self::start), then [`reserve`](Self::reserve), compute, [`commit`](Self::commit)
/// in turn, at times [`truncate`](Self::truncate), and at last [`release`](Self::release). None of this allocates heap
/// memory, but for a salt that is new, while there are no more sequences than `sequences` and all stay within
/// `sequence_tokens`.
pub struct KvManager<S = RandomState> {
    pub(super) cache: Cache<S>,
    pub(super) sequences: Vec<State>,
    idle: Vec<u32>,
    stats: KvStats,
}

impl KvManager {
    /// An empty cache. `InvalidArgument` names a field that cannot be; `OutOfMemory`.
    pub fn new(config: KvConfig) -> Result<Self> {
        Self::with_hasher(config, RandomState::new())
    }
}

impl<S: BuildHasher> KvManager<S> {
    /// As [`KvManager::new`] with a given hash of token blocks. Its quality is a matter of speed, never of correctness.
    pub fn with_hasher(config: KvConfig, hasher: S) -> Result<Self> {
        config.check()?;
        let sequences = config.sequences;
        let cache = Cache::new(config, hasher)?;
        let mut manager = KvManager {
            cache,
            sequences: heap::vector(sequences, "block tables")?,
            idle: heap::vector(sequences, "block tables")?,
            stats: KvStats::default(),
        };
        for slot in (0..sequences as u32).rev() {
            manager.add_slot()?;
            manager.idle.push(slot);
        }
        Ok(manager)
    }

    /// Starts a sequence that is going to hold `tokens`. Its [`len`](Self::len) tells how many of them were found in
    /// the cache, whole blocks and never all: at least one is left to compute. Without `reuse` the sequence neither
    /// takes from the cache nor gives to it. `InvalidArgument` for no tokens or a salt that is too long.
    pub fn start(&mut self, tokens: &[u32], key: &PrefixKey, reuse: bool) -> Result<Sequence> {
        if tokens.is_empty() {
            return Err(Error::argument("tokens", "a sequence starts with at least one token"));
        }
        if key.salt.len() > MAX_SALT_BYTES {
            return Err(Error::argument("salt", format!("{} bytes, at most {MAX_SALT_BYTES}", key.salt.len())));
        }
        let slot = self.idle_slot()?;
        let state = &mut self.sequences[slot as usize];
        state.live = true;
        if reuse && self.cache.config.prefix_reuse {
            state.attach(&mut self.cache, tokens, key);
            self.stats.lookups += 1;
            self.stats.lookup_tokens += tokens.len() as u64;
            self.stats.hit_tokens += state.len as u64;
        }
        Ok(Sequence(slot))
    }

    /// Makes room for `more` tokens in every group, and evicts for it what was used least recently; or takes nothing and
    /// returns false, because live sequences hold too much. Either way blocks that left a window are given up.
    /// Reservations add up; several may be outstanding.
    #[must_use]
    pub fn reserve(&mut self, sequence: &Sequence, more: usize) -> bool {
        self.sequences[sequence.0 as usize].grow(&mut self.cache, more)
    }

    /// The next reserved tokens are these and their cache content is valid. Full blocks become available to others; a
    /// block that another sequence computed before is exchanged for that one, so a table may change in entries before
    /// `len`. `Internal` if more tokens are committed than reserved.
    pub fn commit(&mut self, sequence: &Sequence, tokens: &[u32]) -> Result<()> {
        let state = &mut self.sequences[sequence.0 as usize];
        if tokens.len() > state.reserved {
            let why = format!("{} tokens committed, {} reserved", tokens.len(), state.reserved);
            return Err(Error::internal("kv cache", why));
        }
        state.advance(&mut self.cache, tokens);
        Ok(())
    }

    /// Gives up outstanding reservations and the last `drop` tokens. Returns the new [`len`](Self::len). It is smaller
    /// than asked for when the block that would be written next is shared (the boundary before it), or when tokens of
    /// before the last reservation are dropped and the window before them is gone (0): the tokens between must be
    /// reserved, computed and committed again.
    pub fn truncate(&mut self, sequence: &Sequence, drop: usize) -> usize {
        let state = &mut self.sequences[sequence.0 as usize];
        let len = state.len.saturating_sub(drop);
        state.cut(&mut self.cache, len);
        state.len
    }

    /// Ends a sequence. Its full blocks stay cached for others, or for itself after a preemption.
    pub fn release(&mut self, sequence: Sequence) {
        self.end(sequence, false);
    }

    /// Ends a sequence whose content is not to be trusted: its blocks are forgotten but for those that others need.
    pub fn discard(&mut self, sequence: Sequence) {
        self.end(sequence, true);
    }

    /// The block table of `group`: it covers `len` and all reserved tokens; entries that left the window are any id.
    #[must_use]
    pub fn table(&self, sequence: &Sequence, group: usize) -> &[u32] {
        &self.sequences[sequence.0 as usize].tables[group]
    }

    /// Tokens of the sequence whose cache content is valid.
    #[must_use]
    pub fn len(&self, sequence: &Sequence) -> usize {
        self.sequences[sequence.0 as usize].len
    }

    /// Tokens after `len` for which there is room.
    #[must_use]
    pub fn reserved(&self, sequence: &Sequence) -> usize {
        self.sequences[sequence.0 as usize].reserved
    }

    /// Most blocks of any one group that a sequence of `tokens` tokens holds when at most `step` of them are reserved
    /// and not yet committed at any time.
    #[must_use]
    pub fn blocks_needed(&self, tokens: usize, step: usize) -> usize {
        self.cache.config.blocks_needed(tokens, step)
    }

    /// Whether such a sequence finds room when it is alone.
    #[must_use]
    pub fn fits_ever(&self, tokens: usize, step: usize) -> bool {
        self.blocks_needed(tokens, step) <= self.cache.config.blocks
    }

    /// Blocks that every group can give without taking one from a sequence: free and cached ones.
    #[must_use]
    pub fn available_blocks(&self) -> usize {
        self.cache.available()
    }

    /// How the blocks of `group` are used now.
    #[must_use]
    pub fn usage(&self, group: usize) -> Usage {
        let pool = &self.cache.pools[group];
        let (free, cached) = (pool.free.len(), pool.cached);
        Usage { free, cached, used: pool.blocks.len() - free - cached }
    }

    /// Live sequences.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.sequences.len() - self.idle.len()
    }

    /// Counters since the manager was made.
    #[must_use]
    pub fn stats(&self) -> KvStats {
        KvStats { evicted_blocks: self.cache.evicted_blocks, ..self.stats }
    }

    /// Forgets every cached block that no live sequence needs; with no live sequence the cache is empty afterwards.
    pub fn clear_cache(&mut self) {
        self.cache.clear();
    }

    /// Checks every promise of this room against the tables, block by block. Costs time in proportion to the pools.
    /// `Internal` names what is broken.
    pub fn verify(&self) -> Result<()> {
        verify::verify(&self.cache, &self.sequences)
    }

    fn end(&mut self, sequence: Sequence, forget: bool) {
        self.sequences[sequence.0 as usize].detach(&mut self.cache, forget);
        self.idle.push(sequence.0);
    }

    fn idle_slot(&mut self) -> Result<u32> {
        if let Some(slot) = self.idle.pop() {
            return Ok(slot);
        }
        // Every slot can be idle at once; `release` must not allocate.
        heap::reserve(&mut self.idle, self.sequences.len() + 1, "block tables")?;
        self.add_slot()?;
        Ok(u32::try_from(self.sequences.len() - 1).expect("fewer live sequences than 2^32"))
    }

    fn add_slot(&mut self) -> Result<()> {
        let config = &self.cache.config;
        let blocks = config.blocks_of(config.sequence_tokens);
        let state = State::new(config.groups.len(), blocks, config.block_tokens)?;
        heap::push(&mut self.sequences, state, "block tables")
    }

    /// The capacities of everything that could grow.
    #[cfg(test)]
    pub(super) fn capacities(&self) -> Vec<usize> {
        let of_state = |state: &State| {
            let tables = state.tables.iter().map(Vec::capacity).sum::<usize>();
            [tables, state.path.capacity(), state.tail.capacity()]
        };
        let pools = self.cache.pools.iter().map(|pool| pool.free.capacity());
        self.sequences.iter().flat_map(of_state).chain(pools).chain(self.cache.tree.capacities()).collect()
    }
}
