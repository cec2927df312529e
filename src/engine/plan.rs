//! The plan: an ordered list of steps over values in a planned workspace, packed weights and KV groups.
//! It is plain data; whatever reads it validates it first.

use serde::{Deserialize, Serialize};

use super::WeightSpec;
use crate::types::{DType, Op};

/// Tokens in one KV block.
pub const BLOCK_TOKENS: usize = 16;

/// The device class a plan was built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    Cpu,
    Cuda,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Target::Cpu => "cpu",
            Target::Cuda => "cuda",
        })
    }
}

/// Arithmetic class of an engine: how its linear weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    F32,
    Bf16,
    F16,
    /// Linear weights are e4m3 with scales; everything else is as in [`Precision::Bf16`].
    Fp8,
    /// Linear weights are i8 with a scale for each row; everything else is as in [`Precision::Bf16`].
    Int8,
    /// As [`Precision::Int8`], and linear layers round each row of their input to 8 bits, so that they multiply integers.
    #[serde(rename = "int8_w8a8")]
    Int8W8a8,
}

impl Precision {
    /// Element type of the linear weights.
    #[must_use]
    pub fn matrix(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
            Precision::F16 => DType::F16,
            Precision::Fp8 => DType::E4M3,
            Precision::Int8 | Precision::Int8W8a8 => DType::I8,
        }
    }

    /// Element type of what is not quantised: tables, activations that are not the residual stream, the KV cache and the
    /// head unless it was asked to be as narrow as the other matrices.
    #[must_use]
    pub fn base(self) -> DType {
        match self {
            Precision::Fp8 | Precision::Int8 | Precision::Int8W8a8 => DType::BF16,
            other => other.matrix(),
        }
    }

    /// Whether a target has kernels for it.
    #[must_use]
    pub fn runs_on(self, target: Target) -> bool {
        target == Target::Cpu || matches!(self, Precision::Bf16 | Precision::F16 | Precision::Fp8)
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
            Precision::Fp8 => "fp8",
            Precision::Int8 => "int8",
            Precision::Int8W8a8 => "int8_w8a8",
        })
    }
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
    /// Workspace slot; values whose lifetimes do not overlap share one.
    pub slot: usize,
    /// As [`super::value_dtype`] says.
    #[serde(default = "f32_values")]
    pub dtype: DType,
}

fn f32_values() -> DType {
    DType::F32
}

impl Value {
    /// Bytes of one row.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.columns.saturating_mul(self.dtype.bytes())
    }
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
    /// The matrix of the last linear.
    #[must_use]
    pub fn head(&self) -> Option<&WeightSpec> {
        let last = self.steps.iter().rev().find(|step| matches!(step.op, Op::Linear { .. }))?;
        self.weights.get(*last.weights.first()?)
    }

    /// Parts of a row, each as long as the gain, that a norm step treats by themselves.
    #[must_use]
    pub fn norm_groups(&self, step: &Step) -> usize {
        let gain = step.weights.first().map_or(1, |gain| self.weights[*gain].shape[0]);
        step.inputs[0].columns / gain.max(1)
    }

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
