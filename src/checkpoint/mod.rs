//! Hugging Face folders: what a checkpoint says and holds.

mod config;

pub use config::{
    ARCHITECTURES, AttentionScale, GenerationDefaults, MAX_CONFIG_BYTES, ModelConfig, RopeConfig, RopeScaling, Yarn,
};
