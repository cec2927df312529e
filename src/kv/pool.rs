//! The blocks of one group: reference counts, the free list, and the cached blocks in order of last use.

use crate::error::Result;
use crate::types::heap;

const WHAT: &str = "bookkeeping of the KV cache";

/// One group's blocks. Which tokens a block holds is the tree's knowledge; here it has at most one owning node.
pub(super) struct Pool {
    pub(super) blocks: Vec<Block>,
    pub(super) free: Vec<u32>,
    /// Ends of the list of cached blocks.
    pub(super) oldest: Option<u32>,
    pub(super) newest: Option<u32>,
    pub(super) cached: usize,
}

#[derive(Clone, Default)]
pub(super) struct Block {
    /// Tables that need the block.
    pub(super) refs: u32,
    /// The tree node that indexes the block.
    pub(super) node: Option<u32>,
    pub(super) older: Option<u32>,
    pub(super) newer: Option<u32>,
}

impl Pool {
    /// `blocks` free blocks; the lowest ids are handed out first.
    pub(super) fn new(blocks: u32) -> Result<Self> {
        let free = heap::collect((0..blocks).rev(), WHAT)?;
        let blocks = heap::collect((0..blocks).map(|_| Block::default()), WHAT)?;
        Ok(Pool { blocks, free, oldest: None, newest: None, cached: 0 })
    }

    /// Blocks that can be had without taking one from a sequence.
    pub(super) fn available(&self) -> usize {
        self.free.len() + self.cached
    }

    /// Takes a free block with one reference.
    pub(super) fn allocate(&mut self) -> Option<u32> {
        let id = self.free.pop()?;
        self.block(id).refs = 1;
        Some(id)
    }

    /// Adds a reference; a cached block is in use again.
    pub(super) fn acquire(&mut self, id: u32) {
        self.block(id).refs += 1;
        if self.block(id).refs == 1 {
            self.unlink(id);
        }
    }

    /// Drops a reference; after the last one the block becomes the most recently used cached one, or free.
    pub(super) fn release(&mut self, id: u32) {
        self.block(id).refs -= 1;
        match (self.block(id).refs, self.block(id).node) {
            (0, Some(_)) => self.link_newest(id),
            (0, None) => self.free.push(id),
            _ => {}
        }
    }

    /// Records that `node` indexes the referenced block.
    pub(super) fn index(&mut self, id: u32, node: u32) {
        self.block(id).node = Some(node);
    }

    /// Takes the block out of the index; a cached one becomes free.
    pub(super) fn deindex(&mut self, id: u32) {
        self.block(id).node = None;
        if self.block(id).refs == 0 {
            self.unlink(id);
            self.free.push(id);
        }
    }

    fn block(&mut self, id: u32) -> &mut Block {
        &mut self.blocks[id as usize]
    }

    fn link_newest(&mut self, id: u32) {
        let older = self.newest.replace(id);
        self.block(id).older = older;
        match older {
            Some(older) => self.block(older).newer = Some(id),
            None => self.oldest = Some(id),
        }
        self.cached += 1;
    }

    fn unlink(&mut self, id: u32) {
        let (older, newer) = (self.block(id).older.take(), self.block(id).newer.take());
        match older {
            Some(older) => self.block(older).newer = newer,
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => self.block(newer).older = older,
            None => self.newest = older,
        }
        self.cached -= 1;
    }
}
