//! A sum that is normed becomes one operation with both results: the sum lives on as the residual.

use super::flow::{Flow, Match, joined_name, rewrite_all};
use crate::error::Result;
use crate::network::{Dim, Graph, Node, NodeId};
use crate::types::Op;

/// Returns how many norms took in the sum before them.
pub(super) fn rewrite(graph: &mut Graph) -> Result<usize> {
    rewrite_all(graph, find, fuse)
}

/// The sum, its norm over whole rows, and the operation that does both.
fn find(flow: &Flow, norm: NodeId) -> Option<Match<Op>> {
    let node = &flow.graph[norm];
    let fused = match node.op {
        Op::RmsNorm { eps } if whole_rows(flow.graph, node) => Op::AddRmsNorm { eps },
        Op::LayerNorm { eps } => Op::AddLayerNorm { eps },
        _ => return None,
    };
    match flow.producer(node.inputs[0])? {
        (add, Node { op: Op::Add, .. }) => Some(Match { nodes: vec![add, norm], detail: fused }),
        _ => None,
    }
}

/// Whether the gain is as wide as what is normed.
fn whole_rows(graph: &Graph, norm: &Node) -> bool {
    graph[norm.inputs[0]].shape.get(1) == Some(&Dim::Fixed(graph[norm.weights[0]].shape[0]))
}

fn fuse(graph: &mut Graph, replaced: &[Node], op: Op) -> Vec<Node> {
    let (sum, norm) = (&replaced[0], &replaced[1]);
    let name = joined_name(graph, &[&sum.name, &norm.name]);
    let outputs = [sum.outputs.clone(), norm.outputs.clone()].concat();
    vec![Node { name, op, inputs: sum.inputs.clone(), weights: norm.weights.clone(), outputs, fused: Vec::new() }]
}
