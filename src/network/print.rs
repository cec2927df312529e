//! A graph for people: one line per weight and per node, in execution order.

use std::fmt::Write;

use super::{Graph, Node, NodeId, ValueId, WeightId};
use crate::types::{Activation, Op};

impl Graph {
    /// The network as text. Two graphs that differ only in the order of [`Graph::nodes`] print the same nodes.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!("network {}\n", self.name);
        for id in &self.inputs {
            line(&mut out, format_args!("  input   {} {}", self.value_name(*id), self.shape_text(&[*id])));
        }
        for (index, group) in self.caches.iter().enumerate() {
            let (heads, width) = (group.kv_heads, group.head_dim);
            let layers =
                if group.layers.len() == 1 { "1 layer".into() } else { format!("{} layers", group.layers.len()) };
            let window = group.window.map_or(String::new(), |w| format!(", window {w}"));
            line(&mut out, format_args!("  cache   {index}: {layers}, {heads} kv heads of {width}{window}"));
        }
        for (name, id) in &self.outputs {
            let (value, shape) = (self.value_name(*id), self.shape_text(&[*id]));
            line(&mut out, format_args!("  output  {name} {shape} = {value}"));
        }
        let order = self.printed_order();
        out.push_str("weights\n");
        table(&mut out, self.weights_by_use(&order).into_iter().map(|id| self.weight_text(id)));
        out.push_str("nodes\n");
        table(&mut out, order.into_iter().map(|id| self.node_text(&self[id])));
        out
    }

    /// Columns of a node's line: results, their shape, the operation with operands.
    fn node_text(&self, node: &Node) -> [String; 3] {
        let names = node.outputs.iter().map(|id| self.value_name(*id)).collect::<Vec<_>>().join(", ");
        let inputs = node.inputs.iter().map(|id| self.value_name(*id)).collect::<Vec<_>>().join(", ");
        let weights = node.weights.iter().map(|id| self.weight_name(*id)).collect::<Vec<_>>().join(", ");
        let operands = if weights.is_empty() { inputs } else { format!("{inputs}; {weights}") };
        let (op, attributes) = (node.op.name(), attributes(&node.op));
        let mut call = format!("= {op}({operands})");
        if !attributes.is_empty() {
            call = format!("{call} {attributes}");
        }
        if !node.fused.is_empty() {
            let module = &node.name[..node.name.rfind('.').map_or(0, |dot| dot + 1)];
            let local = node.fused.iter().map(|name| name.strip_prefix(module).unwrap_or(name)).collect::<Vec<_>>();
            call = format!("{call}  <- {}", local.join(", "));
        }
        [names, self.shape_text(&node.outputs), call]
    }

    fn weight_text(&self, id: WeightId) -> [String; 3] {
        let weight = &self[id];
        [weight.name.clone(), format!("{:?}", weight.shape), weight.recipe.to_string()]
    }

    /// Weights in the order in which `nodes` use them first, then those that no node uses.
    fn weights_by_use(&self, nodes: &[NodeId]) -> Vec<WeightId> {
        let mut listed = vec![false; self.weights.len()];
        let used = nodes.iter().flat_map(|id| self[*id].weights.iter().copied());
        let first = |id: &WeightId| listed.get_mut(id.0).is_some_and(|seen| !std::mem::replace(seen, true));
        used.chain((0..self.weights.len()).map(WeightId)).filter(first).collect()
    }

    /// Execution order; a graph without one (the verifier refuses it) prints as stored.
    pub(super) fn printed_order(&self) -> Vec<NodeId> {
        self.order().unwrap_or_else(|_| (0..self.nodes.len()).map(NodeId).collect())
    }

    pub(super) fn value_name(&self, id: ValueId) -> &str {
        self.values.get(id.0).map_or("?", |value| &value.name)
    }

    fn weight_name(&self, id: WeightId) -> &str {
        self.weights.get(id.0).map_or("?", |weight| &weight.name)
    }

    /// The distinct types among `ids`; f32 goes without saying.
    fn shape_text(&self, ids: &[ValueId]) -> String {
        let mut shapes = Vec::new();
        for value in ids.iter().filter_map(|id| self.values.get(id.0)) {
            let text = super::infer::typed(value.dtype, &value.shape);
            let text = text.strip_prefix("f32").map_or(text.clone(), str::to_string);
            if !shapes.contains(&text) {
                shapes.push(text);
            }
        }
        shapes.join(" ")
    }
}

/// An operation with its attributes.
pub(super) fn operation(op: &Op) -> String {
    match attributes(op) {
        none if none.is_empty() => op.name().to_string(),
        attributes => format!("{} {attributes}", op.name()),
    }
}

/// What an operation carries beside its operands.
fn attributes(op: &Op) -> String {
    match op {
        Op::Linear { activation: Some(activation), .. }
        | Op::GatedLinear { activation, .. }
        | Op::Activate { activation } => function(*activation).to_string(),
        Op::RmsNorm { eps } | Op::LayerNorm { eps } | Op::AddRmsNorm { eps } | Op::AddLayerNorm { eps } => {
            format!("eps={eps:?}")
        }
        Op::Embedding { scale } | Op::RopeAngles { scale } if *scale != 1.0 => format!("scale={scale}"),
        Op::SoftCap { cap } => format!("cap={cap}"),
        Op::Rope(spec) => format!("{} of {}", spec.rotary_dim, spec.head_dim),
        Op::Slice { start, columns } => format!("columns {start}..{}", start + columns),
        Op::CacheAppend(spec) => format!("cache={}.{}", spec.group, spec.layer),
        Op::Attention(spec) => heads(spec),
        Op::FusedAttention { attention, rope: None } => heads(attention),
        Op::FusedAttention { attention, rope: Some(rope) } => format!("{} rope={}", heads(attention), rope.rotary_dim),
        Op::Embedding { .. }
        | Op::PositionEmbedding
        | Op::RopeAngles { .. }
        | Op::Linear { activation: None, .. }
        | Op::Add
        | Op::Mul
        | Op::GatherRows => String::new(),
    }
}

fn heads(spec: &crate::types::AttentionSpec) -> String {
    let (q, kv, width) = (spec.heads, spec.kv_heads, spec.head_dim);
    let cap = spec.soft_cap.map_or(String::new(), |cap| format!(" cap={cap}"));
    format!("cache={}.{} heads={q}/{kv}x{width} scale={}{cap}", spec.group, spec.layer, spec.scale)
}

fn function(activation: Activation) -> &'static str {
    match activation {
        Activation::Silu => "silu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_tanh",
        Activation::Relu => "relu",
    }
}

/// Rows of three columns, the first two padded to their widest cell.
fn table(out: &mut String, rows: impl Iterator<Item = [String; 3]>) {
    let rows = rows.collect::<Vec<_>>();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    for [a, b, c] in &rows {
        line(out, format_args!("  {a:first$}  {b:second$}  {c}"));
    }
}

/// Appends a line.
pub(super) fn line(out: &mut String, text: std::fmt::Arguments) {
    writeln!(out, "{text}").expect("writing to a string does not fail");
}
