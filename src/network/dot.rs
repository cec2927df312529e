//! A graph as a Graphviz drawing: a box for each operation, a frame around each repeated layer, colour for what passes made.

use super::infer::typed;
use super::print::{line, operation};
use super::{Dim, Graph, Node, Value, ValueId};
use crate::types::Op;

const HEAD: &str = r##"  graph [fontname="Helvetica", fontsize=18, labelloc=t, nodesep=0.3, ranksep=0.35];
  node [fontname="Helvetica", fontsize=11, shape=box, style="rounded,filled", color="#57606a", fillcolor="#ffffff"];
  edge [fontname="Helvetica", fontsize=9, color="#57606a", fontcolor="#57606a", arrowsize=0.7];
"##;
const FRAME: &str = r##"style="rounded,filled", color="#d0d7de", fillcolor="#f6f8fa", fontsize=13, labeljust=l"##;
const ENDS: &str = r##"shape=ellipse, fillcolor="#ddf4ff", color="#0969da""##;
const FUSED: &str = r##", fillcolor="#ffe8b3", color="#9a6700", penwidth=1.5"##;
const VIEW: &str = r#", style="rounded,filled,dashed""#;

impl Graph {
    /// The network as a Graphviz digraph. A box tells operation, name, weights with their shapes, the type of its results
    /// and, coloured, what was fused into it; a dashed box is a view and a dashed edge an order without data. Nodes of a
    /// numbered module (`layers.0`) stand in one frame.
    #[must_use]
    pub fn dot(&self) -> String {
        let fused = self.nodes.iter().filter(|node| !node.fused.is_empty()).count();
        let title = match fused {
            0 => format!("{}: {} nodes", self.name, self.nodes.len()),
            _ => format!("{}: {} nodes, {fused} of them fused (coloured)", self.name, self.nodes.len()),
        };
        let mut out = format!("digraph {} {{\n{HEAD}  label={};\n", quoted(&self.name), quoted(&title));
        for id in &self.inputs {
            let label = format!("{}\n{}", self.value_name(*id), self.type_text(*id));
            line(&mut out, format_args!("  {} [{ENDS}, label={}];", quoted(self.value_name(*id)), quoted(&label)));
        }
        self.boxes(&mut out);
        for (name, id) in &self.outputs {
            let label = format!("{name}\n{}", self.type_text(*id));
            line(&mut out, format_args!("  {} [{ENDS}, label={}];", output_key(name), quoted(&label)));
        }
        self.edges(&mut out);
        out.push_str("}\n");
        out
    }

    /// The nodes, those of one module together in its frame.
    fn boxes(&self, out: &mut String) {
        let mut frames: Vec<(&str, Vec<&Node>)> = Vec::new();
        for (node, module) in self.placed() {
            match frames.iter_mut().find(|(known, _)| *known == module) {
                Some((_, nodes)) => nodes.push(node),
                None => frames.push((module, vec![node])),
            }
        }
        for (module, nodes) in frames {
            let boxes = nodes.into_iter().map(|node| {
                let (key, label) = (node_key(node), quoted(&self.label(node, module)));
                format!("{key} [label={label}{}];", colours(node))
            });
            if module.is_empty() {
                boxes.for_each(|text| line(out, format_args!("  {text}")));
                continue;
            }
            let frame = quoted(&format!("cluster {module}"));
            line(out, format_args!("  subgraph {frame} {{\n    graph [label={}, {FRAME}];", quoted(module)));
            boxes.for_each(|text| line(out, format_args!("    {text}")));
            out.push_str("  }\n");
        }
    }

    /// The nodes in order, each with the module in whose frame it stands: its own, or a later one that it reads from, lest
    /// the drawing run backwards.
    fn placed(&self) -> Vec<(&Node, &str)> {
        let producers = self.producers();
        let (mut modules, mut module_of) = (Vec::new(), vec![0; self.nodes.len()]);
        let mut placed = Vec::with_capacity(self.nodes.len());
        for id in self.printed_order() {
            let node = &self[id];
            let own = module(&node.name);
            let known = modules.iter().position(|known| *known == own).unwrap_or_else(|| {
                modules.push(own);
                modules.len() - 1
            });
            let read = node.inputs.iter().filter_map(|input| Some(module_of[producers.get(input.0).copied()??.0]));
            let at = if own.is_empty() { known } else { read.fold(known, usize::max) };
            module_of[id.0] = at;
            placed.push((node, modules[at]));
        }
        placed
    }

