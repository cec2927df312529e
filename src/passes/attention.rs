//! Rope on q and k, the append to the cache and the attention over it become one operation.

use super::flow::{Flow, Match, rewrite_all};
use crate::error::Result;
use crate::network::{Graph, Node, NodeId, ValueId};
use crate::types::{AttentionSpec, Op, RopeSpec};

/// Returns how many attentions were fused.
pub(super) fn rewrite(graph: &mut Graph) -> Result<usize> {
    rewrite_all(graph, find, fuse)
}

/// Operation and operands of the fused node.
type Fused = (Op, Vec<ValueId>);

fn find(flow: &Flow, attention: NodeId) -> Option<Match<Fused>> {
    let Node { op: Op::Attention(spec), inputs, .. } = &flow.graph[attention] else {
        return None;
    };
    let (append, node) = flow.private(inputs[1])?;
    let (q, k, v) = (inputs[0], node.inputs[0], node.inputs[1]);
    if !matches!(&node.op, Op::CacheAppend(written) if written == spec) {
        return None;
    }
    match (roped(flow, q), roped(flow, k)) {
        (None, None) => Some(Match {
            nodes: vec![append, attention],
            detail: (Op::FusedAttention { attention: *spec, rope: None }, vec![q, k, v]),
        }),
        (Some(q), Some(k)) => with_rope(flow, *spec, [q, k], v, [append, attention]),
        _ => None,
    }
}

/// The rope that makes `value`.
fn roped(flow: &Flow, value: ValueId) -> Option<NodeId> {
    flow.producer(value).filter(|(_, node)| matches!(node.op, Op::Rope(_))).map(|(id, _)| id)
}

fn with_rope(
    flow: &Flow,
    attention: AttentionSpec,
    ropes: [NodeId; 2],
    v: ValueId,
    rest: [NodeId; 2],
) -> Option<Match<Fused>> {
    let (q, k) = (rope(flow, ropes[0])?, rope(flow, ropes[1])?);
    if q.angles != k.angles || q.spec != k.spec || q.spec.head_dim != attention.head_dim {
        return None;
    }
    Some(Match {
        nodes: [ropes, rest].concat(),
        detail: (Op::FusedAttention { attention, rope: Some(q.spec) }, vec![q.of, k.of, v, q.angles]),
    })
}

struct Rope {
    of: ValueId,
    angles: ValueId,
    spec: RopeSpec,
}

/// A rope whose result nobody else uses.
fn rope(flow: &Flow, id: NodeId) -> Option<Rope> {
    let node = &flow.graph[id];
    flow.private(node.outputs[0])?;
    match (&node.op, node.inputs.as_slice()) {
        (Op::Rope(spec), [of, angles]) => Some(Rope { of: *of, angles: *angles, spec: *spec }),
        _ => None,
    }
}

fn fuse(_: &mut Graph, replaced: &[Node], (op, inputs): Fused) -> Vec<Node> {
    let attention = replaced[replaced.len() - 1].clone();
    vec![Node { op, inputs, ..attention }]
}
