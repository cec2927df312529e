//! Hugging Face folders: what a checkpoint says and holds.

mod config;
mod convert;
mod dummy;
mod files;
mod folder;
mod json;
mod safetensors;
mod scales;
mod source;

#[cfg(test)]
mod tests;

pub use config::{
    ARCHITECTURES, AttentionScale, GenerationDefaults, LongRope, MAX_CONFIG_BYTES, ModelConfig, RopeConfig,
    RopeScaling, Yarn,
};
pub use dummy::Dummy;
pub use folder::Folder;
pub use source::{SCALE_BLOCK, Scales, Scaling, WeightSource};
