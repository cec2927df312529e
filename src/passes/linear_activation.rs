//! A linear layer whose result is only activated applies the activation itself.

use super::flow::{Flow, Match, rewrite_all};
use crate::error::Result;
use crate::network::{Graph, Node, NodeId};
use crate::types::{Activation, Op};

/// Returns how many activations were taken in.
pub(super) fn rewrite(graph: &mut Graph) -> Result<usize> {
    rewrite_all(graph, find, fuse)
}

fn find(flow: &Flow, activate: NodeId) -> Option<Match<Activation>> {
    let Node { op: Op::Activate { activation }, inputs, .. } = &flow.graph[activate] else {
        return None;
    };
    match flow.private(inputs[0])? {
        (linear, Node { op: Op::Linear { activation: None, .. }, .. }) => {
            Some(Match { nodes: vec![linear, activate], detail: *activation })
        }
        _ => None,
    }
}

fn fuse(_: &mut Graph, replaced: &[Node], activation: Activation) -> Vec<Node> {
    let (linear, activate) = (&replaced[0], &replaced[1]);
    let op = Op::Linear { bias: linear.weights.len() == 2, activation: Some(activation) };
    vec![Node { op, outputs: activate.outputs.clone(), ..linear.clone() }]
}
