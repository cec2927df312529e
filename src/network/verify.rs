//! The whole-graph verifier: run after construction and after every pass.

use std::collections::HashSet;

use super::{Graph, Node, Recipe, Value, ValueId, Weight};
use crate::error::{Error, Result};
use crate::types::{AttentionSpec, Op};

impl Graph {
    /// Checks that ids are in range, names are unique, each used value has exactly one producer and the type its
    /// operation infers, recipes fit weights, and each cache layer is written once and read after that write.
    ///
    /// # Errors
    /// `InvalidNetwork` naming the node, value, weight or output that is wrong.
    pub fn verify(&self) -> Result<()> {
        self.unique_names()?;
        for weight in &self.weights {
            fits(weight)?;
        }
        self.single_producers()?;
        for node in &self.nodes {
            self.check_node(node).map_err(|e| e.within(&node.name))?;
        }
        self.check_caches()?;
        self.order().map(drop)
    }

    fn unique_names(&self) -> Result<()> {
        unique("node", self.nodes.iter().map(|n| n.name.as_str()))?;
        unique("value", self.values.iter().map(|v| v.name.as_str()))?;
        unique("weight", self.weights.iter().map(|w| w.name.as_str()))?;
        unique("output", self.outputs.iter().map(|(name, _)| name.as_str()))
    }

    fn single_producers(&self) -> Result<()> {
        let mut produced = vec![false; self.values.len()];
        let outputs = self.nodes.iter().flat_map(|node| node.outputs.iter().map(|v| (node.name.as_str(), *v)));
        let inputs = self.inputs.iter().map(|v| ("graph inputs", *v));
        for (producer, value) in inputs.chain(outputs) {
            match produced.get_mut(value.0) {
                None => return Err(invalid(producer, format!("value {} does not exist", value.0))),
                Some(true) => return Err(invalid(producer, format!("`{}` is produced twice", self[value].name))),
                Some(slot) => *slot = true,
            }
        }
        let used = self.nodes.iter().flat_map(|node| node.inputs.iter().map(|v| (node.name.as_str(), *v)));
        let results = self.outputs.iter().map(|(name, v)| (name.as_str(), *v));
        for (consumer, value) in used.chain(results) {
            if !produced.get(value.0).copied().unwrap_or(false) {
                return Err(invalid(consumer, format!("nothing produces {}", self.describe(value))));
            }
        }
        Ok(())
    }

    fn check_node(&self, node: &Node) -> Result<()> {
        let inferred = self.infer_node(&node.op, &node.inputs, &node.weights)?;
        if inferred.len() != node.outputs.len() {
            let why = format!("{} results are stored where there are {}", node.outputs.len(), inferred.len());
            return Err(invalid("outputs", why));
        }
        for (at, (output, (dtype, shape))) in node.outputs.iter().zip(inferred).enumerate() {
            let Value { dtype: stored, shape: stored_shape, .. } = &self[*output];
            if (*stored, stored_shape) != (dtype, &shape) {
                let (is, inferred) = (super::infer::typed(*stored, stored_shape), super::infer::typed(dtype, &shape));
                return Err(invalid(format!("output {at}"), format!("is stored as {is} but is {inferred}")));
            }
        }
        Ok(())
    }

    fn check_caches(&self) -> Result<()> {
        let producers = self.producers();
        let mut written = HashSet::new();
        for node in &self.nodes {
            if let Op::CacheAppend(spec) | Op::FusedAttention { attention: spec, .. } = &node.op
                && !written.insert((spec.group, spec.layer))
            {
                return Err(invalid(&node.name, format!("cache {}.{} is written twice", spec.group, spec.layer)));
            }
            if let Op::Attention(spec) = &node.op {
                let writer = node.inputs.get(1).and_then(|cache| producers[cache.0]).map(|id| &self[id].op);
                if !matches!(writer, Some(Op::CacheAppend(written)) if same_cache(written, spec)) {
                    return Err(invalid(&node.name, "input 1 is not the cache_append of the cache it reads"));
                }
            }
        }
        Ok(())
    }

    fn describe(&self, value: ValueId) -> String {
        self.values.get(value.0).map_or_else(|| format!("value {}", value.0), |v| format!("`{}`", v.name))
    }
}

fn same_cache(a: &AttentionSpec, b: &AttentionSpec) -> bool {
    (a.group, a.layer) == (b.group, b.layer)
}

fn unique<'a>(kind: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        if name.is_empty() || !seen.insert(name) {
            return Err(invalid(name, format!("the {kind} name is empty or used twice")));
        }
    }
    Ok(())
}

/// Checks a weight's shape against what its recipe tells without the checkpoint.
fn fits(weight: &Weight) -> Result<()> {
    let shape = &weight.shape;
    if shape.is_empty() || shape.len() > 2 || shape.contains(&0) {
        return Err(invalid(&weight.name, format!("shape {shape:?} is not that of a vector or matrix")));
    }
    match known_rows(&weight.recipe).map_err(|e| e.within(&weight.name))? {
        Some(rows) if rows != shape[0] => {
            Err(invalid(&weight.name, format!("shape {shape:?} where its recipe has {rows} rows")))
        }
        _ => Ok(()),
    }
}

