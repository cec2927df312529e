//! Graph to plan: nodes in execution order become steps, slices become views, weights get their packing and place.

use std::collections::HashMap;

use super::formats::Formats;
use super::memory::assign_slots;
use super::place::{UsedWeight, place};
use super::stored::is_quantized;
use crate::checkpoint::WeightSource;
use crate::engine::{KvGroup, ModelInfo, Output, Packing, Plan, Rows, Step, Target, Value, View, value_dtype};
use crate::error::{Error, Result};
use crate::network::{Dim, Graph, LOGIT_ROWS, Node, Recipe, TOKENS, ValueId, WeightId};
use crate::types::{DType, Op};

/// A plan without checksums, and how each of its weights is made.
pub(super) struct Lowered {
    pub(super) plan: Plan,
    /// By weight index; `None` for the scales of the weight before it.
    pub(super) recipes: Vec<Option<Recipe>>,
}

/// Lowers the live part of a verified graph. How `source` stores a weight decides how its e4m3 form is scaled, and whether
/// it has one: what a quantised checkpoint leaves plain stays plain.
///
/// # Errors
/// `InvalidNetwork` naming a value that a plan cannot express, or what the graph's own order refuses.
pub(super) fn lower(graph: &Graph, model: ModelInfo, formats: Formats, source: &dyn WeightSource) -> Result<Lowered> {
    let mut lowering = Lowering {
        graph,
        formats,
        source,
        operands: vec![Operand::Dropped; graph.values.len()],
        values: Vec::new(),
        weights: Vec::new(),
        places: HashMap::new(),
        steps: Vec::new(),
    };
    for node in graph.live_order()? {
        lowering.node(&graph.nodes[node.0])?;
    }
    let outputs =
        graph.outputs.iter().map(|(name, value)| lowering.output(name, *value)).collect::<Result<Vec<_>>>()?;
    let Lowering { mut values, weights, steps, .. } = lowering;
    let slots = assign_slots(&mut values, &steps, &outputs);
    let (weights, recipes) = place(graph, &weights, source);
    let kv_groups = kv_groups(graph, formats.kv);
    let Formats { target, precision, .. } = formats;
    let plan = Plan { invariant: false, target, precision, model, values, slots, weights, kv_groups, steps, outputs };
    Ok(Lowered { plan, recipes })
}

/// What a graph value is to a plan step.
#[derive(Debug, Clone, Copy)]
enum Operand {
    /// A graph input or a cache: it is not listed.
    Dropped,
    View(View),
}

struct Lowering<'g> {
    graph: &'g Graph,
    formats: Formats,
    source: &'g dyn WeightSource,
    /// By graph value.
    operands: Vec<Operand>,
    values: Vec<Value>,
    weights: Vec<UsedWeight>,
    /// Index into `weights` by graph weight and element type.
    places: HashMap<(WeightId, DType), usize>,
    steps: Vec<Step>,
}

