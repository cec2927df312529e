//! Construction: each call checks its operands at once, so that an error names the node that is wrong.

use super::infer::{Operand, infer};
use super::{Dim, Graph, Node, NodeId, Recipe, TOKENS, Value, ValueId, Weight, WeightId};
use crate::error::{Error, Result};
use crate::types::{DType, Op};

impl Graph {
    /// An empty graph.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// A graph input `name[tokens]` of i32: token ids or positions.
    pub fn input(&mut self, name: impl Into<String>) -> ValueId {
        let shape = vec![Dim::Named(TOKENS.into())];
        let id = self.value(name, DType::I32, shape);
        self.inputs.push(id);
        id
    }

    /// A value that no node produces yet.
    pub fn value(&mut self, name: impl Into<String>, dtype: DType, shape: Vec<Dim>) -> ValueId {
        self.values.push(Value { name: name.into(), dtype, shape });
        ValueId(self.values.len() - 1)
    }

    /// The weight of this recipe; an equal recipe that is there already is shared and keeps its first name.
    pub fn weight(&mut self, name: impl Into<String>, shape: &[usize], recipe: Recipe) -> WeightId {
        if let Some(index) = self.weights.iter().position(|w| w.recipe == recipe && w.shape == shape) {
            return WeightId(index);
        }
        self.weights.push(Weight { name: name.into(), shape: shape.to_vec(), recipe });
        WeightId(self.weights.len() - 1)
    }

    /// Adds a node and the values it produces, named like the node (`name.0`, `name.1` when there are several).
    ///
    /// # Errors
    /// `InvalidNetwork` naming the node and the operand that does not fit the operation.
    pub fn node(
        &mut self,
        op: Op,
        inputs: &[ValueId],
        weights: &[WeightId],
        name: impl Into<String>,
    ) -> Result<Vec<ValueId>> {
        let name = name.into();
        let inferred = self.infer_node(&op, inputs, weights).map_err(|e| e.within(&name))?;
        let several = inferred.len() > 1;
        let outputs = inferred
            .into_iter()
            .enumerate()
            .map(|(i, (dtype, shape))| {
                let value = if several { format!("{name}.{i}") } else { name.clone() };
                self.value(value, dtype, shape)
            })
            .collect::<Vec<_>>();
        self.nodes.push(Node {
            name,
            op,
            inputs: inputs.to_vec(),
            weights: weights.to_vec(),
            outputs: outputs.clone(),
            fused: Vec::new(),
        });
        Ok(outputs)
    }

    /// [`Graph::node`] for an operation with one result.
    ///
    /// # Errors
    /// As [`Graph::node`]; also when the operation has several results.
    pub fn apply(
        &mut self,
        op: Op,
        inputs: &[ValueId],
        weights: &[WeightId],
        name: impl Into<String>,
    ) -> Result<ValueId> {
        match self.node(op, inputs, weights, name)?.as_slice() {
            [one] => Ok(*one),
            many => {
                Err(Error::internal("network", format!("an operation with {} results where one is used", many.len())))
            }
        }
    }

    /// Names `value` as a result of the network.
    pub fn output(&mut self, name: impl Into<String>, value: ValueId) {
        self.outputs.push((name.into(), value));
    }

    /// Dtypes and shapes of the results of `op` on these operands.
    pub(super) fn infer_node(
        &self,
        op: &Op,
        inputs: &[ValueId],
        weights: &[WeightId],
    ) -> Result<Vec<(DType, Vec<Dim>)>> {
        let values = inputs
            .iter()
            .enumerate()
            .map(|(i, id)| self.values.get(id.0).ok_or_else(|| out_of_range("input", i, id.0, self.values.len())))
            .map(|value| value.map(|v| Operand { dtype: v.dtype, shape: &v.shape }))
            .collect::<Result<Vec<_>>>()?;
        let weights = weights
            .iter()
            .enumerate()
            .map(|(i, id)| self.weights.get(id.0).ok_or_else(|| out_of_range("weight", i, id.0, self.weights.len())))
            .map(|weight| weight.map(|w| w.shape.as_slice()))
            .collect::<Result<Vec<_>>>()?;
        infer(op, &values, &weights, &self.caches)
    }
}

impl std::ops::Index<ValueId> for Graph {
    type Output = Value;

    fn index(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }
}

impl std::ops::Index<WeightId> for Graph {
    type Output = Weight;

    fn index(&self, id: WeightId) -> &Weight {
        &self.weights[id.0]
    }
}

impl std::ops::Index<NodeId> for Graph {
    type Output = Node;

    fn index(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }
}

fn out_of_range(kind: &str, operand: usize, id: usize, count: usize) -> Error {
    Error::InvalidNetwork {
        what: format!("{kind} {operand}"),
        why: format!("refers to index {id}, but there are {count}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_recipes_are_one_weight() {
        let mut graph = Graph::new("g");
        let table = graph.weight("embed", &[8, 4], Recipe::Tensor("t".into()));
        let head = graph.weight("head", &[8, 4], Recipe::Tensor("t".into()));
        let other = graph.weight("head", &[8, 4], Recipe::Transpose(Box::new(Recipe::Tensor("t".into()))));
        assert_eq!(table, head);
        assert_ne!(table, other);
    }

    #[test]
    fn an_error_names_node_and_operand() {
        let mut graph = Graph::new("g");
        let ids = graph.input("ids");
        let table = graph.weight("embed", &[8], Recipe::Tensor("t".into()));
        let error = graph.node(Op::Embedding { scale: 1.0 }, &[ids], &[table], "embed").unwrap_err();
        assert!(matches!(&error, Error::InvalidNetwork { what, .. } if what == "embed: weight 0"), "{error}");
        let error = graph.node(Op::Embedding { scale: 1.0 }, &[ValueId(9)], &[table], "embed").unwrap_err();
        assert!(matches!(&error, Error::InvalidNetwork { what, .. } if what == "embed: input 0"), "{error}");
    }
}
