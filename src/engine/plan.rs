//! The plan: an ordered list of steps over values in a planned workspace, packed weights and KV groups.
//! It is plain data; whatever reads it validates it first.

use serde::{Deserialize, Serialize};

use crate::types::{DType, Op};

/// Rows of the weight matrix that lie side by side in a packed panel (see [`Packing::Panels`]).
pub const PANEL: usize = 32;
/// Tokens in one KV block.
pub const BLOCK_TOKENS: usize = 16;

/// The device class a plan was built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    Cpu,
    Cuda,
}

/// Arithmetic class of an engine: dtype of linear weights and of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    F32,
    Bf16,
    F16,
    /// e4m3 weights with scales; everything else as in a bf16 engine.
    Fp8,
}

/// What a deployment needs to know of the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The checkpoint's architecture string; information only, nothing branches on it.
    pub architecture: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub layers: usize,
    /// Most tokens of a request, prompt and output together.
    pub max_positions: usize,
    /// Ids that end a generation, from config and generation config.
    pub eos_token_ids: Vec<u32>,
    pub bos_token_id: Option<u32>,
}

/// Whether a value has a row per token of the step or a row per wanted logit row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    Tokens,
    LogitRows,
}

/// A matrix computed by a step: `rows x columns`, row-major, in a workspace slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Value {
    pub name: String,
    pub rows: Rows,
    pub columns: usize,
    /// f32 for CPUs; CUDA keeps sums, angles and logits in f32 and everything else in 16 bits.
    #[serde(default = "f32_dtype")]
    pub dtype: DType,
    /// Workspace slot; values whose lifetimes do not overlap share one.
    pub slot: usize,
}

fn f32_dtype() -> DType {
    DType::F32
}

/// One reusable piece of workspace; its size at load is `max(tokens*bytes_per_token, logit_rows*bytes_per_logit_row)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    pub bytes_per_token: usize,
    pub bytes_per_logit_row: usize,
}

/// Columns `start..start+columns` of a value: how a step reads or writes it. The row stride is the value's width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub value: usize,
    pub start: usize,
    pub columns: usize,
}

/// How a weight's bytes are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// Row-major as the shape says.
    RowMajor,
    /// A matrix `[N, K]` in panels of [`PANEL`] rows, N and K zero-padded (N to PANEL, K to even).
    /// f32: `[N/32][K][32]`. bf16: `[N/32][K/2][32][2]`, so that 4 bytes hold elements k and k+1 of one row.
    Panels,
}

impl Packing {
    /// Multiple at which such a weight starts in the weight section.
    #[must_use]
    pub fn alignment(self) -> u64 {
        match self {
            // What bulk copies and tensor maps of a GPU want, and a cache line.
            Packing::RowMajor => 256,
            Packing::Panels => 4096,
        }
    }
}

/// Scales of an e4m3 weight: the value is code times scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleSpec {
    /// Index of the f32 weight that holds them.
    pub weight: usize,
    /// Rows and columns that share one scale: `[1, K]` is a scale for each row.
    pub block: [usize; 2],
}

/// One weight in the engine's weight section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightSpec {
    pub name: String,
    pub dtype: DType,
    /// Logical shape, before padding.
    pub shape: Vec<usize>,
    pub packing: Packing,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleSpec>,
    /// Start in the weight section; a multiple of 4096 for panels and of 256 otherwise.
    pub offset: u64,
    pub bytes: u64,
    /// xxh3-64 of the packed bytes, in hexadecimal.
    pub checksum: String,
}

impl WeightSpec {
    /// Bytes that shape, dtype and packing imply; `None` on overflow or a packed shape that is not a matrix.
    #[must_use]
    pub fn packed_bytes(&self) -> Option<u64> {
        let elements = match (self.packing, self.shape.as_slice()) {
            (Packing::RowMajor, shape) => shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?,
            (Packing::Panels, [n, k]) => {
                n.checked_next_multiple_of(PANEL)?.checked_mul(k.checked_next_multiple_of(2)?)?
            }
            (Packing::Panels, _) => return None,
        };
        u64::try_from(elements.checked_mul(self.dtype.bytes())?).ok()
    }

    /// The checksum as a number; `None` when it is not exactly 16 lower-case hexadecimal digits.
    #[must_use]
    pub fn checksum_value(&self) -> Option<u64> {
        let digits = self.checksum.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        (digits && self.checksum.len() == 16).then(|| u64::from_str_radix(&self.checksum, 16).ok()).flatten()
    }
}

/// Layers that share one block table: same bytes per token, same window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvGroup {
    /// Network layer index of each layer of the group, in order.
    pub layers: Vec<usize>,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub dtype: DType,
    /// Attention window in tokens; `None` is the whole context.
    pub window: Option<usize>,
}

impl KvGroup {
    /// Bytes of K and V of one token over all layers of the group.
    #[must_use]
    pub fn token_bytes(&self) -> usize {
        2 * self.layers.len() * self.kv_heads * self.head_dim * self.dtype.bytes()
    }

    /// Bytes of K and V of one block over all layers of the group.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        self.token_bytes() * BLOCK_TOKENS
    }
}

/// One operation of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    pub op: Op,
    /// Operands that are values; graph inputs (ids, positions) and cache operands are not listed.
    pub inputs: Vec<View>,
    /// Indices into the plan's weights.
    pub weights: Vec<usize>,
    pub outputs: Vec<View>,
    /// Names of the graph nodes that were fused into this step (its own node when nothing was).
    pub fused: Vec<String>,
}

/// A named result of the plan, e.g. `logits`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    pub name: String,
    pub value: usize,
}

/// A whole model, ready to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub target: Target,
    pub precision: Precision,
    /// On a GPU too, a request's bits depend on nothing but itself, at some cost in speed.
    #[serde(default)]
    pub invariant: bool,
    pub model: ModelInfo,
    pub values: Vec<Value>,
    pub slots: Vec<Slot>,
    pub weights: Vec<WeightSpec>,
    pub kv_groups: Vec<KvGroup>,
    pub steps: Vec<Step>,
    pub outputs: Vec<Output>,
}

impl Plan {
    /// Bytes of the weight section: where the last weight ends.
    #[must_use]
    pub fn weights_bytes(&self) -> u64 {
        self.weights.last().map_or(0, |weight| weight.offset.saturating_add(weight.bytes))
    }
}

/// The largest step a session is prepared for, and its KV pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub tokens: usize,
    pub logit_rows: usize,
    /// Requests (rows) in one step.
    pub rows: usize,
    /// Blocks of each KV group's pool.
    pub kv_blocks: usize,
}
