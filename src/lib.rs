//! libtrtllm: from a Hugging Face checkpoint to served text, as one shared library.

pub mod backend;
pub mod capi;
#[cfg(feature = "compiler")]
pub mod builder;
#[cfg(feature = "compiler")]
pub mod checkpoint;
pub mod engine;
pub mod error;
pub mod executor;
pub mod kv;
#[cfg(feature = "compiler")]
pub mod models;
#[cfg(feature = "compiler")]
pub mod network;
#[cfg(feature = "compiler")]
pub mod passes;
pub mod runtime;
pub mod sampling;
pub mod text;
pub mod types;

pub use error::{Error, Result, Status};
