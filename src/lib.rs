//! libtrtllm: from a Hugging Face checkpoint to served text, as one shared library.

pub mod backend;
pub mod engine;
pub mod error;
pub mod executor;
pub mod kv;
pub mod network;
pub mod runtime;
pub mod sampling;
pub mod text;
pub mod types;

pub use error::{Error, Result, Status};
