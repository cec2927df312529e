//! Computes the wanted rows alone as early as possible: an operation that works row by row and whose results are only
//! needed at the gathered rows runs on those. A prompt's last feed-forward layer then costs what its logits cost.

use std::collections::HashMap;

use super::flow::{Flow, fresh_name, remove};
use crate::error::Result;
use crate::network::{Dim, Graph, LOGIT_ROWS, NodeId, ValueId};
use crate::types::Op;

/// Returns how many operations now run on the gathered rows.
pub(super) fn rewrite(graph: &mut Graph) -> Result<usize> {
    let flow = Flow::of(graph)?;
    let pruned = pruned(&flow);
    let gathers = flow.order.iter().copied().filter(|id| is_gather(flow.graph, *id)).collect::<Vec<_>>();
    if pruned.is_empty() {
        return Ok(0);
    }
    let gathered = pruned.iter().flat_map(|id| graph[*id].outputs.clone()).collect::<Vec<_>>();
    for value in &gathered {
        graph.values[value.0].shape[0] = Dim::Named(LOGIT_ROWS.into());
    }
    enter(graph, &pruned, &gathered, &gathers)?;
    bypass(graph, &gathers, &gathered);
    Ok(pruned.len())
}

fn is_gather(graph: &Graph, id: NodeId) -> bool {
    matches!(graph[id].op, Op::GatherRows)
}

/// Nodes all of whose results are used by gathers and by such nodes alone.
fn pruned(flow: &Flow) -> Vec<NodeId> {
    let mut pruned = Vec::new();
    for id in flow.order.iter().rev() {
        let node = &flow.graph[*id];
        let wanted = |value: &ValueId| {
            !flow.is_output(*value)
                && flow.users(*value).iter().all(|user| is_gather(flow.graph, *user) || pruned.contains(user))
        };
        if row_by_row(&node.op) && node.outputs.iter().all(wanted) {
            pruned.push(*id);
        }
    }
    pruned
}

/// Whether row `i` of the results depends on row `i` of the operands alone, which are all matrices.
fn row_by_row(op: &Op) -> bool {
    match op {
        Op::Linear { .. }
        | Op::GatedLinear { .. }
        | Op::RmsNorm { .. }
        | Op::LayerNorm { .. }
        | Op::AddRmsNorm { .. }
        | Op::AddLayerNorm { .. }
        | Op::Add
        | Op::Mul
        | Op::Activate { .. }
        | Op::SoftCap { .. }
        | Op::Rope(_)
        | Op::Slice { .. } => true,
        Op::Embedding { .. }
        | Op::PositionEmbedding
        | Op::RopeAngles { .. }
        | Op::CacheAppend(_)
        | Op::Attention(_)
        | Op::FusedAttention { .. }
        | Op::GatherRows => false,
    }
}

/// Puts a gather on every value by which a pruned node still sees all rows; one that is there already serves.
fn enter(graph: &mut Graph, pruned: &[NodeId], gathered: &[ValueId], gathers: &[NodeId]) -> Result<()> {
    let present = gathers.iter().map(|id| (graph[*id].inputs[0], graph[*id].outputs[0]));
    let mut rows: HashMap<ValueId, ValueId> = present.collect();
    for id in pruned {
        for operand in 0..graph[*id].inputs.len() {
            let value = graph[*id].inputs[operand];
            if gathered.contains(&value) {
                continue;
            }
            let taken = match rows.get(&value) {
                Some(taken) => *taken,
                None => {
                    let name = fresh_name(graph, format!("{}.rows", graph[value].name));
                    let taken = graph.apply(Op::GatherRows, &[value], &[], name)?;
                    rows.insert(value, taken);
                    taken
                }
            };
            graph.nodes[id.0].inputs[operand] = taken;
        }
    }
    Ok(())
}

/// Removes the gathers whose operand has the gathered rows already.
fn bypass(graph: &mut Graph, gathers: &[NodeId], gathered: &[ValueId]) {
    let idle = gathers.iter().copied().filter(|id| gathered.contains(&graph[*id].inputs[0])).collect::<Vec<_>>();
    let direct = idle.iter().map(|id| (graph[*id].outputs[0], graph[*id].inputs[0])).collect::<HashMap<_, _>>();
    let operands = graph.nodes.iter_mut().flat_map(|node| &mut node.inputs);
    for id in operands.chain(graph.outputs.iter_mut().map(|(_, id)| id)) {
        if let Some(source) = direct.get(id) {
            *id = *source;
        }
    }
    let gone = (0..graph.nodes.len()).map(|index| idle.contains(&NodeId(index))).collect::<Vec<_>>();
    remove(graph, &gone);
}