    fn label(&self, node: &Node, module: &str) -> String {
        let mut lines = vec![local(&node.name, module), operation(&node.op)];
        let weights = node.weights.iter().filter_map(|id| self.weights.get(id.0));
        lines.extend(weights.map(|weight| format!("{} {:?}", local(&weight.name, module), weight.shape)));
        let mut types = Vec::new();
        for value in node.outputs.iter().filter_map(|id| self.values.get(id.0)).filter(|value| !is_empty(value)) {
            let text = typed(value.dtype, &value.shape);
            if !types.contains(&text) {
                types.push(text);
            }
        }
        lines.extend(types.into_iter().map(|text| format!("→ {text}")));
        if !node.fused.is_empty() {
            let parts = node.fused.iter().map(|name| local(name, module)).collect::<Vec<_>>();
            lines.push(format!("fused: {}", parts.join(", ")));
        }
        lines.join("\n")
    }

    fn edges(&self, out: &mut String) {
        let producers = self.producers();
        let producer = |id: ValueId| producers.get(id.0).copied().flatten().map(|node| &self[node]);
        let edge = |out: &mut String, id: ValueId, to: &str| {
            let from = producer(id).map_or_else(|| quoted(self.value_name(id)), node_key);
            let attributes = match (self.values.get(id.0), producer(id)) {
                (Some(value), _) if is_empty(value) => " [style=dashed]".to_string(),
                (Some(value), Some(node)) if node.outputs.len() > 1 => {
                    format!(" [label={}]", quoted(&local(&value.name, module(&node.name))))
                }
                _ => String::new(),
            };
            line(out, format_args!("  {from} -> {to}{attributes};"));
        };
        for node in self.printed_order().into_iter().map(|id| &self[id]) {
            for input in &node.inputs {
                edge(out, *input, &node_key(node));
            }
        }
        for (name, id) in &self.outputs {
            edge(out, *id, &output_key(name));
        }
    }

    fn type_text(&self, id: ValueId) -> String {
        self.values.get(id.0).map_or(String::new(), |value| typed(value.dtype, &value.shape))
    }
}

/// The name up to its last number: `layers.0` of `layers.0.attention.sum`; empty for what stands outside the layers. Of
/// joined names the last one that has a module tells.
fn module(name: &str) -> &str {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let of_part = |part: &'_ str| {
        let mut dots = part.match_indices('.').map(|(at, _)| at);
        dots.rfind(|at| part[..*at].rsplit('.').next().is_some_and(is_number))
    };
    name.rsplit('+').find_map(|part| Some(&part[..of_part(part)?])).unwrap_or_default()
}

/// The name within a module, where it is there; so with each of joined names.
fn local(name: &str, module: &str) -> String {
    let within = |part: &'_ str| part.strip_prefix(module).and_then(|rest| rest.strip_prefix('.')).map(str::to_string);
    let parts = name.split('+').map(|part| within(part).unwrap_or_else(|| part.to_string()));
    parts.collect::<Vec<_>>().join("+")
}

/// A value without columns, which orders and holds nothing.
fn is_empty(value: &Value) -> bool {
    value.shape.contains(&Dim::Fixed(0))
}

fn colours(node: &Node) -> &'static str {
    match node.op {
        Op::Slice { .. } => VIEW,
        _ if node.fused.is_empty() => "",
        _ => FUSED,
    }
}

fn node_key(node: &Node) -> String {
    quoted(&format!("node {}", node.name))
}

fn output_key(name: &str) -> String {
    quoted(&format!("output {name}"))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_module() {
        for (name, expected) in [
            ("layers.0.attention", "layers.0"),
            ("layers.12.mlp_sum.rows", "layers.12"),
            ("layers.0.q+k+v", "layers.0"),
            ("layers.0.mlp_sum+layers.1.attention_norm", "layers.1"),
            ("layers.3.mlp_sum+norm", "layers.3"),
            ("blocks.1.experts.2.up", "blocks.1.experts.2"),
            ("logits", ""),
            ("layers.0", ""),
            ("", ""),
            ("..+.", ""),
        ] {
            assert_eq!(module(name), expected, "{name}");
        }
        assert_eq!(local("layers.0.mlp_sum+layers.1.attention_norm", "layers.1"), "layers.0.mlp_sum+attention_norm");
        assert_eq!(local("hidden", "layers.1"), "hidden");
    }

    #[test]
    fn names_stay_within_their_quotes() -> crate::error::Result<()> {
        let mut graph = Graph::new("a \"b\" \\");
        let ids = graph.input("i\"]; evil [x=\"");
        let table = graph.weight("t\"\n\\", &[4, 2], super::super::Recipe::tensor("t"));
        let x = graph.apply(Op::Embedding { scale: 1.0 }, &[ids], &[table], "layers.0.x\"")?;
        graph.output("out\"", x);
        let dot = graph.dot();
        // Without what is quoted there is nothing of the names left, and every quote has its partner.
        let plain = dot.replace("\\\\", "").replace("\\\"", "");
        let outside: String = plain.split('"').step_by(2).collect();
        assert!(plain.split('"').count() % 2 == 1 && !outside.contains("evil"), "{dot}");
        assert!(dot.contains("cluster layers.0") && dot.contains("[4, 2]"), "{dot}");
        Ok(())
    }
}