impl Lowering<'_> {
    fn node(&mut self, node: &Node) -> Result<()> {
        if let Op::Slice { start, columns } = node.op {
            return self.slice(node, start, columns);
        }
        let inputs = self.inputs(node);
        let weights = (0..node.weights.len()).map(|position| self.weight(node, position)).collect();
        let mut outputs = Vec::with_capacity(node.outputs.len());
        let first = inputs.first().map(|view| self.values[view.value].dtype);
        for (index, output) in node.outputs.iter().enumerate() {
            let dtype = match self.is_output(*output, Some("logits")) {
                true => DType::F32,
                false => value_dtype(self.formats.target, self.formats.precision, &node.op, index, first),
            };
            outputs.extend(self.define(*output, dtype)?);
        }
        let fused = if node.fused.is_empty() { vec![node.name.clone()] } else { node.fused.clone() };
        self.steps.push(Step { name: node.name.clone(), op: node.op.clone(), inputs, weights, outputs, fused });
        Ok(())
    }

    fn slice(&mut self, node: &Node, start: usize, columns: usize) -> Result<()> {
        let (Some(Operand::View(of)), [output]) = (node.inputs.first().map(|id| self.operands[id.0]), &*node.outputs)
        else {
            return Err(invalid(&node.name, "a slice needs a computed matrix"));
        };
        let view = View { value: of.value, start: of.start + start, columns };
        self.operands[output.0] = Operand::View(view);
        Ok(())
    }

    fn inputs(&self, node: &Node) -> Vec<View> {
        let listed = |id: &ValueId| match self.operands[id.0] {
            Operand::View(view) => Some(view),
            Operand::Dropped => None,
        };
        node.inputs.iter().filter_map(listed).collect()
    }

    /// A plan value for a node's result; a cache has no columns and needs none.
    fn define(&mut self, id: ValueId, dtype: DType) -> Result<Option<View>> {
        let value = &self.graph.values[id.0];
        let (rows, columns) = match value.shape.as_slice() {
            [Dim::Named(rows), Dim::Fixed(columns)] if rows == TOKENS => (Rows::Tokens, *columns),
            [Dim::Named(rows), Dim::Fixed(columns)] if rows == LOGIT_ROWS => (Rows::LogitRows, *columns),
            _ => return Err(invalid(&value.name, "its shape is not [tokens or logit_rows, columns]")),
        };
        if columns == 0 {
            return Ok(None);
        }
        if value.dtype != DType::F32 {
            return Err(invalid(&value.name, "computed values are f32 in a graph"));
        }
        let view = View { value: self.values.len(), start: 0, columns };
        self.values.push(Value { name: value.name.clone(), rows, columns, slot: 0, dtype });
        self.operands[id.0] = Operand::View(view);
        Ok(Some(view))
    }

    /// Index of the node's weight at `position`; a weight used twice in one type is one weight, in panels if either use
    /// needs them.
    fn weight(&mut self, node: &Node, position: usize) -> usize {
        let id = node.weights[position];
        let (dtype, packing) = self.storage(node, position);
        let place = *self.places.entry((id, dtype)).or_insert_with(|| {
            let place = self.weights.len();
            self.weights.push(UsedWeight { id, dtype, packing, scales: None });
            if dtype.is_scaled() {
                let scales = Some(dtype);
                self.weights.push(UsedWeight { id, dtype: DType::F32, packing: Packing::RowMajor, scales });
            }
            place
        });
        if packing == Packing::Panels {
            self.weights[place].packing = packing;
        }
        place
    }

    /// Vectors stay f32, matrices take the engine's element type, and those that a CPU multiplies go into panels.
    fn storage(&self, node: &Node, position: usize) -> (DType, Packing) {
        let Formats { target, precision, head, .. } = self.formats;
        let packing = match target {
            Target::Cpu => Packing::Panels,
            Target::Cuda => Packing::RowMajor,
        };
        match (&node.op, position) {
            (Op::Linear { .. }, 0) if self.is_output(node.outputs[0], None) => (head, packing),
            (Op::Linear { .. }, 0) => (self.matrix(&node.weights[..1]), packing),
            (Op::GatedLinear { .. }, 0 | 1) => (self.matrix(&node.weights[..2]), packing),
            (Op::Embedding { .. } | Op::PositionEmbedding, 0) => (precision.base(), Packing::RowMajor),
            _ => (DType::F32, Packing::RowMajor),
        }
    }

    /// Element type of the matrices of one linear.
    fn matrix(&self, weights: &[WeightId]) -> DType {
        let quantized = |id: &WeightId| is_quantized(self.source, &self.graph.weights[id.0].recipe);
        let left_plain = self.source.dtype() == Some(DType::E4M3) && !weights.iter().any(quantized);
        if left_plain { self.formats.precision.base() } else { self.formats.precision.matrix() }
    }

    /// Whether a value leaves the graph as it is or under a soft cap, by that name or any.
    fn is_output(&self, id: ValueId, name: Option<&str>) -> bool {
        let capped = |node: &&Node| matches!(node.op, Op::SoftCap { .. }) && node.inputs == [id];
        let ids = [Some(id), self.graph.nodes.iter().find(capped).map(|node| node.outputs[0])];
        self.graph
            .outputs
            .iter()
            .any(|(output, value)| ids.contains(&Some(*value)) && name.is_none_or(|name| name == output))
    }

    fn output(&self, name: &str, id: ValueId) -> Result<Output> {
        match self.operands[id.0] {
            Operand::View(View { value, start: 0, columns }) if columns == self.values[value].columns => {
                Ok(Output { name: name.to_string(), value })
            }
            _ => Err(invalid(name, "an output must be a whole computed value")),
        }
    }
}

fn kv_groups(graph: &Graph, dtype: DType) -> Vec<KvGroup> {
    let group = |cache: &crate::network::CacheGroup| KvGroup {
        layers: cache.layers.clone(),
        kv_heads: cache.kv_heads,
        head_dim: cache.head_dim,
        dtype,
        window: cache.window,
    };
    graph.caches.iter().map(group).collect()
}

