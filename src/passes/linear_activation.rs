//! A linear layer whose result is only activated applies the activation itself.

use super::flow::{Flow, rewrite_all, substitute};
use crate::error::Result;
use crate::network::{Graph, Node, NodeId};
use crate::types::{Activation, Op};

/// Returns how many activations were taken in.
pub(super) fn rewrite(graph: &mut Graph) -> Result<usize> {
    rewrite_all(graph, find, fuse)
}

type Activated = (NodeId, NodeId, Activation);

fn find(flow: &Flow, activate: NodeId) -> Option<Activated> {
    let Node { op: Op::Activate { activation }, inputs, .. } = &flow.graph[activate] else {
        return None;
    };
    match flow.private(inputs[0])? {
        (linear, Node { op: Op::Linear { activation: None, .. }, .. }) => Some((linear, activate, *activation)),
        _ => None,
    }
}

fn fuse(graph: &mut Graph, (linear, activate, activation): Activated) -> Result<()> {
    let outputs = graph[activate].outputs.clone();
    let node = graph[linear].clone();
    let op = Op::Linear { bias: node.weights.len() == 2, activation: Some(activation) };
    substitute(graph, &[linear, activate], Node { op, outputs, ..node });
    Ok(())
}
