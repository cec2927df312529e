//! Graph to plan: nodes in execution order become steps, slices become views, weights get their packing and place.

use std::collections::HashMap;

use super::memory::assign_slots;
use crate::engine::{
    KvGroup, ModelInfo, Output, Packing, Plan, Precision, Rows, ScaleSpec, Step, Target, Value, View, WeightSpec,
};
use crate::error::{Error, Result};
use crate::network::{Dim, Graph, LOGIT_ROWS, Node, Recipe, TOKENS, ValueId, WeightId};
use crate::types::{DType, Op};

/// What a plan computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arithmetic {
    pub(super) target: Target,
    pub(super) precision: Precision,
    /// Of the KV cache.
    pub(super) kv: DType,
    /// Of the layer that makes the logits.
    pub(super) head: DType,
}

impl Arithmetic {
    /// The precision's own types: 16-bit caches and heads with 8-bit weights.
    pub(super) fn new(target: Target, precision: Precision) -> Self {
        let half = half(precision);
        Self { target, precision, kv: half, head: half }
    }

    /// Of matrices that are multiplied.
    fn matrix(self) -> DType {
        if self.precision == Precision::Fp8 { DType::E4M3 } else { half(self.precision) }
    }
}

/// The type of tables and caches.
fn half(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 | Precision::Fp8 => DType::BF16,
        Precision::F16 => DType::F16,
    }
}

/// How a weight's bytes are made.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Recipe(Recipe),
    /// Of the weight before it: the scale by which each row was divided.
    RowScales,
}

/// A plan without checksums, and how each of its weights is made.
pub(super) struct Lowered {
    pub(super) plan: Plan,
    /// By weight index.
    pub(super) contents: Vec<Content>,
}

