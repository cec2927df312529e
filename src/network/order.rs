//! Execution order from data flow alone.

use super::{Graph, NodeId};
use crate::error::{Error, Result};

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    Open,
    Done,
}

impl Graph {
    /// The node that produces each value, by value index. A value with two producers keeps the last; the verifier
    /// refuses such a graph.
    #[must_use]
    pub fn producers(&self) -> Vec<Option<NodeId>> {
        let mut producers = vec![None; self.values.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            for output in &node.outputs {
                if let Some(slot) = producers.get_mut(output.0) {
                    *slot = Some(NodeId(index));
                }
            }
        }
        producers
    }

    /// The nodes that the outputs need, producers before consumers. Depth first from the outputs, operands in their
    /// order: a value is computed shortly before its first use, and the order of [`Graph::nodes`] plays no part.
    ///
    /// # Errors
    /// `InvalidNetwork` naming a node that needs its own result.
    pub fn live_order(&self) -> Result<Vec<NodeId>> {
        let roots = self.outputs.iter().map(|(_, value)| *value);
        let producers = self.producers();
        let roots = roots.filter_map(|value| producers.get(value.0).copied().flatten());
        let mut visit = Visit::new(self, &producers);
        for root in roots {
            visit.from(root)?;
        }
        Ok(visit.order)
    }

    /// All nodes in execution order: the live ones as [`Graph::live_order`] puts them, then those nobody needs.
    ///
    /// # Errors
    /// As [`Graph::live_order`].
    pub fn order(&self) -> Result<Vec<NodeId>> {
        let producers = self.producers();
        let mut visit = Visit::new(self, &producers);
        for node in self.live_order()? {
            visit.from(node)?;
        }
        for index in 0..self.nodes.len() {
            visit.from(NodeId(index))?;
        }
        Ok(visit.order)
    }
}

/// A depth-first walk with its own stack: graphs are deeper than a thread's stack.
struct Visit<'g> {
    graph: &'g Graph,
    producers: &'g [Option<NodeId>],
    marks: Vec<Mark>,
    order: Vec<NodeId>,
}

impl<'g> Visit<'g> {
    fn new(graph: &'g Graph, producers: &'g [Option<NodeId>]) -> Self {
        Self { graph, producers, marks: vec![Mark::New; graph.nodes.len()], order: Vec::new() }
    }

    fn from(&mut self, root: NodeId) -> Result<()> {
        let mut stack = vec![(root, 0)];
        while let Some((node, operand)) = stack.pop() {
            if operand == 0 {
                match self.marks[node.0] {
                    Mark::Done => continue,
                    Mark::Open => return Err(cycle(&self.graph[node].name)),
                    Mark::New => self.marks[node.0] = Mark::Open,
                }
            }
            match self.graph[node].inputs.get(operand) {
                Some(input) => {
                    stack.push((node, operand + 1));
                    if let Some(producer) = self.producers.get(input.0).copied().flatten() {
                        stack.push((producer, 0));
                    }
                }
                None => {
                    self.marks[node.0] = Mark::Done;
                    self.order.push(node);
                }
            }
        }
        Ok(())
    }
}

fn cycle(name: &str) -> Error {
    Error::InvalidNetwork { what: name.to_string(), why: "needs its own result".to_string() }
}