/// Rows that a recipe yields, where that does not depend on the checkpoint.
fn known_rows(recipe: &Recipe) -> Result<Option<usize>> {
    match recipe {
        Recipe::Tensor(_) | Recipe::Transpose(_) => Ok(None),
        Recipe::Plus { of, .. } => known_rows(of),
        Recipe::Constant(values) => Ok(Some(values.len())),
        Recipe::Rows { of, start, rows } => {
            let end = start.checked_add(*rows).ok_or_else(|| invalid("recipe", "rows overflow"))?;
            match known_rows(of)? {
                Some(all) if end > all => Err(invalid("recipe", format!("rows {start}..{end} of {all}"))),
                _ => Ok(Some(*rows)),
            }
        }
        Recipe::Concat(parts) => parts
            .iter()
            .try_fold(Some(0usize), |sum, part| Ok(known_rows(part)?.and_then(|rows| sum?.checked_add(rows)))),
    }
}

fn invalid(what: impl Into<String>, why: impl Into<String>) -> Error {
    Error::InvalidNetwork { what: what.into(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::super::{CacheGroup, Dim, Graph, Recipe, ValueId, WeightId};
    use crate::error::Error;
    use crate::types::{AttentionSpec, Op};

    /// ids -> embedding -> k = v = q -> append -> attention -> gather.
    fn graph() -> Graph {
        let mut g = Graph::new("g");
        g.caches.push(CacheGroup { layers: vec![0], kv_heads: 2, head_dim: 4, window: None });
        let spec = AttentionSpec { group: 0, layer: 0, heads: 2, kv_heads: 2, head_dim: 4, scale: 0.5, soft_cap: None };
        let ids = g.input("ids");
        let table = g.weight("table", &[16, 8], Recipe::tensor("t"));
        let x = g.apply(Op::Embedding { scale: 1.0 }, &[ids], &[table], "x").unwrap();
        let cache = g.apply(Op::CacheAppend(spec), &[x, x], &[], "cache").unwrap();
        let y = g.apply(Op::Attention(spec), &[x, cache], &[], "y").unwrap();
        let rows = g.apply(Op::GatherRows, &[y], &[], "rows").unwrap();
        g.output("hidden", rows);
        g
    }

    fn culprit(graph: &Graph) -> String {
        match graph.verify() {
            Err(Error::InvalidNetwork { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_sound_graph_passes() {
        graph().verify().unwrap();
    }

    #[test]
    fn every_kind_of_damage_is_named() {
        type Damage = (fn(&mut Graph), &'static str);
        let table: [Damage; 14] = [
            (|g| g.nodes[1].name = "x".into(), "x"),
            (|g| g.values[1].name = "ids".into(), "ids"),
            (|g| g.nodes[0].inputs[0] = ValueId(99), "x"),
            (|g| g.nodes[0].weights[0] = WeightId(7), "x: weight 0"),
            (|g| g.nodes[2].outputs[0] = ValueId(1), "y"),
            (|g| g.nodes[2].outputs[0] = ValueId(77), "y"),
            (|g| g.values[1].shape[1] = Dim::Fixed(9), "x: output 0"),
            (|g| g.weights[0].shape = vec![16, 0], "table"),
            (|g| g.weights[0].recipe = Recipe::tensor("t").rows(0, 3), "table"),
            (|g| g.caches.clear(), "cache: cache group"),
            (|g| g.outputs[0].1 = ValueId(50), "hidden"),
            (|g| g.nodes[2].outputs.clear(), "rows"),
            (|g| g.nodes[0].op = Op::Add, "x: add"),
            (|g| drop(g.nodes.remove(0)), "cache"),
        ];
        for (index, (damage, wanted)) in table.into_iter().enumerate() {
            let mut g = graph();
            damage(&mut g);
            assert_eq!(culprit(&g), wanted, "damage {index}");
        }
    }

    #[test]
    fn a_cycle_is_found() {
        let mut g = graph();
        let y = g.nodes[2].outputs[0];
        g.nodes[1].inputs[0] = y;
        assert!(g.verify().unwrap_err().to_string().contains("its own result"));
    }

    #[test]
    fn a_cache_layer_is_written_once_and_read_after() {
        let mut g = graph();
        let (op, x) = (g.nodes[1].op.clone(), g.nodes[0].outputs[0]);
        let again = g.apply(op, &[x, x], &[], "again").unwrap();
        assert_eq!(culprit(&g), "again");
        g.nodes.pop();
        assert_eq!(again, ValueId(5));
        let Op::Attention(spec) = &mut g.nodes[2].op else { panic!() };
        spec.layer = 1;
        g.caches[0].layers.push(1);
        assert_eq!(culprit(&g), "y");
    }
}
