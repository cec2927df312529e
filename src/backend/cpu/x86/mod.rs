//! Everything that assumes x86-64: vectors, and the kernels compiled for them.

#![allow(clippy::undocumented_unsafe_blocks, reason = "an unsafe block here is an intrinsic under `Vector`'s contract")]

mod avx2;
mod avx512;
mod bf16;
mod vnni;

use std::arch::x86_64::__m512;

use super::compiled::{Activations, Compiled, Products, compiled, stored, tiles, widening};
use super::isa::Isa;
use super::tile::{Bytes, F32, Fours, Pairs, Tile};
use avx2::Ymm2;
use bf16::DotBf16;
use vnni::Vnni;

/// The kernels of an instruction set beyond the portable one, if this machine has it.
pub(super) fn compiled(isa: Isa) -> Option<&'static Compiled> {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let vnni = is_x86_feature_detected!("avx512vnni");
    match isa {
        Isa::Avx2 if avx2 => Some(&AVX2),
        Isa::Avx512 if avx512 => Some(if vnni { &AVX512_VNNI } else { &AVX512 }),
        // Every processor with the dot products of bf16 has those of bytes.
        Isa::Avx512Bf16 if avx512 && vnni && is_x86_feature_detected!("avx512bf16") => Some(&AVX512_BF16),
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

// Sixteen ymm registers: at most six vectors (pairs of them) of sums beside the operands, fewer where these are taken apart.
const AVX2_TILES: &[Tile] = tiles!([#[target_feature(enable = "avx2,fma")]], accumulate, F32<Ymm2>, ahead 0,
    [(1, 2, 1), (2, 2, 1), (3, 2, 1), (4, 1, 1), (5, 1, 1), (6, 1, 1)]);
const AVX2_STREAMS: &[Tile] = tiles!([#[target_feature(enable = "avx2,fma")]], accumulate, F32<Ymm2>, ahead AHEAD,
    [(1, 4, 2), (2, 2, 1), (3, 2, 1), (4, 1, 1), (5, 1, 1), (6, 1, 1)]);
const AVX2_PAIRS: &[Tile] = tiles!([#[target_feature(enable = "avx2,fma")]], widen, Pairs<Ymm2>, ahead AHEAD,
    [(1, 2, 1), (2, 2, 1), (3, 2, 1), (4, 1, 1), (5, 1, 1), (6, 1, 1)]);
const AVX2_PAIR_STREAMS: &[Tile] = tiles!([#[target_feature(enable = "avx2,fma")]], widen, Pairs<Ymm2>, ahead AHEAD,
    [(1, 4, 2), (2, 2, 1), (3, 2, 1), (4, 1, 1), (5, 1, 1), (6, 1, 1)]);
const AVX2_FOURS: &[Tile] = tiles!([#[target_feature(enable = "avx2,fma")]], widen, Fours<Ymm2>, ahead AHEAD,
    [(1, 2, 1), (2, 2, 1), (3, 2, 1), (4, 1, 1), (5, 1, 1), (6, 1, 1)]);
const AVX2_FOUR_STREAMS: &[Tile] = tiles!([#[target_feature(enable = "avx2,fma")]], widen, Fours<Ymm2>, ahead AHEAD,
    [(1, 4, 2), (2, 2, 1), (3, 2, 1), (4, 1, 1), (5, 1, 1), (6, 1, 1)]);
const AVX2_BYTES: &[Tile] = tiles!([#[target_feature(enable = "avx2,fma")]], accumulate, Bytes<Ymm2>, ahead 0,
    [(1, 2, 1), (2, 2, 1), (3, 1, 1), (4, 1, 1)]);
const AVX2_BYTE_STREAMS: &[Tile] = tiles!([#[target_feature(enable = "avx2,fma")]], accumulate, Bytes<Ymm2>, ahead AHEAD,
    [(1, 4, 2), (2, 2, 1), (3, 1, 1), (4, 1, 1)]);

static AVX2: Compiled = compiled!([#[target_feature(enable = "avx2,fma")]], Ymm2,
    f32: stored(AVX2_TILES, AVX2_STREAMS, AVX2_TILES, Activations::F32),
    bf16: widening(AVX2_PAIRS, AVX2_PAIR_STREAMS, AVX2_TILES, expand_bf16),
    int8: widening(AVX2_FOURS, AVX2_FOUR_STREAMS, AVX2_TILES, expand_i8),
    w8a8: stored(AVX2_BYTES, AVX2_BYTE_STREAMS, AVX2_BYTES, Activations::Bytes),
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
    widen, Pairs<__m512>, ahead AHEAD,
    [(1, 2, 1), (2, 2, 1), (3, 2, 1), (4, 2, 1), (5, 2, 1), (6, 2, 1),
     (7, 2, 1), (8, 2, 1), (9, 2, 1), (10, 2, 1), (11, 2, 1), (12, 2, 1)]);
const AVX512_PAIR_STREAMS: &[Tile] = tiles!([#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]],
    widen, Pairs<__m512>, ahead AHEAD,
    [(1, 8, 4), (2, 8, 4), (3, 4, 2), (4, 4, 2), (5, 4, 2), (6, 2, 1),
     (7, 2, 1), (8, 2, 1), (9, 2, 1), (10, 2, 1), (11, 2, 1), (12, 2, 1)]);
const AVX512_FOURS: &[Tile] = tiles!([#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]],
    widen, Fours<__m512>, ahead AHEAD,
    [(1, 2, 1), (2, 2, 1), (3, 2, 1), (4, 2, 1), (5, 2, 1), (6, 2, 1),
     (7, 2, 1), (8, 2, 1), (9, 2, 1), (10, 2, 1), (11, 2, 1), (12, 2, 1)]);
const AVX512_FOUR_STREAMS: &[Tile] = tiles!([#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]],
    widen, Fours<__m512>, ahead AHEAD,
    [(1, 8, 4), (2, 8, 4), (3, 4, 2), (4, 4, 2), (5, 4, 2), (6, 2, 1),
     (7, 2, 1), (8, 2, 1), (9, 2, 1), (10, 2, 1), (11, 2, 1), (12, 2, 1)]);
const AVX512_BYTES: &[Tile] = tiles!([#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]],
    accumulate, Bytes<__m512>, ahead 0,
    [(1, 2, 1), (2, 2, 1), (3, 2, 1), (4, 2, 1), (5, 2, 1), (6, 2, 1), (7, 2, 1), (8, 2, 1)]);
const AVX512_BYTE_STREAMS: &[Tile] = tiles!([#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]],
    accumulate, Bytes<__m512>, ahead AHEAD,
    [(1, 8, 4), (2, 4, 2), (3, 4, 2), (4, 4, 2), (5, 2, 1), (6, 2, 1), (7, 2, 1), (8, 2, 1)]);

const BASE: Compiled = compiled!([#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]], __m512,
    f32: stored(AVX512_TILES, AVX512_STREAMS, AVX512_TILES, Activations::F32),
    bf16: widening(AVX512_PAIRS, AVX512_PAIR_STREAMS, AVX512_TILES, expand_bf16),
    int8: widening(AVX512_FOURS, AVX512_FOUR_STREAMS, AVX512_TILES, expand_i8),
    w8a8: stored(AVX512_BYTES, AVX512_BYTE_STREAMS, AVX512_BYTES, Activations::Bytes),
    widened: AVX512_TILES
);

/// For AVX-512 without dot products.
pub(super) static AVX512: Compiled = BASE;

const VNNI_TILES: &[Tile] = tiles!(
    [#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]], accumulate, Vnni, ahead 0,
    [(1, 2, 1), (2, 2, 1), (3, 2, 1), (4, 2, 1), (5, 2, 1), (6, 2, 1), (7, 2, 1),
     (8, 2, 1), (9, 2, 1), (10, 2, 1), (11, 2, 1), (12, 2, 1), (13, 2, 1), (14, 2, 1)]);
const VNNI_STREAMS: &[Tile] = tiles!(
    [#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]], accumulate, Vnni, ahead AHEAD,
    [(1, 8, 4), (2, 8, 4), (3, 8, 4), (4, 4, 2), (5, 4, 2), (6, 4, 2), (7, 2, 1),
     (8, 2, 1), (9, 2, 1), (10, 2, 1), (11, 2, 1), (12, 2, 1), (13, 2, 1), (14, 2, 1)]);
const VNNI: Products = stored(VNNI_TILES, VNNI_STREAMS, VNNI_TILES, Activations::Bytes);

/// For AVX-512 with dot products of bytes: the same bits, sooner.
static AVX512_VNNI: Compiled = Compiled { w8a8: VNNI, ..BASE };

const DOT_TILES: &[Tile] = tiles!(
    [#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]], accumulate, DotBf16, ahead 0,
    [(1, 2, 1), (2, 2, 1), (3, 2, 1), (4, 2, 1), (5, 2, 1), (6, 2, 1), (7, 2, 1),
     (8, 2, 1), (9, 2, 1), (10, 2, 1), (11, 2, 1), (12, 2, 1), (13, 2, 1), (14, 2, 1)]);
const DOT_STREAMS: &[Tile] = tiles!(
    [#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]], accumulate, DotBf16, ahead AHEAD,
    [(1, 8, 4), (2, 8, 4), (3, 8, 4), (4, 4, 2), (5, 4, 2), (6, 4, 2), (7, 2, 1),
     (8, 2, 1), (9, 2, 1), (10, 2, 1), (11, 2, 1), (12, 2, 1), (13, 2, 1), (14, 2, 1)]);

static AVX512_BF16: Compiled =
    Compiled { bf16: stored(DOT_TILES, DOT_STREAMS, DOT_TILES, Activations::Pairs), w8a8: VNNI, ..BASE };
