//! The engine: what a builder makes and a runtime runs. Plan (JSON), weights, tokenizer, template, defaults in one file.

mod plan;

pub use plan::{
    BLOCK_TOKENS, KvGroup, Limits, ModelInfo, Output, PANEL, Packing, Plan, Precision, Rows, Slot, Step, Target, Value,
    View, WeightSpec,
};
