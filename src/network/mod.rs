//! The typed graph that models build and passes rewrite.

mod graph;

pub use graph::{CacheGroup, Dim, Graph, Node, NodeId, Recipe, Value, ValueId, Weight, WeightId};
