//! Pools and tree together: a node and the blocks it indexes always change hands in one place.

use std::hash::BuildHasher;

use super::config::KvConfig;
use super::pool::Pool;
use super::tree::Tree;
use crate::error::Result;

pub(super) struct Cache<S> {
    pub(super) config: KvConfig,
    /// By group.
    pub(super) pools: Vec<Pool>,
    pub(super) tree: Tree<S>,
    pub(super) evicted_blocks: u64,
}

impl<S: BuildHasher> Cache<S> {
    /// An empty cache of a checked `config`.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn new(config: KvConfig, hasher: S) -> Result<Self> {
        let blocks = u32::try_from(config.blocks).expect("the config was checked");
        let pools = config.groups.iter().map(|_| Pool::new(blocks)).collect::<Result<_>>()?;
        let nodes = if config.prefix_reuse { config.blocks } else { 0 };
        let tree = Tree::new(config.block_tokens, config.groups.len(), nodes, config.sequences, hasher)?;
        Ok(Cache { config, pools, tree, evicted_blocks: 0 })
    }

    pub(super) fn groups(&self) -> std::ops::Range<usize> {
        0..self.pools.len()
    }

    /// Blocks that every pool can give.
    pub(super) fn available(&self) -> usize {
        self.pools.iter().map(Pool::available).min().unwrap_or(0)
    }

    /// A block of `group` with one reference; evicts when none is free. The caller has checked that one is available.
    pub(super) fn allocate(&mut self, group: usize) -> u32 {
        if self.pools[group].free.is_empty() {
            let before = self.free_blocks();
            self.evict_oldest(group);
            self.evicted_blocks += (self.free_blocks() - before) as u64;
        }
        self.pools[group].allocate().expect("the caller checked that a block is available")
    }

    /// Frees every block that no sequence needs.
    pub(super) fn clear(&mut self) {
        for group in self.groups() {
            while self.evict_oldest(group) {}
        }
    }

    /// Frees the least recently used cached block of `group`, if there is one.
    fn evict_oldest(&mut self, group: usize) -> bool {
        let pool = &mut self.pools[group];
        let Some(id) = pool.oldest else { return false };
        let node = pool.blocks[id as usize].node.expect("a cached block is indexed");
        if self.config.groups[group].window.is_none() {
            // Without its full-context block no prefix runs through the node. It is a leaf: see the module's rules.
            self.forget(node);
        } else {
            *self.tree.block_mut(node, group) = None;
            pool.deindex(id);
            self.tree.prune(node);
        }
        true
    }

    /// Takes a leaf and its blocks out of the index; blocks that a sequence holds stay with it.
    pub(super) fn forget(&mut self, node: u32) {
        for group in self.groups() {
            if let Some(id) = self.tree.block_mut(node, group).take() {
                self.pools[group].deindex(id);
            }
        }
        self.tree.prune(node);
    }

    /// The node of `tokens` below `parent`, with one more reference and a block in every group. The tables' blocks number
    /// `at` hold that same content: where the node has a block already they are exchanged for it, else it takes them.
    pub(super) fn share(&mut self, parent: u32, tokens: &[u32], tables: &mut [Vec<u32>], at: usize) -> u32 {
        let node = self.tree.child(parent, tokens).unwrap_or_else(|| self.tree.insert(parent, tokens));
        self.tree.node_mut(node).refs += 1;
        for (group, table) in tables.iter_mut().enumerate() {
            let (pool, own) = (&mut self.pools[group], &mut table[at]);
            match self.tree.block_mut(node, group) {
                Some(shared) => {
                    pool.acquire(*shared);
                    pool.release(std::mem::replace(own, *shared));
                }
                vacant => {
                    *vacant = Some(*own);
                    pool.index(*own, node);
                }
            }
        }
        node
    }

    fn free_blocks(&self) -> usize {
        self.pools.iter().map(|pool| pool.free.len()).sum()
    }
}
