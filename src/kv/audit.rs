//! Who has which block, for tests that check ownership themselves.

use std::hash::BuildHasher;

use super::tree::Kind;
use super::{KvManager, PrefixKey, Sequence};

/// An indexed place of the prefix tree.
pub(crate) struct Indexed<'a> {
    pub(crate) key: &'a PrefixKey,
    /// All tokens up to and with those of its blocks.
    pub(crate) tokens: Vec<u32>,
    /// Its block in each group.
    pub(crate) blocks: &'a [Option<u32>],
}

impl<S: BuildHasher> KvManager<S> {
    /// What a sequence shares or offers: whose prefix, and its tokens; `None` without reuse.
    pub(crate) fn prefix(&self, sequence: &Sequence) -> Option<(&PrefixKey, Vec<u32>)> {
        self.path(*self.sequences[sequence.0 as usize].path.last()?)
    }

    /// The table entries that a sequence holds in `group`, and the number of the first.
    pub(crate) fn held(&self, sequence: &Sequence, group: usize) -> (usize, &[u32]) {
        let state = &self.sequences[sequence.0 as usize];
        (state.first[group], &state.tables[group][state.first[group]..])
    }

    /// What a later sequence may find.
    pub(crate) fn indexed(&self) -> impl Iterator<Item = Indexed<'_>> {
        let tree = &self.cache.tree;
        let blocks = (0..tree.nodes.len() as u32).filter(|id| matches!(tree.node(*id).kind, Kind::Block { .. }));
        blocks.filter_map(|id| self.path(id).map(|(key, tokens)| Indexed { key, tokens, blocks: tree.blocks(id) }))
    }

    /// The key and the tokens on the way from a root to `node`.
    fn path(&self, node: u32) -> Option<(&PrefixKey, Vec<u32>)> {
        let tree = &self.cache.tree;
        let way: Vec<u32> = std::iter::successors(Some(node), |at| tree.parent(*at)).collect();
        let (root, blocks) = way.split_last()?;
        let Kind::Root(key) = &tree.node(*root).kind else { return None };
        Some((key, blocks.iter().rev().flat_map(|node| tree.tokens(*node)).copied().collect()))
    }
}
