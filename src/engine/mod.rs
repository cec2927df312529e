//! The engine: what a builder makes and a runtime runs. Plan (JSON), weights, tokenizer, template, defaults in one file.

mod format;
mod inspect;
mod leftover;
mod plan;
mod read;
mod signature;
mod storage;
mod validate;
mod weights;
mod write;

#[cfg(test)]
mod tests;

pub use format::{HEADER_BYTES, Header, Section, SectionKind, VERSION};
pub use inspect::inspect;
pub use plan::{
    BLOCK_TOKENS, KvGroup, Limits, ModelInfo, Output, PANEL, Packing, Plan, Precision, Rows, ScaleSpec, Slot, Step,
    Target, Value, View, WeightSpec,
};
pub use read::{Engine, OpenOptions};
pub use storage::{Disk, Storage, StoredFile};
pub use weights::{LoadMode, Progress};
pub use write::{EngineWriter, Placement, Text};