fn invalid(what: &str, why: &str) -> Error {
    Error::InvalidNetwork { what: what.to_string(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Dummy;
    use crate::engine::Precision;
    use crate::types::Activation;

    fn model() -> ModelInfo {
        ModelInfo {
            architecture: "Test".into(),
            vocab_size: 10,
            hidden_size: 8,
            layers: 1,
            max_positions: 4,
            eos_token_ids: vec![],
            bos_token_id: None,
        }
    }

    fn lower_as(graph: &Graph, target: Target, precision: Precision) -> Result<Lowered> {
        let formats = Formats { target, precision, kv: precision.base(), head: precision.base() };
        lower(graph, model(), formats, &Dummy::new([], 0))
    }

    /// `logits = head(gather(gelu(x[2..8][1..5])))` and one slice that nobody reads, stored last node first.
    fn network() -> Result<Graph> {
        let mut graph = Graph::new("test");
        let ids = graph.input("ids");
        let table = graph.weight("table", &[10, 8], Recipe::tensor("table"));
        let head = graph.weight("head", &[10, 4], Recipe::tensor("head"));
        let x = graph.apply(Op::Embedding { scale: 1.0 }, &[ids], &[table], "x")?;
        let outer = graph.apply(Op::Slice { start: 2, columns: 6 }, &[x], &[], "outer")?;
        graph.apply(Op::Slice { start: 0, columns: 1 }, &[outer], &[], "dead")?;
        let inner = graph.apply(Op::Slice { start: 1, columns: 4 }, &[outer], &[], "inner")?;
        let active = graph.apply(Op::Activate { activation: Activation::Gelu }, &[inner], &[], "active")?;
        let picked = graph.apply(Op::GatherRows, &[active], &[], "picked")?;
        let logits = graph.apply(Op::Linear { bias: false, activation: None }, &[picked], &[head], "logits")?;
        graph.output("logits", logits);
        graph.nodes.reverse();
        Ok(graph)
    }

    #[test]
    fn slices_of_slices_become_one_view_and_order_follows_the_data() -> Result<()> {
        let Lowered { plan, recipes } = lower_as(&network()?, Target::Cpu, Precision::Bf16)?;
        let names: Vec<&str> = plan.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["x", "active", "picked", "logits"]);
        assert_eq!(plan.steps[1].inputs, [View { value: 0, start: 3, columns: 4 }]);
        assert!(plan.steps[0].inputs.is_empty(), "ids are not listed");
        assert_eq!(plan.steps[3].fused, ["logits"]);
        assert_eq!(recipes, [Some(Recipe::tensor("table")), Some(Recipe::tensor("head"))]);
        let kinds: Vec<_> = plan.weights.iter().map(|spec| (spec.packing, spec.dtype, spec.offset)).collect();
        assert_eq!(kinds, [(Packing::RowMajor, DType::BF16, 0), (Packing::Panels, DType::BF16, 4096)]);
        Ok(())
    }

    #[test]
    fn what_a_soft_cap_makes_logits_from_is_the_head_and_stays_f32() -> Result<()> {
        let mut graph = network()?;
        let (_, uncapped) = graph.outputs.remove(0);
        graph.values[uncapped.0].name = "uncapped".into();
        graph.nodes.iter_mut().filter(|node| node.name == "logits").for_each(|node| node.name = "uncapped".into());
        let capped = graph.apply(Op::SoftCap { cap: 30.0 }, &[uncapped], &[], "logits")?;
        graph.output("logits", capped);
        let formats = Formats { target: Target::Cuda, precision: Precision::Fp8, kv: DType::BF16, head: DType::BF16 };
        let Lowered { plan, .. } = lower(&graph, model(), formats, &Dummy::new([], 0))?;
        let value = |name: &str| plan.values.iter().find(|value| value.name == name).map(|value| value.dtype);
        assert_eq!(
            ["active", "uncapped", "logits"].map(value),
            [Some(DType::BF16), Some(DType::F32), Some(DType::F32)]
        );
        let head = plan.weights.iter().find(|weight| weight.name == "head").expect("is there");
        assert_eq!((head.dtype, head.scale), (DType::BF16, None));
        Ok(())
    }

    #[test]
    fn an_output_that_is_a_part_of_a_value_is_refused() -> Result<()> {
        let mut graph = network()?;
        let inner = graph.values.iter().position(|value| value.name == "inner").expect("is there");
        graph.output("part", ValueId(inner));
        let error = lower_as(&graph, Target::Cpu, Precision::F32).err().expect("refused");
        assert!(matches!(&error, Error::InvalidNetwork { what, .. } if what == "part"), "{error}");
        Ok(())
    }
}
