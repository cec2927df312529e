//! The closed set of operations. A graph node and a plan step carry the same `Op`; passes rewrite basic operations
//! into fused ones, and a backend may be asked for either.
//!
//! Shapes: `T` = tokens in the step (rows of all requests packed), `R` = logit rows. Values are row-major, f32
//! unless the plan says otherwise. `w[..]` are weights in the order given.

use serde::{Deserialize, Serialize};

/// Elementwise functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x * sigmoid(x)
    Silu,
    /// x/2 * (1 + erf(x / sqrt 2))
    Gelu,
    /// x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))
    GeluTanh,
    Relu,
}

/// How rotary embedding is applied to one head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RopeSpec {
    pub head_dim: usize,
    /// Leading dimensions of each head that rotate; pairs are `(i, i + rotary_dim/2)`.
    pub rotary_dim: usize,
}

/// Attention over one KV group's cache.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AttentionSpec {
    /// Index into the plan's KV groups.
    pub group: usize,
    /// Layer within that group.
    pub layer: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Scores are `scale * q.k`.
    pub scale: f32,
    /// Scores `s` become `cap * tanh(s / cap)` before they are masked; positive. Plans of before there were caps have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_cap: Option<f32>,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Op {
    /// `(ids[T]) w[table[V,H]] -> [T,H]`: `scale` times row `ids[t]` of the table, which a tied head reads unscaled.
    Embedding {
        /// 1 in plans of before there were scales.
        #[serde(default = "unscaled")]
        scale: f32,
    },
    /// `(positions[T]) w[table[P,H]] -> [T,H]`: the learned position table.
    PositionEmbedding,
    /// `(positions[T]) w[inv_freq[D/2]] -> [T,D]`: first D/2 columns `scale*cos(p*f)`, last D/2 `scale*sin(p*f)`.
    RopeAngles { scale: f32 },
    /// `(x[T,K]) w[weight[N,K], bias[N]?] -> [T,N]`: `x W^T + b`, then the activation.
    Linear { bias: bool, activation: Option<Activation> },
    /// `(x[T,K]) w[gate[N,K], up[N,K], gate_bias[N]?, up_bias[N]?] -> [T,N]`: `act(x G^T + bg) * (x U^T + bu)`.
    GatedLinear { bias: bool, activation: Activation },
    /// `(x[T,H]) w[gain[D]] -> [T,H]`: `x / sqrt(mean(x^2) + eps) * gain` over each D columns of a row by themselves; D
    /// divides H. A whole row is normed with D = H, its heads with D = head_dim.
    RmsNorm { eps: f32 },
    /// `(x[T,H]) w[gain[H], bias[H]] -> [T,H]`.
    LayerNorm { eps: f32 },
    /// `(x[T,H], y[T,H]) w[gain[H]] -> (x+y [T,H], norm(x+y) [T,H])`.
    AddRmsNorm { eps: f32 },
    /// `(x[T,H], y[T,H]) w[gain[H], bias[H]] -> (x+y [T,H], norm(x+y) [T,H])`.
    AddLayerNorm { eps: f32 },
    /// `(x, y) -> x + y`, same shape.
    Add,
    /// `(x, y) -> x * y`, same shape.
    Mul,
    /// `(x) -> f(x)`.
    Activate { activation: Activation },
    /// `(x) -> cap * tanh(x / cap)`; `cap` is positive.
    SoftCap { cap: f32 },
    /// `(x[T, heads*head_dim], angles[T, rotary_dim]) -> rotated x`, same shape.
    Rope(RopeSpec),
    /// `(x[T,C]) -> [T, columns]`: columns `start..start+columns`; lowered to a view, never a copy.
    Slice { start: usize, columns: usize },
    /// `(k[T, kv_heads*head_dim], v[T, kv_heads*head_dim]) -> cache[T,0]`: writes each token's k and v at its
    /// position. Its result has no columns; it orders the attention that reads the cache after the write.
    CacheAppend(AttentionSpec),
    /// `(q[T, heads*head_dim], cache[T,0]) -> [T, heads*head_dim]`: causal attention over the request's cache,
    /// whose last entries are this step's tokens. In a plan step the `cache` operand is dropped.
    Attention(AttentionSpec),
    /// `(q, k, v, angles[T,rotary_dim]?) -> [T, heads*head_dim]`: rope on q and k (when `rope`), append, attention.
    FusedAttention { attention: AttentionSpec, rope: Option<RopeSpec> },
    /// `(x[T,H]) -> [R,H]`: the rows whose logits are wanted.
    GatherRows,
}

/// The scale of an embedding that has none.
fn unscaled() -> f32 {
    1.0
}

impl Op {
    /// The operation's name as printed and as serialised.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Op::Embedding { .. } => "embedding",
            Op::PositionEmbedding => "position_embedding",
            Op::RopeAngles { .. } => "rope_angles",
            Op::Linear { .. } => "linear",
            Op::GatedLinear { .. } => "gated_linear",
            Op::RmsNorm { .. } => "rms_norm",
            Op::LayerNorm { .. } => "layer_norm",
            Op::AddRmsNorm { .. } => "add_rms_norm",
            Op::AddLayerNorm { .. } => "add_layer_norm",
            Op::Add => "add",
            Op::Mul => "mul",
            Op::Activate { .. } => "activate",
            Op::SoftCap { .. } => "soft_cap",
            Op::Rope(_) => "rope",
            Op::Slice { .. } => "slice",
            Op::CacheAppend(_) => "cache_append",
            Op::Attention(_) => "attention",
            Op::FusedAttention { .. } => "fused_attention",
            Op::GatherRows => "gather_rows",
        }
    }
}