/// Lowers the live part of a verified graph.
///
/// # Errors
/// `InvalidNetwork` naming a value that a plan cannot express, or what the graph's own order refuses.
pub(super) fn lower(graph: &Graph, model: ModelInfo, arithmetic: Arithmetic) -> Result<Lowered> {
    let mut lowering = Lowering {
        graph,
        arithmetic,
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
    let (weights, contents) = place_weights(graph, &weights);
    let kv_groups = kv_groups(graph, arithmetic.kv);
    let Arithmetic { target, precision, .. } = arithmetic;
    let plan = Plan { target, precision, invariant: false, model, values, slots, weights, kv_groups, steps, outputs };
    Ok(Lowered { plan, contents })
}

/// What a graph value is to a plan step.
#[derive(Debug, Clone, Copy)]
enum Operand {
    /// A graph input or a cache: it is not listed.
    Dropped,
    View(View),
}

/// A weight in use: vectors stay f32, matrices take the engine's dtype, and those that a CPU multiplies go into panels.
/// An e4m3 weight is followed by its scales.
struct UsedWeight {
    id: WeightId,
    dtype: DType,
    packing: Packing,
    scales: bool,
}

struct Lowering<'g> {
    graph: &'g Graph,
    arithmetic: Arithmetic,
    /// By graph value.
    operands: Vec<Operand>,
    values: Vec<Value>,
    weights: Vec<UsedWeight>,
    /// Index into `weights` by graph weight and type.
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
        for (position, output) in node.outputs.iter().enumerate() {
            let dtype = self.computed(node, position);
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

    /// The type of a node's result. Sums stay f32 on a GPU, as do angles and logits.
    fn computed(&self, node: &Node, position: usize) -> DType {
        let sums = match node.op {
            Op::Embedding | Op::PositionEmbedding | Op::Add | Op::RopeAngles { .. } => true,
            Op::AddRmsNorm { .. } | Op::AddLayerNorm { .. } => position == 0,
            Op::GatherRows => match node.inputs.first().map(|id| self.operands[id.0]) {
                Some(Operand::View(view)) => self.values[view.value].dtype == DType::F32,
                _ => true,
            },
            _ => self.is_output(node),
        };
        if sums || self.arithmetic.target == Target::Cpu { DType::F32 } else { half(self.arithmetic.precision) }
    }

    fn is_output(&self, node: &Node) -> bool {
        self.graph.outputs.iter().any(|(_, value)| node.outputs.contains(value))
    }

    /// A plan value for a node's result; a cache has no columns and needs none.
    fn define(&mut self, id: ValueId, computed: DType) -> Result<Option<View>> {
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
            return Err(invalid(&value.name, "computed values are f32"));
        }
        let view = View { value: self.values.len(), start: 0, columns };
        self.values.push(Value { name: value.name.clone(), rows, columns, dtype: computed, slot: 0 });
        self.operands[id.0] = Operand::View(view);
        Ok(Some(view))
    }

    /// Index of the node's weight at `position`; a weight used twice is one weight, in panels if either use needs them.
    fn weight(&mut self, node: &Node, position: usize) -> usize {
        let id = node.weights[position];
        let (dtype, packing) = self.storage(node, position);
        let place = match self.places.get(&(id, dtype)) {
            Some(place) => *place,
            None => {
                let place = self.weights.len();
                self.places.insert((id, dtype), place);
                self.weights.push(UsedWeight { id, dtype, packing, scales: false });
                if dtype == DType::E4M3 {
                    let packing = Packing::RowMajor;
                    self.weights.push(UsedWeight { id, dtype: DType::F32, packing, scales: true });
                }
                place
            }
        };
        if packing == Packing::Panels {
            self.weights[place].packing = packing;
        }
        place
    }

    fn storage(&self, node: &Node, position: usize) -> (DType, Packing) {
        let multiplied = match self.arithmetic.target {
            Target::Cpu => Packing::Panels,
            Target::Cuda => Packing::RowMajor,
        };
        match (&node.op, position) {
            (Op::Linear { .. }, 0) if self.is_output(node) => (self.arithmetic.head, multiplied),
            (Op::Linear { .. }, 0) | (Op::GatedLinear { .. }, 0 | 1) => (self.arithmetic.matrix(), multiplied),
            (Op::Embedding | Op::PositionEmbedding, 0) => (half(self.arithmetic.precision), Packing::RowMajor),
            _ => (DType::F32, Packing::RowMajor),
        }
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

/// Gives every weight its place: one after another, each at the alignment of its packing.
fn place_weights(graph: &Graph, used: &[UsedWeight]) -> (Vec<WeightSpec>, Vec<Content>) {
    let mut end = 0u64;
    let place = |(index, weight): (usize, &UsedWeight)| {
        let of = &graph.weights[weight.id.0];
        let mut spec = WeightSpec {
            name: if weight.scales { format!("{}.scales", of.name) } else { of.name.clone() },
            dtype: weight.dtype,
            shape: if weight.scales { of.shape[..1].to_vec() } else { of.shape.clone() },
            packing: weight.packing,
            scale: (weight.dtype == DType::E4M3).then(|| ScaleSpec { weight: index + 1, block: [1, of.shape[1]] }),
            offset: end.next_multiple_of(weight.packing.alignment()),
            bytes: 0,
            checksum: String::new(),
        };
        // A size that overflows stays zero and fails the plan's validation.
        spec.bytes = spec.packed_bytes().unwrap_or(0);
        end = spec.offset.saturating_add(spec.bytes);
        let content = if weight.scales { Content::RowScales } else { Content::Recipe(of.recipe.clone()) };
        (spec, content)
    };
    used.iter().enumerate().map(place).unzip()
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

    /// `logits = head(gather(gelu(x[2..8][1..5])))` and one slice that nobody reads, stored last node first.
    fn network() -> Result<Graph> {
        let mut graph = Graph::new("test");
        let ids = graph.input("ids");
        let table = graph.weight("table", &[10, 8], Recipe::tensor("table"));
        let head = graph.weight("head", &[10, 4], Recipe::tensor("head"));
        let x = graph.apply(Op::Embedding, &[ids], &[table], "x")?;
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
        let Lowered { plan, contents } = lower(&network()?, model(), Arithmetic::new(Target::Cpu, Precision::Bf16))?;
        let names: Vec<&str> = plan.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["x", "active", "picked", "logits"]);
        assert_eq!(plan.steps[1].inputs, [View { value: 0, start: 3, columns: 4 }]);
        assert!(plan.steps[0].inputs.is_empty(), "ids are not listed");
        assert_eq!(plan.steps[3].fused, ["logits"]);
        assert_eq!(contents, ["table", "head"].map(|name| Content::Recipe(Recipe::tensor(name))));
        let kinds: Vec<_> = plan.weights.iter().map(|spec| (spec.packing, spec.dtype, spec.offset)).collect();
        assert_eq!(kinds, [(Packing::RowMajor, DType::BF16, 0), (Packing::Panels, DType::BF16, 4096)]);
        Ok(())
    }

    #[test]
    fn an_output_that_is_a_part_of_a_value_is_refused() -> Result<()> {
        let mut graph = network()?;
        let inner = graph.values.iter().position(|value| value.name == "inner").expect("is there");
        graph.output("part", ValueId(inner));
        let error = lower(&graph, model(), Arithmetic::new(Target::Cpu, Precision::F32)).err().expect("refused");
        assert!(matches!(&error, Error::InvalidNetwork { what, .. } if what == "part"), "{error}");
        Ok(())
    }
}
