//! How an executor is loaded.

/// Limits and resources of an executor. Zero means "chosen by the library" where a field says so.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutorConfig {
    /// Sequences that run at once (rows of a step).
    pub max_batch_size: usize,
    /// Tokens in one step, decode rows and prefill chunks together.
    pub max_batch_tokens: usize,
    /// Most tokens of one request, prompt and output; 0: the model's.
    pub max_sequence_tokens: usize,
    /// Requests beside `max_batch_size` of them; one more is refused with `QueueFull`. A request counts until its last
    /// response was taken or delivered, so that clients who never take theirs cannot pile them up.
    pub max_queue: usize,
    /// Responses kept per request before text is coalesced for a slow consumer.
    pub max_pending_responses: usize,
    /// Tokens that the KV cache holds; 0: what the budget leaves, or room for `max_batch_size` sequences without one.
    pub kv_tokens: usize,
    /// Hard limit in bytes on weights (mapped or not), workspace and cache together, on a GPU with kernels, graphs and
    /// page-locked memory; 0: none.
    pub memory_budget: u64,
    /// Reuse cached blocks of equal prefixes.
    pub prefix_reuse: bool,
    /// CPU threads; 0: one per available core.
    pub threads: usize,
    /// Instruction set by name (`portable`, `avx2`, `avx512`, `avx512bf16`); `None`: the best there is.
    pub isa: Option<String>,
    /// Index of the GPU that runs a CUDA engine.
    pub device: usize,
    /// On a GPU: machine code that came with the engine does not run; kernels are compiled here.
    pub refuse_stored_kernels: bool,
}

impl Default for ExecutorConfig {
    fn default() -> Self {
        Self {
            max_batch_size: 16,
            max_batch_tokens: 512,
            max_sequence_tokens: 0,
            max_queue: 1024,
            max_pending_responses: 64,
            kv_tokens: 0,
            memory_budget: 0,
            prefix_reuse: true,
            threads: 0,
            isa: None,
            device: 0,
            refuse_stored_kernels: false,
        }
    }
}
