//! A sum that is normed becomes one operation with both results: the sum lives on as the residual.

use super::flow::{Flow, joined_name, rewrite_all, substitute};
use crate::error::Result;
use crate::network::{Graph, Node, NodeId};
use crate::types::Op;

/// Returns how many norms took in the sum before them.
pub(super) fn rewrite(graph: &mut Graph) -> Result<usize> {
    rewrite_all(graph, find, fuse)
}

/// The sum, its norm and the operation that does both.
type Normed = (NodeId, NodeId, Op);

fn find(flow: &Flow, norm: NodeId) -> Option<Normed> {
    let node = &flow.graph[norm];
    let fused = match node.op {
        Op::RmsNorm { eps } => Op::AddRmsNorm { eps },
        Op::LayerNorm { eps } => Op::AddLayerNorm { eps },
        _ => return None,
    };
    match flow.producer(node.inputs[0])? {
        (add, Node { op: Op::Add, .. }) => Some((add, norm, fused)),
        _ => None,
    }
}

fn fuse(graph: &mut Graph, (add, norm, op): Normed) -> Result<()> {
    let (sum, normed) = (graph[add].clone(), graph[norm].clone());
    let name = joined_name(graph, &[&sum.name, &normed.name]);
    let outputs = [sum.outputs, normed.outputs].concat();
    let node = Node { name, op, inputs: sum.inputs, weights: normed.weights, outputs, fused: Vec::new() };
    substitute(graph, &[add, norm], node);
    Ok(())
}
