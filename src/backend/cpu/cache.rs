//! The layout of the KV cache: `[layer][block]`, each holding K as `[kv_head][head_dim][BLOCK_TOKENS]`, so that the
//! scores of a block's keys are one vector, then V as `[kv_head][BLOCK_TOKENS][head_dim]`.

use super::pack::to_bf16;
use super::vector::{LANES, Vector};
use crate::engine::BLOCK_TOKENS;
use crate::types::{e4m3, f16};

/// An element of the cache.
pub(super) trait Element: Copy + 'static {
    /// # Safety
    /// See [`Vector`]; 16 elements are readable.
    unsafe fn load<V: Vector>(from: *const Self) -> V;
    fn from_f32(x: f32) -> Self;
    fn to_f32(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const f32) -> V {
        // SAFETY: the caller's.
        unsafe { V::load(from) }
    }
    #[inline(always)]
    fn from_f32(x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

/// A bf16 as its bits.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Bf16(u16);

impl Element for Bf16 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Bf16) -> V {
        // SAFETY: the caller's.
        unsafe { V::load_bf16(from.cast()) }
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Bf16 {
        Bf16(to_bf16(x) as u16)
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

/// An f16 as its bits.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct F16(u16);

impl Element for F16 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const F16) -> V {
        // SAFETY: the caller's.
        unsafe { widen(from) }
    }
    #[inline(always)]
    fn from_f32(x: f32) -> F16 {
        F16(f16::encode(x))
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::decode(self.0)
    }
}

/// An e4m3 code of scale 1.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct E4m3(u8);

impl Element for E4m3 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const E4m3) -> V {
        // SAFETY: the caller's.
        unsafe { widen(from) }
    }
    #[inline(always)]
    fn from_f32(x: f32) -> E4m3 {
        E4m3(e4m3::encode(x))
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        e4m3::decode(self.0)
    }
}

/// Sixteen elements, by plain code that the compiler makes vectors of.
#[inline(always)]
unsafe fn widen<V: Vector, E: Element>(from: *const E) -> V {
    // SAFETY: the caller's.
    unsafe {
        let values = from.cast::<[E; LANES]>().read_unaligned().map(E::to_f32);
        V::load(values.as_ptr())
    }
}

/// The cache of one layer.
#[derive(Clone, Copy)]
pub(super) struct LayerCache {
    /// Address of the layer's first block.
    pub address: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl LayerCache {
    /// Elements of K, or of V, of one head in one block.
    fn head_elements(&self) -> usize {
        self.head_dim * BLOCK_TOKENS
    }

    /// The keys of a head in a block, `[head_dim][BLOCK_TOKENS]`.
    ///
    /// # Safety
    /// The block lies in the pool, whose elements are `E`.
    #[inline(always)]
    pub(super) unsafe fn keys<E: Element>(&self, block: u32, head: usize) -> *mut E {
        let index = (block as usize * 2 * self.kv_heads + head) * self.head_elements();
        // SAFETY: the caller's.
        unsafe { (self.address as *mut E).add(index) }
    }

    /// The values of a head in a block, `[BLOCK_TOKENS][head_dim]`.
    ///
    /// # Safety
    /// As [`LayerCache::keys`].
    #[inline(always)]
    pub(super) unsafe fn values<E: Element>(&self, block: u32, head: usize) -> *mut E {
        let index = ((block as usize * 2 + 1) * self.kv_heads + head) * self.head_elements();
        // SAFETY: the caller's.
        unsafe { (self.address as *mut E).add(index) }
    }

    /// Writes one token's key and value of one head.
    ///
    /// # Safety
    /// As [`LayerCache::keys`]; `key` and `value` hold `head_dim` elements; nobody else uses this token's entry.
    #[inline(always)]
    pub(super) unsafe fn write<E: Element>(
        &self,
        block: u32,
        head: usize,
        token: usize,
        key: *const f32,
        value: *const f32,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let keys = self.keys::<E>(block, head).add(token);
            let values = self.values::<E>(block, head).add(token * self.head_dim);
            for d in 0..self.head_dim {
                *keys.add(d * BLOCK_TOKENS) = E::from_f32(*key.add(d));
                *values.add(d) = E::from_f32(*value.add(d));
            }
        }
    }
}
