//! Everything that assumes x86-64: vectors, and the kernels compiled for them.

#![allow(clippy::undocumented_unsafe_blocks, reason = "an unsafe block here is an intrinsic under `Vector`'s contract")]

mod avx2;
mod avx512;
mod bf16;

use std::arch::x86_64::__m512;

use super::compiled::{Compiled, Products, compiled, tiles};
use super::isa::Isa;
use super::tile::{F32, Tile};
use avx2::Ymm2;
use bf16::DotBf16;

/// The kernels of an instruction set beyond the portable one, if this machine has it.
pub(super) fn compiled(isa: Isa) -> Option<&'static Compiled> {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match isa {
        Isa::Avx2 if avx2 => Some(&AVX2),
        Isa::Avx512 if avx512 => Some(&AVX512),
        Isa::Avx512Bf16 if avx512 && is_x86_feature_detected!("avx512bf16") => Some(&AVX512_BF16),
        _ => None,
    }
}

/// Whether `vdpbf16ps` multiplies no faster than f32 FMA: so on Intel's cores with AMX, which leave bf16 to the tiles
/// (Sapphire Rapids, 2 threads, 1B parameters: prefill at 59 tokens/s by dot products, 84 by FMA; Zen 4 and 5 have no AMX).
pub(super) fn dot_products_are_slow() -> bool {
    const AMX_BF16: u32 = 1 << 22;
    std::arch::x86_64::__cpuid_count(7, 0).edx & AMX_BF16 != 0
}

/// How far ahead a stream asks for its weights, in words of a panel's column: 2 KiB, about what a core has in flight.
const AHEAD: usize = 16;

// Sixteen ymm registers: at most six vectors (pairs of them) of sums beside the operands.
const AVX2_TILES: &[Tile] = tiles!([#[target_feature(enable = "avx2,fma")]], accumulate, F32<Ymm2>, ahead 0,
    [(1, 2, 1), (2, 2, 1), (3, 2, 1), (4, 1, 1), (5, 1, 1), (6, 1, 1)]);
const AVX2_STREAMS: &[Tile] = tiles!([#[target_feature(enable = "avx2,fma")]], accumulate, F32<Ymm2>, ahead AHEAD,
    [(1, 4, 2), (2, 2, 1), (3, 2, 1), (4, 1, 1), (5, 1, 1), (6, 1, 1)]);
const AVX2_PAIRS: &[Tile] = tiles!([#[target_feature(enable = "avx2,fma")]], widen, F32<Ymm2>, ahead AHEAD,
    [(1, 2, 1), (2, 2, 1), (3, 2, 1), (4, 1, 1), (5, 1, 1), (6, 1, 1)]);
const AVX2_PAIR_STREAMS: &[Tile] = tiles!([#[target_feature(enable = "avx2,fma")]], widen, F32<Ymm2>, ahead AHEAD,
    [(1, 4, 2), (2, 2, 1), (3, 2, 1), (4, 1, 1), (5, 1, 1), (6, 1, 1)]);

static AVX2: Compiled = compiled!([#[target_feature(enable = "avx2,fma")]], Ymm2,
    f32: Products { single: AVX2_TILES, streams: AVX2_STREAMS, sweep: AVX2_TILES, expand: None, pairs: false },
    bf16: Products { single: AVX2_PAIRS, streams: AVX2_PAIR_STREAMS, sweep: AVX2_TILES, expand: Some(expand_bf16), pairs: false },
    widened: AVX2_TILES
);

// Thirty-two zmm registers: at most 24 (28 for dot products, which need no others) vectors of sums.
const AVX512_TILES: &[Tile] = tiles!([#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]],
    accumulate, F32<__m512>, ahead 0,
    [(1, 2, 1), (2, 2, 1), (3, 2, 1), (4, 2, 1), (5, 2, 1), (6, 2, 1),
     (7, 2, 1), (8, 2, 1), (9, 2, 1), (10, 2, 1), (11, 2, 1), (12, 2, 1)]);
const AVX512_STREAMS: &[Tile] = tiles!([#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]],
    accumulate, F32<__m512>, ahead AHEAD,
    [(1, 8, 4), (2, 8, 4), (3, 8, 4), (4, 4, 2), (5, 4, 2), (6, 4, 2),
     (7, 2, 1), (8, 2, 1), (9, 2, 1), (10, 2, 1), (11, 2, 1), (12, 2, 1)]);
const AVX512_PAIRS: &[Tile] = tiles!([#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]],
    widen, F32<__m512>, ahead AHEAD,
    [(1, 2, 1), (2, 2, 1), (3, 2, 1), (4, 2, 1), (5, 2, 1), (6, 2, 1),
     (7, 2, 1), (8, 2, 1), (9, 2, 1), (10, 2, 1), (11, 2, 1), (12, 2, 1)]);
const AVX512_PAIR_STREAMS: &[Tile] = tiles!([#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]],
    widen, F32<__m512>, ahead AHEAD,
    [(1, 8, 4), (2, 8, 4), (3, 4, 2), (4, 4, 2), (5, 4, 2), (6, 2, 1),
     (7, 2, 1), (8, 2, 1), (9, 2, 1), (10, 2, 1), (11, 2, 1), (12, 2, 1)]);

static AVX512: Compiled = compiled!([#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]], __m512,
    f32: Products { single: AVX512_TILES, streams: AVX512_STREAMS, sweep: AVX512_TILES, expand: None, pairs: false },
    bf16: Products { single: AVX512_PAIRS, streams: AVX512_PAIR_STREAMS, sweep: AVX512_TILES, expand: Some(expand_bf16), pairs: false },
    widened: AVX512_TILES
);

const DOT_TILES: &[Tile] = tiles!(
    [#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]], accumulate, DotBf16, ahead 0,
    [(1, 2, 1), (2, 2, 1), (3, 2, 1), (4, 2, 1), (5, 2, 1), (6, 2, 1), (7, 2, 1),
     (8, 2, 1), (9, 2, 1), (10, 2, 1), (11, 2, 1), (12, 2, 1), (13, 2, 1), (14, 2, 1)]);
const DOT_STREAMS: &[Tile] = tiles!(
    [#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]], accumulate, DotBf16, ahead AHEAD,
    [(1, 8, 4), (2, 8, 4), (3, 8, 4), (4, 4, 2), (5, 4, 2), (6, 4, 2), (7, 2, 1),
     (8, 2, 1), (9, 2, 1), (10, 2, 1), (11, 2, 1), (12, 2, 1), (13, 2, 1), (14, 2, 1)]);

static AVX512_BF16: Compiled = compiled!([#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]], __m512,
    f32: Products { single: AVX512_TILES, streams: AVX512_STREAMS, sweep: AVX512_TILES, expand: None, pairs: false },
    bf16: Products { single: DOT_TILES, streams: DOT_STREAMS, sweep: DOT_TILES, expand: None, pairs: true },
    widened: AVX512_TILES
);
