//! Calls of the attention kernels: append to the cache, rows of one token, query tiles of longer ones.

use super::call::{Arg, Call, Count, Grid, Input, Shared};
use super::kernel::KernelSpec;
use super::rowwise::{element, float};
use super::target::CudaTarget;
use super::work::{Attention, Operand};
use crate::engine::{KvGroup, Plan};
use crate::types::{AttentionSpec, DType, Op, RopeSpec};

/// Queries of a tile: tokens times the heads that share a kv head.
const TILE_QUERIES: usize = 128;
/// Most heads for one kv head that the decode kernel takes.
pub(super) const MOST_GROUP: usize = 16;

/// Whether the tensor-core kernels take such heads.
fn is_regular(spec: &AttentionSpec) -> bool {
    spec.head_dim.is_multiple_of(32) && spec.head_dim <= 256 && spec.heads / spec.kv_heads.max(1) <= MOST_GROUP
}

/// Whether every row of a step is cut into tiles: there is no kernel for rows of one token, or it must not be used.
pub(super) fn tiles_only(plan: &Plan) -> bool {
    let irregular = |step: &crate::engine::Step| match &step.op {
        Op::Attention(spec) | Op::FusedAttention { attention: spec, .. } => !is_regular(spec),
        _ => false,
    };
    plan.invariant || plan.steps.iter().any(irregular)
}

/// Tokens of a query tile, one figure for all layers of a plan.
pub(super) fn tile_tokens(plan: &Plan) -> usize {
    let group = |step: &crate::engine::Step| match &step.op {
        Op::Attention(spec) | Op::FusedAttention { attention: spec, .. } => Some(spec.heads / spec.kv_heads.max(1)),
        _ => None,
    };
    let most = plan.steps.iter().filter_map(group).max().unwrap_or(1);
    (TILE_QUERIES / most.max(1)).max(1)
}

/// The attention kernels of one work.
pub(super) struct Attend<'a> {
    pub(super) target: &'a CudaTarget,
    pub(super) plan: &'a Plan,
    pub(super) half: DType,
}

impl Attend<'_> {
    /// The calls for steps of at most `tokens` tokens: new keys and values to the cache, rows of one token, all others.
    pub(super) fn calls(&self, attention: &Attention, tokens: usize) -> Vec<Call> {
        let mut calls = Vec::new();
        if let Some((k, v)) = attention.kv {
            // Rows of one token append by themselves: only where there are tiles is this needed.
            let mut append = self.append(&attention.spec, attention.rope, k, v, attention.angles);
            append.only_with_tiles = true;
            calls.push(append);
        }
        if !tiles_only(self.plan) {
            calls.push(self.decode(attention, tokens));
        }
        calls.push(self.prefill(attention));
        calls
    }

    /// Writes keys and values of every token to the cache.
    pub(super) fn append(
        &self,
        spec: &AttentionSpec,
        rope: Option<RopeSpec>,
        k: Operand,
        v: Operand,
        angles: Option<Operand>,
    ) -> Call {
        let args = vec![
            Arg::Buffer(k),
            Arg::Buffer(v),
            Arg::U32(k.stride as u32),
            Arg::U32(v.stride as u32),
            angles.map_or(Arg::Null, Arg::Buffer),
            cache(spec),
            Arg::Input(Input::Slots(spec.group)),
            Arg::Count(Count::Tokens),
        ];
        let spec = self.spec("attention/append.cu", "append", spec, rope);
        Call::new(spec, 256, Grid::X { per: 1, y: 1 }, Count::Tokens, args)
    }

    fn decode(&self, attention: &Attention, tokens: usize) -> Call {
        let spec = &attention.spec;
        let group = spec.heads / spec.kv_heads;
        // Two blocks for every multiprocessor when all rows are there.
        let blocks = tokens.max(1) * spec.kv_heads;
        let splits = (2 * self.target.multiprocessors / blocks.max(1)).clamp(1, 32);
        let (k, v) = attention.kv.map_or((None, None), |(k, v)| (Some(k), Some(v)));
        let stride = |operand: Option<Operand>| Arg::U32(operand.map_or(0, |operand| operand.stride as u32));
        let buffer = |operand: Option<Operand>| operand.map_or(Arg::Null, Arg::Buffer);
        let args = vec![
            Arg::Buffer(attention.out),
            Arg::Buffer(attention.q),
            buffer(k),
            buffer(v),
            Arg::U32(attention.q.stride as u32),
            stride(k),
            stride(v),
            buffer(attention.angles),
            cache(spec),
            Arg::Input(Input::Rows(spec.group)),
            Arg::Input(Input::Tables),
            Arg::Shared(Shared::Partial),
            Arg::Shared(Shared::Counters),
            Arg::Count(Count::DecodeRows),
        ];
        let partial = tokens * spec.kv_heads * splits * group * (spec.head_dim + 2) * 4;
        let kernel = self.spec("attention/decode.cu", "decode", spec, attention.rope).define("SPLITS", splits);
        let grid = Grid::Z { x: splits as u32, y: spec.kv_heads as u32 };
        Call::new(kernel, 128, grid, Count::DecodeRows, args).split(partial, tokens * spec.kv_heads)
    }

    fn prefill(&self, attention: &Attention) -> Call {
        let spec = &attention.spec;
        let args = vec![
            Arg::Buffer(attention.out),
            Arg::Buffer(attention.q),
            Arg::U32(attention.q.stride as u32),
            attention.angles.map_or(Arg::Null, Arg::Buffer),
            cache(spec),
            Arg::Input(Input::Rows(spec.group)),
            Arg::Input(Input::Tables),
            Arg::Input(Input::Tiles),
            Arg::Count(Count::Tiles),
        ];
        let (source, entry, shared) = match is_regular(spec) {
            true => ("attention/prefill.cu", "prefill", 8 * spec.head_dim * if spec.head_dim > 128 { 32 } else { 64 }),
            false => ("attention/generic.cu", "attend", 0),
        };
        let kernel = self.spec(source, entry, spec, attention.rope).define("Q_TOKENS", tile_tokens(self.plan));
        let grid = Grid::X { per: 1, y: spec.kv_heads as u32 };
        Call::new(kernel, 256, grid, Count::Tiles, args).shared(shared as u32)
    }

    fn spec(
        &self,
        source: &'static str,
        entry: &'static str,
        spec: &AttentionSpec,
        rope: Option<RopeSpec>,
    ) -> KernelSpec {
        let group: &KvGroup = &self.plan.kv_groups[spec.group];
        element(KernelSpec::new(source, entry), self.half)
            .define("HEADS", spec.heads)
            .define("KV_HEADS", spec.kv_heads)
            .define("HEAD_DIM", spec.head_dim)
            .define("SCALE", float(spec.scale))
            .define("WINDOW", group.window.unwrap_or(0))
            .define("SOFTCAP", "0.0f")
            .define("ROPE_DIM", rope.map_or(0, |rope| rope.rotary_dim))
            .define_if(group.dtype == DType::E4M3, "CACHE_E4M3", "")
    }
}

fn cache(spec: &AttentionSpec) -> Arg {
    Arg::Cache { group: spec.group, layer: spec.layer }
}
