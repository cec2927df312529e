//! Calls of the attention kernels: append to the cache, rows of one token, query tiles of longer ones.

use super::call::{Arg, Call, Count, Grid, Input, Shared};
use super::kernel::KernelSpec;
use super::rowwise::{element, float};
use super::target::CudaTarget;
use super::work::{Attention, Operand};
use crate::engine::Plan;
use crate::types::{AttentionSpec, DType, Op, RopeSpec};

/// Most blocks that share the context of a (row, kv head).
const MOST_SPLITS: usize = 8;
/// Static shared memory that a block may have.
const MOST_STATIC: usize = 48 << 10;

/// Whether the tensor-core kernels take such heads.
fn is_regular(spec: &AttentionSpec, rope: Option<RopeSpec>) -> bool {
    matches!(spec.head_dim, 64 | 96 | 128 | 256)
        && group(spec) <= 64
        && rope.is_none_or(|rope| rope.rotary_dim.is_multiple_of(16))
}

/// Heads that share a kv head.
fn group(spec: &AttentionSpec) -> usize {
    (spec.heads / spec.kv_heads.max(1)).max(1)
}

/// Queries of a tile: tokens times the heads that share a kv head.
fn tile_queries(head_dim: usize) -> usize {
    if head_dim > 128 { 64 } else { 128 }
}

/// The attention steps of a plan.
fn specs(plan: &Plan) -> impl Iterator<Item = (&AttentionSpec, Option<RopeSpec>)> {
    plan.steps.iter().filter_map(|step| match &step.op {
        Op::Attention(spec) => Some((spec, None)),
        Op::FusedAttention { attention, rope } => Some((attention, *rope)),
        _ => None,
    })
}

/// Whether every row of a step is cut into tiles: there is no kernel for rows of one token, or it must not be used.
pub(super) fn tiles_only(plan: &Plan) -> bool {
    // The kernel for rows of one token appends by itself: a plan that appends by steps of their own has no use for it.
    let apart = plan.steps.iter().any(|step| matches!(step.op, Op::Attention(_)));
    plan.invariant || apart || specs(plan).any(|(spec, rope)| !is_regular(spec, rope))
}

/// Tokens of a query tile, one figure for all layers of a plan.
pub(super) fn tile_tokens(plan: &Plan) -> usize {
    let tokens = |(spec, _): (&AttentionSpec, _)| tile_queries(spec.head_dim) / group(spec);
    specs(plan).map(tokens).min().unwrap_or(1).max(1)
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
        let each = (spec.kv_heads * spec.head_dim / 8) as u32;
        let (source, grid) = match is_regular(spec, rope) {
            true => ("attention/append.cu", Grid::Threads { each }),
            false => ("attention/generic_append.cu", Grid::X { per: 1, y: 1 }),
        };
        Call::new(self.spec(source, "append", spec, rope), 256, grid, Count::Tokens, args)
    }

    fn decode(&self, attention: &Attention, tokens: usize) -> Call {
        let spec = &attention.spec;
        let most = if group(spec) > 8 && spec.head_dim <= 128 { 16 } else { 8 };
        let heads = group(spec).min(most);
        let parts = spec.kv_heads * group(spec).div_ceil(heads);
        // A block for every multiprocessor when all rows are there; those that share a context are a cluster where there are any.
        let splits = (self.target.multiprocessors / (tokens.max(1) * parts)).clamp(1, MOST_SPLITS);
        let splits = 1 << splits.ilog2();
        let clustered = splits > 1 && self.target.arch.is_hopper_or_later();
        let alone = tokens * parts * splits <= self.target.multiprocessors;
        // Sums of eight warps and of the block, queries, the new key and value, and a few words.
        let sums = 9 * heads * (spec.head_dim + 2) * 4;
        let fixed = sums + 2 * most * (spec.head_dim + 32) + 4 * spec.head_dim + 64;
        let threads = if alone && fixed <= MOST_STATIC { 256 } else { 128 };
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
        let partial = tokens * parts * splits * heads * (spec.head_dim + 2) * 4;
        let kernel = self
            .spec("attention/decode.cu", "decode", spec, attention.rope)
            .define("SPLITS", splits)
            .define("THREADS", threads)
            .define_if(clustered, "CLUSTER", "")
            // Steps begin with an ordinary launch, and what was cached comes from earlier steps.
            .define_if(self.target.arch.is_hopper_or_later(), "EARLY", "");
        let grid = Grid::Z { x: splits as u32, y: parts as u32 };
        let mut call = Call::new(kernel, threads, grid, Count::DecodeRows, args);
        if splits > 1 && !clustered {
            call = call.split(partial, tokens * parts);
        }
        call.cluster = if clustered { splits as u32 } else { 1 };
        call
    }

    fn prefill(&self, attention: &Attention) -> Call {
        let (spec, rope) = (&attention.spec, attention.rope);
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
        let kv_heads = spec.kv_heads as u32;
        if !is_regular(spec, rope) {
            let kernel = self.spec("attention/generic.cu", "attend", spec, rope);
            let kernel = kernel.define("Q_TOKENS", tile_tokens(self.plan));
            return Call::new(kernel, 256, Grid::X { per: 1, y: kv_heads }, Count::Tiles, args);
        }
        let (d, e4m3) = (spec.head_dim, self.plan.kv_groups[spec.group].dtype == DType::E4M3);
        let warpgroups = self.target.arch.has_wgmma() && !self.target.invariant && matches!(d, 64 | 128);
        let (source, block, shared) = match warpgroups {
            // 128 queries, steps of 128 keys.
            true => ("attention/prefill_wgmma.cu", 384, 128 * d * 2 + 128 * d * if e4m3 { 10 } else { 8 } + 1024),
            false => {
                let keys = if d > 128 { 32 } else { 64 };
                let shared = tile_queries(d) * d * 2 + keys * d * if e4m3 { 6 } else { 8 };
                ("attention/prefill.cu", 128, shared)
            }
        };
        let kernel = self.spec(source, "prefill", spec, rope);
        Call::new(kernel, block, Grid::Rows { x: kv_heads }, Count::Tiles, args).shared(shared as u32)
    }

    fn spec(
        &self,
        source: &'static str,
        entry: &'static str,
        spec: &AttentionSpec,
        rope: Option<RopeSpec>,
    ) -> KernelSpec {
        let group = &self.plan.kv_groups[spec.group];
        element(KernelSpec::new(source, entry), self.half)
            .define("HEADS", spec.heads)
            .define("KV_HEADS", spec.kv_heads)
            .define("HEAD_DIM", spec.head_dim)
            .define("SCALE", float(spec.scale))
            .define("WINDOW", group.window.unwrap_or(0))
            .define("SOFTCAP", float(spec.soft_cap.unwrap_or(0.0)))
            .define("ROPE_DIM", rope.map_or(0, |rope| rope.rotary_dim))
            .define_if(group.dtype == DType::E4M3, "CACHE_E4M3", "")
    }
}

fn cache(spec: &AttentionSpec) -> Arg {
    Arg::Cache { group: spec.group, layer: spec.layer }
}
