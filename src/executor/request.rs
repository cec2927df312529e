//! What a client submits.

use std::time::Duration;

use crate::sampling::SamplingParams;

/// Names a request of one executor; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// The prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Token ids as the model sees them.
    Tokens(Vec<u32>),
    /// Text of at most [`MAX_INPUT_BYTES`](crate::executor::MAX_INPUT_BYTES); special tokens are added as the tokenizer says.
    Text(String),
    /// Chat messages, a JSON array of `{"role", "content"}`, rendered by the engine's chat template.
    Chat(String),
}

/// One generation request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub input: Input,
    pub sampling: SamplingParams,
    /// Responses as tokens come; otherwise one response at the end of each sequence.
    pub stream: bool,
    /// Ends the request with `TimeLimit` when it is not finished this long after its submission.
    pub time_limit: Option<Duration>,
    /// Prefix blocks are shared only between requests of equal salt; at most 256 bytes.
    pub salt: Vec<u8>,
    /// Logits of every prompt position with the first response of sequence 0; cached blocks are not used then. These and
    /// `return_generation_logits` are bounded by [`MAX_LOGITS_BYTES`](crate::executor::MAX_LOGITS_BYTES).
    pub return_context_logits: bool,
    /// The model's logits for each generated token, before penalties and bias.
    pub return_generation_logits: bool,
}

impl Request {
    /// A streaming request with default sampling.
    #[must_use]
    pub fn new(input: Input) -> Self {
        Self {
            input,
            sampling: SamplingParams::default(),
            stream: true,
            time_limit: None,
            salt: Vec::new(),
            return_context_logits: false,
            return_generation_logits: false,
        }
    }
}
