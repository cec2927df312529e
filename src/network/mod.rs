//! The typed graph that models build and passes rewrite.

mod build;
mod dot;
mod graph;
mod infer;
mod order;
mod print;
mod recipe;
mod verify;

pub use graph::{CacheGroup, Dim, Graph, Node, NodeId, Recipe, Value, ValueId, Weight, WeightId};

/// Name of the row dimension with one row per token of the step.
pub const TOKENS: &str = "tokens";
/// Name of the row dimension with one row per row of wanted logits.
pub const LOGIT_ROWS: &str = "logit_rows";
