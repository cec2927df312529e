//! Calls of the attention kernels: append to the cache, rows of one token, query tiles of longer ones.

use super::call::{Arg, Call, Count, Grid, Input, Shared};
use super::kernel::KernelSpec;
use super::rowwise::element;
use super::target::CudaTarget;
use super::work::{Attention, Operand};
use crate::engine::{KvGroup, Plan};
use crate::types::{AttentionSpec, DType, RopeSpec};

/// Tokens of a query tile.
pub(super) const TILE_TOKENS: usize = 16;

/// The attention kernels of one work.
pub(super) struct Attend<'a> {
    pub(super) target: &'a CudaTarget,
    pub(super) plan: &'a Plan,
    pub(super) half: DType,
}

impl Attend<'_> {
    /// Writes keys and values of every token to the cache.
    pub(super) fn append(&self, spec: &AttentionSpec, rope: Option<RopeSpec>, k: Operand, v: Operand, angles: Option<Operand>) -> Call {
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

    fn spec(&self, source: &'static str, entry: &'static str, spec: &AttentionSpec, rope: Option<RopeSpec>) -> KernelSpec {
        let group: &KvGroup = &self.plan.kv_groups[spec.group];
        element(KernelSpec::new(source, entry), self.half)
            .define("HEADS", spec.heads)
            .define("KV_HEADS", spec.kv_heads)
            .define("HEAD_DIM", spec.head_dim)
            .define("SCALE", format!("{:?}f", spec.scale))
            .define("WINDOW", group.window.unwrap_or(0))
            .define("SOFTCAP", "0.0f")
            .define("ROPE_DIM", rope.map_or(0, |rope| rope.rotary_dim))
            .define_if(group.dtype == DType::E4M3, "CACHE_E4M3", "")
    }
}

fn cache(spec: &AttentionSpec) -> Arg {
    Arg::Cache { group: spec.group, layer: spec.layer }
}
