//! Graph: values with symbolic shapes, weights as recipes over checkpoint tensors, nodes of closed operations.
//! Nodes need not be stored in execution order: order follows from data flow alone.

use crate::types::{DType, Op};

/// Index of a value in [`Graph::values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// Index of a weight in [`Graph::weights`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub usize);

/// Index of a node in [`Graph::nodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// One extent of a shape; named extents are equal wherever the name is equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dim {
    Fixed(usize),
    /// `tokens` or `logit_rows` in the networks of this library.
    Named(String),
}

/// The type and origin of a tensor in the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<Dim>,
}

/// How a weight is made from checkpoint tensors; evaluated by the builder, one weight at a time.
#[derive(Debug, Clone, PartialEq)]
pub enum Recipe {
    /// The checkpoint tensor of this name.
    Tensor(String),
    /// The matrix transposed (Conv1D checkpoints store `[in, out]`).
    Transpose(Box<Recipe>),
    /// Matrices stacked by rows, or vectors joined.
    Concat(Vec<Recipe>),
    /// Rows `start..start+rows` of a matrix, or elements of a vector.
    Rows { of: Box<Recipe>, start: usize, rows: usize },
    /// `addend` more than each element: how gains that a checkpoint stores as their distance from 1 become gains.
    Plus { of: Box<Recipe>, addend: f32 },
    /// Values known when the network is defined, e.g. rope frequencies.
    Constant(Vec<f32>),
}

/// A weight of the graph. Equal recipes are one weight: a tied table appears once and is used twice.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    pub name: String,
    pub shape: Vec<usize>,
    pub recipe: Recipe,
}

/// One operation with its operands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub name: String,
    pub op: Op,
    pub inputs: Vec<ValueId>,
    pub weights: Vec<WeightId>,
    pub outputs: Vec<ValueId>,
    /// Names of the nodes it replaces; empty for a node that no pass made.
    pub fused: Vec<String>,
}

/// Layers whose caches share one block table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheGroup {
    /// Network layer index of each layer of the group.
    pub layers: Vec<usize>,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Attention window in tokens; `None` is the whole context.
    pub window: Option<usize>,
}

/// A network: what a model file builds and passes rewrite.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graph {
    pub name: String,
    pub values: Vec<Value>,
    pub weights: Vec<Weight>,
    pub nodes: Vec<Node>,
    pub caches: Vec<CacheGroup>,
    /// Graph inputs: `ids[tokens]` and `positions[tokens]`, both i32.
    pub inputs: Vec<ValueId>,
    /// Named results.
    pub outputs: Vec<(String, ValueId)>,
}
