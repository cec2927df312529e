//! `act(gate(x)) * up(x)` becomes one operation.

use super::flow::{Flow, Match, joined_name, rewrite_all};
use crate::error::Result;
use crate::network::{Graph, Node, NodeId, Recipe, ValueId, WeightId};
use crate::types::{Activation, Op};

/// Returns how many gated layers were found.
pub(super) fn rewrite(graph: &mut Graph) -> Result<usize> {
    rewrite_all(graph, find, fuse)
}

fn find(flow: &Flow, mul: NodeId) -> Option<Match<Activation>> {
    let node = &flow.graph[mul];
    let (Op::Mul, [a, b]) = (&node.op, node.inputs.as_slice()) else {
        return None;
    };
    matched(flow, mul, *a, *b).or_else(|| matched(flow, mul, *b, *a))
}

/// Gate, activation (absent where the gate's linear layer applies it already), up and product.
fn matched(flow: &Flow, mul: NodeId, gated: ValueId, plain: ValueId) -> Option<Match<Activation>> {
    let (up, up_node) = flow.private(plain)?;
    let (gate, activate, activation) = gate(flow, gated)?;
    let shared = flow.graph[gate].inputs == up_node.inputs;
    let nodes = [Some(gate), activate, Some(up), Some(mul)].into_iter().flatten().collect();
    match up_node.op {
        Op::Linear { activation: None, .. } if shared => Some(Match { nodes, detail: activation }),
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

fn fuse(graph: &mut Graph, replaced: &[Node], activation: Activation) -> Vec<Node> {
    let (gate, up, mul) = (&replaced[0], &replaced[replaced.len() - 2], &replaced[replaced.len() - 1]);
    let name = joined_name(graph, &[&gate.name, &up.name]);
    let mut weights = vec![gate.weights[0], up.weights[0]];
    let biases = [gate.weights.get(1).copied(), up.weights.get(1).copied()];
    let bias = biases.iter().any(Option::is_some);
    if bias {
        weights.extend(biases.map(|bias| bias.unwrap_or_else(|| zeros(graph, gate.weights[0], &name))));
    }
    let (op, inputs, outputs) = (Op::GatedLinear { bias, activation }, gate.inputs.clone(), mul.outputs.clone());
    vec![Node { name, op, inputs, weights, outputs, fused: Vec::new() }]
}

/// A bias of zeros for `matrix`.
fn zeros(graph: &mut Graph, matrix: WeightId, name: &str) -> WeightId {
    let rows = graph[matrix].shape[0];
    graph.weight(format!("{name}.no_bias"), &[rows], Recipe::Constant(vec![0.0; rows]))
}
