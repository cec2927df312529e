//! Who makes and who uses a value, and the loop that applies a rewrite wherever it matches.

use crate::error::Result;
use crate::network::{Dim, Graph, Node, NodeId, ValueId};

/// The data flow of a graph. Dead users count: a rewrite must not take a value from any node.
pub(super) struct Flow<'g> {
    pub graph: &'g Graph,
    /// All nodes in execution order.
    pub order: Vec<NodeId>,
    producers: Vec<Option<NodeId>>,
    /// Nodes by the value they use, once per operand.
    users: Vec<Vec<NodeId>>,
    is_output: Vec<bool>,
}

impl<'g> Flow<'g> {
    pub fn of(graph: &'g Graph) -> Result<Self> {
        let order = graph.order()?;
        let mut users = vec![Vec::new(); graph.values.len()];
        for id in &order {
            for input in &graph[*id].inputs {
                users[input.0].push(*id);
            }
        }
        let mut is_output = vec![false; graph.values.len()];
        for (_, value) in &graph.outputs {
            is_output[value.0] = true;
        }
        Ok(Self { graph, order, producers: graph.producers(), users, is_output })
    }

    /// The node that makes `value`; none for graph inputs.
    pub fn producer(&self, value: ValueId) -> Option<(NodeId, &'g Node)> {
        self.producers[value.0].map(|id| (id, &self.graph[id]))
    }

    /// The node that makes `value`, if `value` has no other use than the one from which the caller came.
    pub fn private(&self, value: ValueId) -> Option<(NodeId, &'g Node)> {
        if self.users[value.0].len() == 1 && !self.is_output[value.0] { self.producer(value) } else { None }
    }

    pub fn users(&self, value: ValueId) -> &[NodeId] {
        &self.users[value.0]
    }

    pub fn is_output(&self, value: ValueId) -> bool {
        self.is_output[value.0]
    }
}

/// A place where a pattern applies: the nodes that go, and what the replacement has to know of them.
pub(super) struct Match<D> {
    pub nodes: Vec<NodeId>,
    pub detail: D,
}

/// Replaces what `find` matches until it matches nowhere; returns how often. `find` sees the nodes in execution order.
/// `make` gets the nodes that go and returns those that come, which must make every value that others use, so that no
/// user changes; the first of them keeps the names of those that went in [`Node::fused`].
pub(super) fn rewrite_all<D>(
    graph: &mut Graph,
    find: impl Fn(&Flow, NodeId) -> Option<Match<D>>,
    make: impl Fn(&mut Graph, &[Node], D) -> Vec<Node>,
) -> Result<usize> {
    let mut rewrites = 0;
    loop {
        let (matches, gone) = disjoint(&Flow::of(graph)?, &find);
        if matches.is_empty() {
            return Ok(rewrites);
        }
        rewrites += matches.len();
        for found in matches {
            let replaced = found.nodes.iter().map(|id| graph[*id].clone()).collect::<Vec<_>>();
            let mut made = make(graph, &replaced, found.detail);
            if let Some(first) = made.first_mut() {
                first.fused = replaced.iter().flat_map(origins).collect();
            }
            graph.nodes.extend(made);
        }
        remove(graph, &gone);
    }
}

/// The matches of one round that share no node, and the mark of each node that they take.
fn disjoint<D>(flow: &Flow, find: impl Fn(&Flow, NodeId) -> Option<Match<D>>) -> (Vec<Match<D>>, Vec<bool>) {
    let (mut matches, mut gone) = (Vec::new(), vec![false; flow.graph.nodes.len()]);
    for found in flow.order.iter().filter_map(|id| find(flow, *id)) {
        if found.nodes.iter().all(|id| !gone[id.0]) {
            found.nodes.iter().for_each(|id| gone[id.0] = true);
            matches.push(found);
        }
    }
    (matches, gone)
}

/// Removes the marked nodes; ids of the others change.
pub(super) fn remove(graph: &mut Graph, gone: &[bool]) {
    let mut marks = gone.iter();
    graph.nodes.retain(|_| marks.next() != Some(&true));
}

/// The nodes of the original network that `node` stands for.
fn origins(node: &Node) -> Vec<String> {
    if node.fused.is_empty() { vec![node.name.clone()] } else { node.fused.clone() }
}

/// The shape of `value` with other columns.
pub(super) fn with_columns(graph: &Graph, value: ValueId, columns: usize) -> Vec<Dim> {
    let rows = graph[value].shape.first().cloned();
    rows.into_iter().chain([Dim::Fixed(columns)]).collect()
}

/// `layers.0.q`, `layers.0.k` -> `layers.0.q+k`.
pub(super) fn joined_name(graph: &Graph, names: &[&str]) -> String {
    let module = |name: &str| name.rfind('.').map_or(0, |dot| dot + 1);
    let prefix = names.first().map_or("", |name| &name[..module(name)]);
    let parts = names.iter().map(|name| name.strip_prefix(prefix).unwrap_or(name)).collect::<Vec<_>>();
    fresh_name(graph, format!("{prefix}{}", parts.join("+")))
}

/// `name`, or with an apostrophe more where a node or value has that name.
pub(super) fn fresh_name(graph: &Graph, mut name: String) -> String {
    while graph.nodes.iter().any(|n| n.name == name) || graph.values.iter().any(|v| v.name == name) {
        name.push('\'');
    }
    name
}
