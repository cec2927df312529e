//! The prefix tree: one root per key, and below it one node per block of tokens that follows its parent's.

use std::collections::HashMap;
use std::hash::BuildHasher;

use super::config::PrefixKey;
use crate::error::{Error, Result};
use crate::types::heap;

/// Nodes live in a slab; their tokens and blocks lie in flat arrays beside it, so that a new node costs no allocation.
pub(super) struct Tree<S> {
    pub(super) nodes: Vec<Node>,
    vacant: Vec<u32>,
    tokens: Vec<u32>,
    /// By node and group; a window group may have given up its block.
    blocks: Vec<Option<u32>>,
    /// First node of each chain of equal hashes.
    pub(super) heads: HashMap<u64, u32>,
    pub(super) roots: HashMap<PrefixKey, u32>,
    block_tokens: usize,
    groups: usize,
    hasher: S,
}

#[derive(Default)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Live sequences whose tokens run through this node.
    pub(super) refs: u32,
    pub(super) children: u32,
    hash: u64,
    /// Next node of the same hash.
    next: Option<u32>,
}

#[derive(Default)]
pub(super) enum Kind {
    /// An unused place in the slab.
    #[default]
    Vacant,
    Root(PrefixKey),
    /// A block of tokens after the parent's.
    Block {
        parent: u32,
    },
}

impl<S: BuildHasher> Tree<S> {
    /// An empty tree with room for `capacity` nodes below its roots while at most `sequences` live. There is a root for
    /// every key that a node or a sequence has.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn new(
        block_tokens: usize,
        groups: usize,
        capacity: usize,
        sequences: usize,
        hasher: S,
    ) -> Result<Self> {
        let what = "prefix tree";
        let roots = if capacity == 0 { 0 } else { capacity + sequences };
        let nodes = capacity + roots;
        let mut tree = Tree {
            nodes: heap::vector(nodes, what)?,
            vacant: heap::vector(nodes, what)?,
            tokens: heap::vector(nodes.saturating_mul(block_tokens), what)?,
            blocks: heap::vector(nodes.saturating_mul(groups), what)?,
            heads: HashMap::new(),
            roots: HashMap::new(),
            block_tokens,
            groups,
            hasher,
        };
        // A map that is at most half full cleans up after removals in place.
        let refused = |entries: usize| Error::out_of_memory(what, entries.saturating_mul(size_of::<(u64, u32)>()));
        tree.heads.try_reserve(2 * capacity).map_err(|_| refused(2 * capacity))?;
        tree.roots.try_reserve(2 * roots).map_err(|_| refused(2 * roots))?;
        Ok(tree)
    }

    /// The root of `key`, made if it is not there.
    pub(super) fn root(&mut self, key: &PrefixKey) -> u32 {
        if let Some(root) = self.roots.get(key) {
            return *root;
        }
        let root = self.occupy(Node { kind: Kind::Root(key.clone()), ..Node::default() });
        self.roots.insert(key.clone(), root);
        root
    }

    /// The child of `parent` that holds exactly `tokens`. The hash only narrows the search.
    pub(super) fn child(&self, parent: u32, tokens: &[u32]) -> Option<u32> {
        let mut next = self.heads.get(&self.hash(parent, tokens)).copied();
        while let Some(id) = next {
            if self.parent(id) == Some(parent) && self.tokens(id) == tokens {
                return Some(id);
            }
            next = self.node(id).next;
        }
        None
    }

    /// Adds a child that [`Tree::child`] did not find; it has no blocks yet.
    pub(super) fn insert(&mut self, parent: u32, tokens: &[u32]) -> u32 {
        let hash = self.hash(parent, tokens);
        let next = self.heads.get(&hash).copied();
        let id = self.occupy(Node { kind: Kind::Block { parent }, hash, next, ..Node::default() });
        let at = id as usize * self.block_tokens;
        self.tokens[at..at + self.block_tokens].copy_from_slice(tokens);
        self.heads.insert(hash, id);
        self.node_mut(parent).children += 1;
        id
    }

    /// Removes `id` and then its ancestors for as long as they have no block, child or sequence.
    pub(super) fn prune(&mut self, id: u32) {
        let mut next = Some(id);
        while let Some(id) = next.filter(|id| self.is_useless(*id)) {
            next = self.remove(id);
        }
    }

    pub(super) fn is_useless(&self, id: u32) -> bool {
        let node = self.node(id);
        node.refs == 0 && node.children == 0 && self.blocks(id).iter().all(Option::is_none)
    }

    /// Removes one useless node; returns its parent.
    fn remove(&mut self, id: u32) -> Option<u32> {
        let node = std::mem::take(self.node_mut(id));
        self.vacant.push(id);
        match node.kind {
            Kind::Vacant => None,
            Kind::Root(key) => {
                self.roots.remove(&key);
                None
            }
            Kind::Block { parent } => {
                self.unchain(id, node.hash, node.next);
                self.node_mut(parent).children -= 1;
                Some(parent)
            }
        }
    }

    /// Takes `id`, followed by `after`, out of the chain of `hash`.
    fn unchain(&mut self, id: u32, hash: u64, after: Option<u32>) {
        let head = self.heads[&hash];
        if head != id {
            let mut before = head;
            while self.node(before).next != Some(id) {
                before = self.node(before).next.expect("a block node is in the chain of its hash");
            }
            self.node_mut(before).next = after;
        } else if let Some(after) = after {
            self.heads.insert(hash, after);
        } else {
            self.heads.remove(&hash);
        }
    }

    fn occupy(&mut self, node: Node) -> u32 {
        if let Some(id) = self.vacant.pop() {
            *self.node_mut(id) = node;
            return id;
        }
        self.nodes.push(node);
        self.tokens.resize(self.nodes.len() * self.block_tokens, 0);
        self.blocks.resize(self.nodes.len() * self.groups, None);
        u32::try_from(self.nodes.len() - 1).expect("the slab holds no more nodes than memory holds sequences")
    }

    fn hash(&self, parent: u32, tokens: &[u32]) -> u64 {
        self.hasher.hash_one((parent, tokens))
    }

    pub(super) fn node(&self, id: u32) -> &Node {
        &self.nodes[id as usize]
    }

    pub(super) fn node_mut(&mut self, id: u32) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    /// The parent of a block node.
    pub(super) fn parent(&self, id: u32) -> Option<u32> {
        match self.node(id).kind {
            Kind::Block { parent } => Some(parent),
            _ => None,
        }
    }

    /// The tokens of a block node.
    pub(super) fn tokens(&self, id: u32) -> &[u32] {
        let at = id as usize * self.block_tokens;
        &self.tokens[at..at + self.block_tokens]
    }

    /// The blocks that hold the node's tokens, by group.
    pub(super) fn blocks(&self, id: u32) -> &[Option<u32>] {
        let at = id as usize * self.groups;
        &self.blocks[at..at + self.groups]
    }

    pub(super) fn block_mut(&mut self, id: u32, group: usize) -> &mut Option<u32> {
        &mut self.blocks[id as usize * self.groups + group]
    }

    #[cfg(test)]
    pub(super) fn capacities(&self) -> [usize; 6] {
        [
            self.nodes.capacity(),
            self.vacant.capacity(),
            self.tokens.capacity(),
            self.blocks.capacity(),
            self.heads.capacity(),
            self.roots.capacity(),
        ]
    }
}
