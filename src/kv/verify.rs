//! The room's promises, counted again from the tables of the live sequences.

use std::collections::HashSet;
use std::hash::BuildHasher;

use super::cache::Cache;
use super::pool::Pool;
use super::sequence::State;
use super::tree::{Kind, Tree};
use crate::error::{Error, Result};

/// `Internal` with the first violation found.
pub(super) fn verify<S: BuildHasher>(cache: &Cache<S>, sequences: &[State]) -> Result<()> {
    let live = || sequences.iter().filter(|state| state.live);
    sequences.iter().enumerate().try_for_each(|(slot, state)| {
        sequence(cache, state).map_err(|error| error.within(&format!("sequence slot {slot}")))
    })?;
    for group in cache.groups() {
        let mut held = vec![0; cache.pools[group].blocks.len()];
        live().flat_map(|state| &state.tables[group][state.first[group]..]).for_each(|id| held[*id as usize] += 1);
        pool(cache, group, &held).map_err(|error| error.within(&format!("group {group}")))?;
    }
    let mut passed = vec![0; cache.tree.nodes.len()];
    live().flat_map(|state| &state.path).for_each(|node| passed[*node as usize] += 1);
    tree(cache, &passed)
}

/// Tables cover exactly the sequence; the path runs from a root through the blocks that the tables hold.
fn sequence<S: BuildHasher>(cache: &Cache<S>, state: &State) -> Result<()> {
    let config = &cache.config;
    check(state.live || (state.len, state.reserved, state.path.len()) == (0, 0, 0), || "ended with content".into())?;
    let blocks = config.blocks_of(state.len + state.reserved);
    for group in cache.groups() {
        check(state.tables[group].len() == blocks, || format!("table {group} does not cover its tokens"))?;
        let needed = config.first_needed(group, state.len);
        check(state.first[group] <= needed, || format!("gave up visible blocks of group {group}"))?;
    }
    if !state.reuses() {
        return Ok(());
    }
    let full = state.len / config.block_tokens;
    check(state.path.len() == 1 + full, || "path and length differ".into())?;
    check(state.tail.len() == state.len % config.block_tokens, || "tail and length differ".into())?;
    check(matches!(cache.tree.node(state.path[0]).kind, Kind::Root(_)), || "path starts below a root".into())?;
    for (at, pair) in state.path.windows(2).enumerate() {
        check(cache.tree.parent(pair[1]) == Some(pair[0]), || format!("path breaks at block {at}"))?;
        for group in cache.groups().filter(|group| at >= state.first[*group]) {
            let same = cache.tree.blocks(pair[1])[group] == Some(state.tables[group][at]);
            check(same, || format!("block {at} of group {group} is not its node's"))?;
        }
    }
    Ok(())
}

/// Each block is exactly one of free, cached and referenced, and is referenced as often as `held` says.
fn pool<S: BuildHasher>(cache: &Cache<S>, group: usize, held: &[u32]) -> Result<()> {
    let pool = &cache.pools[group];
    let cached = cached_blocks(pool)?;
    let (free, is_cached): (HashSet<_>, HashSet<_>) =
        (pool.free.iter().copied().collect(), cached.iter().copied().collect());
    check(free.len() == pool.free.len(), || "a block is free twice".into())?;
    for (id, (block, held)) in (0u32..).zip(pool.blocks.iter().zip(held)) {
        check(block.refs == *held, || format!("block {id} counts {} references, has {held}", block.refs))?;
        let roles = [free.contains(&id), is_cached.contains(&id), block.refs > 0];
        check(roles.iter().filter(|role| **role).count() == 1, || format!("block {id} is not one of its roles"))?;
        check(block.node.is_some() || !is_cached.contains(&id), || format!("cached block {id} is not indexed"))?;
        check(block.node.is_none() || !free.contains(&id), || format!("free block {id} is indexed"))?;
        check(block.node.is_some() || block.refs <= 1, || format!("block {id} is shared and not indexed"))?;
        let owner = block.node.is_none_or(|node| cache.tree.blocks(node)[group] == Some(id));
        check(owner, || format!("block {id} names a node that does not have it"))?;
    }
    if cache.config.groups[group].window.is_none() {
        let owner = |id: &u32| pool.blocks[*id as usize].node;
        leaves_first(&cache.tree, cached.iter().filter_map(owner))?;
    }
    Ok(())
}

/// The cached blocks, the least recently used first, if the list holds together.
fn cached_blocks(pool: &Pool) -> Result<Vec<u32>> {
    let (mut list, mut next, mut older) = (Vec::new(), pool.oldest, None);
    while let Some(id) = next.filter(|_| list.len() < pool.blocks.len()) {
        check(pool.blocks[id as usize].older == older, || format!("cached block {id} is misplaced"))?;
        list.push(id);
        (older, next) = (Some(id), pool.blocks[id as usize].newer);
    }
    check(next.is_none() && pool.newest == older, || "the list of cached blocks does not end".into())?;
    check(list.len() == pool.cached, || "the count of cached blocks is wrong".into())?;
    Ok(list)
}

/// No node is older than one below it, and none has a referenced descendant.
fn leaves_first<S: BuildHasher>(tree: &Tree<S>, nodes: impl Iterator<Item = u32>) -> Result<()> {
    let mut gone = vec![0; tree.nodes.len()];
    for node in nodes {
        check(gone[node as usize] == tree.node(node).children, || format!("node {node} would leave children"))?;
        if let Some(parent) = tree.parent(node) {
            gone[parent as usize] += 1;
        }
    }
    Ok(())
}

/// Every node is found by its tokens, is needed, owns its blocks, and is passed as often as `passed` says.
fn tree<S: BuildHasher>(cache: &Cache<S>, passed: &[u32]) -> Result<()> {
    let tree = &cache.tree;
    let mut children = vec![0; tree.nodes.len()];
    for (id, node) in (0u32..).zip(&tree.nodes).filter(|(_, node)| !matches!(node.kind, Kind::Vacant)) {
        check(node.refs == passed[id as usize], || format!("node {id} counts {} sequences", node.refs))?;
        check(!tree.is_useless(id), || format!("node {id} is of no use"))?;
        let found = match &node.kind {
            Kind::Root(key) => tree.roots.get(key).copied(),
            Kind::Block { parent } => {
                children[*parent as usize] += 1;
                tree.child(*parent, tree.tokens(id))
            }
            Kind::Vacant => None,
        };
        check(found == Some(id), || format!("node {id} is not found by its content"))?;
        for (group, block) in tree.blocks(id).iter().enumerate() {
            let owned = block.is_none_or(|block| cache.pools[group].blocks[block as usize].node == Some(id));
            check(owned, || format!("node {id} has a block of another in group {group}"))?;
            let whole = block.is_some() || tree.parent(id).is_none() || cache.config.groups[group].window.is_some();
            check(whole, || format!("node {id} lost its block in group {group}"))?;
        }
    }
    for (id, node) in tree.nodes.iter().enumerate() {
        let counted = if matches!(node.kind, Kind::Vacant) { 0 } else { node.children };
        check(counted == children[id], || format!("node {id} counts {} children", node.children))?;
    }
    Ok(())
}

fn check(holds: bool, violation: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::internal("kv cache", violation())) }
}
