//! One live sequence: its length, its block tables, and its path through the prefix tree.

use std::hash::BuildHasher;

use super::cache::Cache;
use super::config::PrefixKey;
use crate::error::Result;
use crate::types::heap;

/// The owned key of a live sequence. It is given up by [`KvManager::release`](super::KvManager::release) and by nothing
/// else: dropping it leaks the sequence's blocks. It has a meaning only for the manager that made it.
#[derive(Debug, PartialEq, Eq, Hash)]
#[must_use = "a dropped sequence keeps its blocks for ever"]
pub struct Sequence(pub(super) u32);

/// What the manager knows of a sequence. Slots of ended sequences are used again with their allocations.
#[derive(Default)]
pub(super) struct State {
    pub(super) live: bool,
    /// Tokens whose cache content is valid.
    pub(super) len: usize,
    /// Tokens after these for which there is room.
    pub(super) reserved: usize,
    /// By group: entries cover `len + reserved` tokens.
    pub(super) tables: Vec<Vec<u32>>,
    /// By group: the first table entry that is held; those before it left the window.
    pub(super) first: Vec<usize>,
    /// The root and then the node of every full block; empty without reuse.
    pub(super) path: Vec<u32>,
    /// With reuse: the tokens after the last full block.
    pub(super) tail: Vec<u32>,
}

