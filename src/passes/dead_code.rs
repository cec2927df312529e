//! Drops nodes that no output needs, then values and weights that no node uses. Graph inputs stay.

use crate::error::Result;
use crate::network::{Graph, NodeId, ValueId, WeightId};

/// Returns how many nodes went.
pub(super) fn rewrite(graph: &mut Graph) -> Result<usize> {
    let removed = drop_nodes(graph)?;
    drop_values(graph);
    drop_weights(graph);
    Ok(removed)
}

fn drop_nodes(graph: &mut Graph) -> Result<usize> {
    let mut live = vec![false; graph.nodes.len()];
    for NodeId(index) in graph.live_order()? {
        live[index] = true;
    }
    let before = graph.nodes.len();
    retain(&mut graph.nodes, &live);
    Ok(before - graph.nodes.len())
}

fn drop_values(graph: &mut Graph) {
    let mut used = vec![false; graph.values.len()];
    let outputs = graph.outputs.iter().map(|(_, id)| id);
    for ValueId(index) in graph.inputs.iter().chain(outputs) {
        used[*index] = true;
    }
    for ValueId(index) in graph.nodes.iter().flat_map(|node| node.inputs.iter().chain(&node.outputs)) {
        used[*index] = true;
    }
    let moved = retain(&mut graph.values, &used);
    let nodes = graph.nodes.iter_mut().flat_map(|node| node.inputs.iter_mut().chain(&mut node.outputs));
    let outputs = graph.outputs.iter_mut().map(|(_, id)| id);
    for id in nodes.chain(&mut graph.inputs).chain(outputs) {
        id.0 = moved[id.0];
    }
}

fn drop_weights(graph: &mut Graph) {
    let mut used = vec![false; graph.weights.len()];
    for WeightId(index) in graph.nodes.iter().flat_map(|node| &node.weights) {
        used[*index] = true;
    }
    let moved = retain(&mut graph.weights, &used);
    for id in graph.nodes.iter_mut().flat_map(|node| &mut node.weights) {
        id.0 = moved[id.0];
    }
}

/// Keeps the marked items; returns where each of them now stands.
fn retain<T>(items: &mut Vec<T>, keep: &[bool]) -> Vec<usize> {
    let mut next = 0;
    let place = |kept: &bool| {
        next += usize::from(*kept);
        next - usize::from(*kept)
    };
    let moved = keep.iter().map(place).collect();
    let mut index = 0;
    items.retain(|_| {
        index += 1;
        keep[index - 1]
    });
    moved
}
