//! Text in, tokens through, text out: the tokenizer, the incremental detokenizer and the chat template.
//!
//! Everything here reads files that strangers wrote. Sizes are checked before anything is parsed, the structure of
//! `tokenizer.json` before the `tokenizers` crate sees it, and templates run with fuel, depth and output limits and
//! without any way to reach a file.

mod assemble;
mod chat;
#[cfg(test)]
mod chat_tests;
mod date;
mod detokenize;
#[cfg(test)]
mod fixtures;
mod hold;
mod ordered;
mod pieces;
mod pyjson;
mod source;
mod structure;
mod tokenizer;
mod unwind;

pub use chat::{ChatTemplate, MAX_RENDERED_BYTES, MAX_TEMPLATE_BYTES};
pub use detokenize::Detokenizer;
pub use tokenizer::{MAX_FILE_BYTES, MAX_INPUT_BYTES, Tokenizer};
