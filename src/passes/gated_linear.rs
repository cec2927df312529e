//! `act(gate(x)) * up(x)` becomes one operation.

use super::flow::{Flow, joined_name, rewrite_all, substitute};
use crate::error::Result;
use crate::network::{Graph, Node, NodeId, Recipe, ValueId, WeightId};
use crate::types::{Activation, Op};

/// Returns how many gated layers were found.
pub(super) fn rewrite(graph: &mut Graph) -> Result<usize> {
    rewrite_all(graph, find, fuse)
}

struct Gated {
    gate: NodeId,
    /// Absent where the gate's linear layer applies it already.
    activate: Option<NodeId>,
    up: NodeId,
    mul: NodeId,
    activation: Activation,
}

fn find(flow: &Flow, mul: NodeId) -> Option<Gated> {
    let node = &flow.graph[mul];
    let (Op::Mul, [a, b]) = (&node.op, node.inputs.as_slice()) else {
        return None;
    };
    matched(flow, mul, *a, *b).or_else(|| matched(flow, mul, *b, *a))
}

fn matched(flow: &Flow, mul: NodeId, gated: ValueId, plain: ValueId) -> Option<Gated> {
    let (up, up_node) = flow.private(plain)?;
    let (gate, activate, activation) = gate(flow, gated)?;
    let shared = flow.graph[gate].inputs == up_node.inputs;
    match up_node.op {
        Op::Linear { activation: None, .. } if shared => Some(Gated { gate, activate, up, mul, activation }),
        _ => None,
    }
}

/// The linear layer of the gate, the node that activates it and the activation.
fn gate(flow: &Flow, value: ValueId) -> Option<(NodeId, Option<NodeId>, Activation)> {
    match flow.private(value)? {
        (gate, Node { op: Op::Linear { activation: Some(activation), .. }, .. }) => Some((gate, None, *activation)),
        (activate, Node { op: Op::Activate { activation }, inputs, .. }) => match flow.private(inputs[0])? {
            (gate, Node { op: Op::Linear { activation: None, .. }, .. }) => Some((gate, Some(activate), *activation)),
            _ => None,
        },
        _ => None,
    }
}

fn fuse(graph: &mut Graph, found: Gated) -> Result<()> {
    let (gate, up, mul) = (graph[found.gate].clone(), graph[found.up].clone(), graph[found.mul].clone());
    let name = joined_name(graph, &[&gate.name, &up.name]);
    let mut weights = vec![gate.weights[0], up.weights[0]];
    let biases = [gate.weights.get(1).copied(), up.weights.get(1).copied()];
    let bias = biases.iter().any(Option::is_some);
    if bias {
        weights.extend(biases.map(|bias| bias.unwrap_or_else(|| zeros(graph, gate.weights[0], &name))));
    }
    let op = Op::GatedLinear { bias, activation: found.activation };
    let replaced = [Some(found.gate), found.activate, Some(found.up), Some(found.mul)];
    let replaced = replaced.into_iter().flatten().collect::<Vec<_>>();
    substitute(graph, &replaced, Node { name, op, inputs: gate.inputs, weights, outputs: mul.outputs, fused: vec![] });
    Ok(())
}

/// A bias of zeros for `matrix`.
fn zeros(graph: &mut Graph, matrix: WeightId, name: &str) -> WeightId {
    let rows = graph[matrix].shape[0];
    graph.weight(format!("{name}.no_bias"), &[rows], Recipe::Constant(vec![0.0; rows]))
}
