//! libtrtllm: from a Hugging Face checkpoint to served text, as one shared library.

pub mod backend;
pub mod engine;
pub mod error;
pub mod text;
pub mod types;

pub use error::{Error, Result, Status};
