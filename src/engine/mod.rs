//! The engine: what a builder makes and a runtime runs. Plan (JSON), weights, tokenizer, template, defaults in one file.

mod elements;
mod format;
mod inspect;
mod leftover;
mod plan;
mod read;
mod signature;
mod storage;
mod validate;
mod weight;
mod weights;
mod write;

#[cfg(test)]
mod tests;

pub use elements::value_dtype;
pub use format::{HEADER_BYTES, Header, Section, SectionKind, VERSION};
pub use inspect::inspect;
pub use plan::{
    BLOCK_TOKENS, KvGroup, Limits, ModelInfo, Output, Plan, Precision, Rows, Slot, Step, Target, Value, View,
};
pub use read::{Engine, OpenOptions, verify};
pub use storage::{Disk, Storage, StoredFile};
pub use weight::{Granularity, PANEL, Packing, SCALE_BLOCK, ScaleSpec, WeightSpec};
pub use weights::{LoadMode, Progress};
pub use write::{EngineWriter, Placement, Text};