impl State {
    /// An empty slot whose tables have room for `blocks` entries.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn new(groups: usize, blocks: usize, block_tokens: usize) -> Result<Self> {
        let what = "block tables";
        Ok(State {
            tables: (0..groups).map(|_| heap::vector(blocks, what)).collect::<Result<_>>()?,
            first: vec![0; groups],
            path: heap::vector(blocks + 1, what)?,
            tail: heap::vector(block_tokens, what)?,
            ..State::default()
        })
    }

    /// Blocks in each table.
    pub(super) fn blocks(&self) -> usize {
        self.tables[0].len()
    }

    pub(super) fn reuses(&self) -> bool {
        !self.path.is_empty()
    }

    /// Joins the tree at the root of `key` and takes references on the longest cached prefix of `tokens`.
    pub(super) fn attach<S: BuildHasher>(&mut self, cache: &mut Cache<S>, tokens: &[u32], key: &PrefixKey) {
        self.path.push(cache.tree.root(key));
        let blocks = self.find(cache, tokens);
        self.path.truncate(1 + blocks);
        self.len = blocks * cache.config.block_tokens;
        for node in &self.path {
            cache.tree.node_mut(*node).refs += 1;
        }
        for group in cache.groups() {
            self.first[group] = cache.config.first_needed(group, self.len);
            self.tables[group].resize(self.first[group], 0);
            for node in &self.path[1 + self.first[group]..] {
                let block = cache.tree.blocks(*node)[group].expect("find checked the needed blocks");
                cache.pools[group].acquire(block);
                self.tables[group].push(block);
            }
        }
    }

    /// Walks the tree along `tokens`; returns after how many blocks a sequence can start, and leaves at least one token.
    fn find<S: BuildHasher>(&mut self, cache: &Cache<S>, tokens: &[u32]) -> usize {
        let (block_tokens, mut found) = (cache.config.block_tokens, 0);
        let most = (tokens.len() - 1) / block_tokens;
        // `first` is, for now, where each group's unbroken run of blocks up to here starts.
        for (at, block) in tokens.chunks_exact(block_tokens).take(most).enumerate() {
            let Some(node) = cache.tree.child(self.path[at], block) else { break };
            self.path.push(node);
            let mut complete = true;
            for (group, block) in cache.tree.blocks(node).iter().enumerate() {
                if block.is_none() {
                    self.first[group] = at + 1;
                }
                complete &= self.first[group] <= cache.config.first_needed(group, (at + 1) * block_tokens);
            }
            if complete {
                found = at + 1;
            }
        }
        found
    }

    /// Makes room for `more` tokens in all groups, or in none.
    pub(super) fn grow<S: BuildHasher>(&mut self, cache: &mut Cache<S>, more: usize) -> bool {
        self.slide(cache);
        let Some(tokens) = (self.len + self.reserved).checked_add(more) else { return false };
        let blocks = cache.config.blocks_of(tokens) - self.blocks();
        if blocks > cache.available() {
            return false;
        }
        for (group, table) in self.tables.iter_mut().enumerate() {
            table.extend((0..blocks).map(|_| cache.allocate(group)));
        }
        self.reserved += more;
        true
    }

    /// Gives up the blocks that the next token no longer sees. This waits for the next reservation, so that the tokens
    /// of the last one can still be taken back.
    fn slide<S: BuildHasher>(&mut self, cache: &mut Cache<S>) {
        for group in cache.groups() {
            let needed = cache.config.first_needed(group, self.len);
            while self.first[group] < needed {
                cache.pools[group].release(self.tables[group][self.first[group]]);
                self.first[group] += 1;
            }
        }
    }

    /// The next reserved tokens are valid and are these; every block they fill is shared through the tree.
    pub(super) fn advance<S: BuildHasher>(&mut self, cache: &mut Cache<S>, mut tokens: &[u32]) {
        let block_tokens = cache.config.block_tokens;
        self.len += tokens.len();
        self.reserved -= tokens.len();
        while self.reuses() && !tokens.is_empty() {
            let (fill, rest) = tokens.split_at(tokens.len().min(block_tokens - self.tail.len()));
            self.tail.extend_from_slice(fill);
            tokens = rest;
            if self.tail.len() == block_tokens {
                let (at, parent) = (self.path.len() - 1, self.path[self.path.len() - 1]);
                self.path.push(cache.share(parent, &self.tail, &mut self.tables, at));
                self.tail.clear();
            }
        }
    }

    /// Keeps at most the first `len` tokens, and fewer where the block that would be written next cannot be.
    pub(super) fn cut<S: BuildHasher>(&mut self, cache: &mut Cache<S>, len: usize) {
        let block_tokens = cache.config.block_tokens;
        self.drop_blocks(cache, cache.config.blocks_of(self.len), false);
        self.reserved = 0;
        if len >= self.len {
            return;
        }
        if !self.sees(cache, len) {
            return self.keep_boundary(cache, 0);
        }
        let (full, rest) = (len / block_tokens, len % block_tokens);
        match self.path.get(1 + full).copied().filter(|_| rest > 0) {
            Some(node) => self.reopen(cache, node, full, rest),
            None => {
                self.drop_blocks(cache, cache.config.blocks_of(len), false);
                self.len = len;
                // In the block that was already open the older tokens stay; in any other case `rest` is 0 or unused.
                self.tail.truncate(rest);
            }
        }
    }

    /// Cuts inside the indexed block number `full`: takes it out of the index if nobody else needs it there, else
    /// falls back to the boundary before it.
    fn reopen<S: BuildHasher>(&mut self, cache: &mut Cache<S>, node: u32, full: usize, rest: usize) {
        let exclusive = cache.tree.node(node).refs == 1;
        self.drop_blocks(cache, full + 1, exclusive);
        if !exclusive || cache.tree.node(node).children > 0 {
            return self.keep_boundary(cache, full);
        }
        self.tail.clear();
        self.tail.extend_from_slice(&cache.tree.tokens(node)[..rest]);
        self.path.truncate(1 + full);
        self.len = full * cache.config.block_tokens + rest;
        cache.tree.node_mut(node).refs = 0;
        cache.forget(node);
    }

    /// Keeps `blocks` full blocks, or nothing if the window before them is already gone.
    fn keep_boundary<S: BuildHasher>(&mut self, cache: &mut Cache<S>, blocks: usize) {
        let len = blocks * cache.config.block_tokens;
        let blocks = if self.sees(cache, len) { blocks } else { 0 };
        self.drop_blocks(cache, blocks, false);
        if blocks == 0 {
            self.first.fill(0);
        }
        self.len = blocks * cache.config.block_tokens;
        self.tail.clear();
    }

    /// Whether all blocks that the token at position `len` sees are still held.
    fn sees<S>(&self, cache: &Cache<S>, len: usize) -> bool {
        self.first.iter().enumerate().all(|(group, first)| *first <= cache.config.first_needed(group, len))
    }

    /// Gives back all blocks but the first `keep`, the deepest first; with `forget`, those that nobody else needs leave
    /// the index too.
    fn drop_blocks<S: BuildHasher>(&mut self, cache: &mut Cache<S>, keep: usize, forget: bool) {
        while self.blocks() > keep {
            let at = self.blocks() - 1;
            for (group, table) in self.tables.iter_mut().enumerate() {
                let block = table.pop().expect("all tables have the same length");
                if at >= self.first[group] {
                    cache.pools[group].release(block);
                }
            }
            if self.path.len() == at + 2 {
                self.leave(cache, forget);
            }
        }
    }

    /// Steps back from the deepest node of the path.
    fn leave<S: BuildHasher>(&mut self, cache: &mut Cache<S>, forget: bool) {
        let node = self.path.pop().expect("the caller checked the path's length");
        cache.tree.node_mut(node).refs -= 1;
        let node_is_alone = cache.tree.node(node).refs == 0 && cache.tree.node(node).children == 0;
        if forget && node_is_alone {
            cache.forget(node);
        } else {
            cache.tree.prune(node);
        }
    }

    /// Ends the sequence; its indexed blocks stay cached, or leave the index with `forget`.
    pub(super) fn detach<S: BuildHasher>(&mut self, cache: &mut Cache<S>, forget: bool) {
        self.drop_blocks(cache, 0, forget);
        if self.reuses() {
            self.leave(cache, false);
        }
        (self.len, self.reserved, self.live) = (0, 0, false);
        self.first.fill(0);
        self.tail.clear();
    }
}
