//! Linear layers that share an input and feed one attention become one, and slices of its result.

use super::flow::{Flow, Match, joined_name, rewrite_all, with_columns};
use crate::error::Result;
use crate::network::{Graph, Node, NodeId, Recipe, ValueId, WeightId};
use crate::types::{DType, Op};

/// Returns how many attentions got a joint linear layer.
pub(super) fn rewrite(graph: &mut Graph) -> Result<usize> {
    rewrite_all(graph, find, join)
}

/// At least two linear layers with one input, in the order in which the attention uses them.
fn find(flow: &Flow, attention: NodeId) -> Option<Match<()>> {
    let mut linears: Vec<NodeId> = Vec::new();
    for value in operands(flow, &flow.graph[attention])? {
        if let Some(linear) = plain_linear(flow, value)
            && !linears.contains(&linear)
        {
            linears.push(linear);
        }
    }
    let sharing = |input| linears.iter().copied().filter(move |id| flow.graph[*id].inputs[0] == input);
    let mut groups = linears.iter().map(|id| sharing(flow.graph[*id].inputs[0]).collect::<Vec<_>>());
    let group = groups.find(|group| group.len() > 1)?;
    Some(Match { nodes: group, detail: () })
}

/// q, k and v of an attention, fused or not.
fn operands(flow: &Flow, node: &Node) -> Option<[ValueId; 3]> {
    match (&node.op, node.inputs.as_slice()) {
        (Op::FusedAttention { .. }, [q, k, v, ..]) => Some([*q, *k, *v]),
        (Op::Attention(_), [q, cache]) => match flow.producer(*cache)?.1.inputs.as_slice() {
            [k, v] => Some([*q, *k, *v]),
            _ => None,
        },
        _ => None,
    }
}

/// The linear layer without activation that makes `value`, seen through rope and through norms of its heads.
fn plain_linear(flow: &Flow, value: ValueId) -> Option<NodeId> {
    match flow.producer(value)? {
        (id, Node { op: Op::Linear { activation: None, .. }, .. }) => Some(id),
        (_, Node { op: Op::Rope(_) | Op::RmsNorm { .. }, inputs, .. }) => plain_linear(flow, inputs[0]),
        _ => None,
    }
}

fn join(graph: &mut Graph, linears: &[Node], (): ()) -> Vec<Node> {
    let name = joined_name(graph, &linears.iter().map(|node| node.name.as_str()).collect::<Vec<_>>());
    let columns = linears.iter().map(|node| graph[node.weights[0]].shape[0]).collect::<Vec<_>>();
    let input = linears[0].inputs[0];
    let (weights, bias) = joint_weights(graph, linears, &columns, &name);
    let shape = with_columns(graph, input, columns.iter().sum());
    let joint = graph.value(name.clone(), DType::F32, shape);
    let op = Op::Linear { bias, activation: None };
    let mut made = vec![Node { name, op, inputs: vec![input], weights, outputs: vec![joint], fused: Vec::new() }];
    let mut start = 0;
    for (linear, columns) in linears.iter().zip(columns) {
        let op = Op::Slice { start, columns };
        made.push(Node { op, inputs: vec![joint], weights: Vec::new(), fused: Vec::new(), ..linear.clone() });
        start += columns;
    }
    made
}

/// Weight and bias of the joint layer; a part without a bias gets zeros when another has one.
fn joint_weights(graph: &mut Graph, linears: &[Node], columns: &[usize], name: &str) -> (Vec<WeightId>, bool) {
    let rows = columns.iter().sum();
    let depth = graph[linears[0].weights[0]].shape[1];
    let matrices = Recipe::concat(linears.iter().map(|node| graph[node.weights[0]].recipe.clone()));
    let matrix = graph.weight(format!("{name}.weight"), &[rows, depth], matrices);
    if linears.iter().all(|node| node.weights.len() == 1) {
        return (vec![matrix], false);
    }
    let biases = Recipe::concat(linears.iter().zip(columns).map(|(node, n)| match node.weights.get(1) {
        Some(bias) => graph[*bias].recipe.clone(),
        None => Recipe::Constant(vec![0.0; *n]),
    }));
    (vec![matrix, graph.weight(format!("{name}.bias"), &[rows], biases)], true)
}
