//! The kernels, compiled for one instruction set: a table of functions.

use super::attend::Attend;
use super::expand::Expand;
use super::finish::Finish;
use super::pack::Pack;
use super::quantize::{Quantize, Rescale};
use super::rows::{Elements, Norm, Rotation};
use super::tile::Tile;
use super::vector::Plain;
use crate::engine::Precision;
use crate::types::{Activation, DType};

/// Matrix product tiles for one dtype of weights. Tile lists go by height, from 1 up.
pub(super) struct Products {
    /// Tiles of one panel for weights as they are stored.
    pub single: &'static [Tile],
    /// Tiles of as many panels as the registers hold, for reading the weights once; none where every weight is widened
    /// before it is multiplied.
    pub streams: &'static [Tile],
    /// Tiles of one panel for sweeping a block of weights over many rows.
    pub sweep: &'static [Tile],
    /// How a block is widened to f32 first, where `sweep` wants that.
    pub expand: Option<unsafe fn(&Expand)>,
    pub activations: Activations,
}

/// What a word of a packed activation row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activations {
    F32,
    /// Two bf16.
    Pairs,
    /// Four integers of 8 bits, of rows with scales.
    Bytes,
}

impl Activations {
    /// Words of a row of `k` elements.
    pub(super) fn words(self, k: usize) -> usize {
        match self {
            Activations::F32 => k,
            Activations::Pairs => k.div_ceil(2),
            Activations::Bytes => k.div_ceil(4),
        }
    }
}

/// Everything compiled for one instruction set. The functions may only be called on a machine that has it.
pub(super) struct Compiled {
    pub f32: Products,
    pub bf16: Products,
    pub f16: Products,
    pub e4m3: Products,
    /// i8 weights and f32 activations.
    pub int8: Products,
    /// i8 weights and quantised activations; sums are integers.
    pub w8a8: Products,
    pub pack_f32: unsafe fn(&Pack),
    pub pack_pairs: unsafe fn(&Pack),
    pub quantize: unsafe fn(&Quantize),
    pub rescale: unsafe fn(&Rescale<'_>),
    pub finish: unsafe fn(&Finish),
    pub norm: unsafe fn(&Norm),
    pub add: unsafe fn(&Elements),
    pub mul: unsafe fn(&Elements),
    pub activate: unsafe fn(Activation, &Elements),
    pub soft_cap: unsafe fn(f32, &Elements),
    pub rotate: unsafe fn(&Rotation),
    pub attend_f32: unsafe fn(&Attend<'_>),
    pub attend_bf16: unsafe fn(&Attend<'_>),
    pub attend_f16: unsafe fn(&Attend<'_>),
    pub attend_e4m3: unsafe fn(&Attend<'_>),
}

impl Compiled {
    /// What multiplies weights of `dtype` in an engine of that precision.
    pub(super) fn products(&self, dtype: DType, precision: Precision) -> &Products {
        match (dtype, precision) {
            (DType::BF16, _) => &self.bf16,
            (DType::F16, _) => &self.f16,
            (DType::E4M3, _) => &self.e4m3,
            (DType::I8, Precision::Int8W8a8) => &self.w8a8,
            (DType::I8, _) => &self.int8,
            (DType::F32 | DType::I32, _) => &self.f32,
        }
    }
}

/// Products with words of weights as they are stored.
pub(super) const fn stored(
    single: &'static [Tile],
    streams: &'static [Tile],
    sweep: &'static [Tile],
    activations: Activations,
) -> Products {
    Products { single, streams, sweep, expand: None, activations }
}

/// Products with weights that tiles widen, except in a sweep, for which a block is widened first.
pub(super) const fn widening(
    single: &'static [Tile],
    streams: &'static [Tile],
    sweep: &'static [Tile],
    expand: unsafe fn(&Expand),
) -> Products {
    Products { single, streams, sweep, expand: Some(expand), activations: Activations::F32 }
}

/// Products with weights that are always widened first.
pub(super) const fn widened(sweep: &'static [Tile], expand: unsafe fn(&Expand)) -> Products {
    Products { single: &[], streams: &[], sweep, expand: Some(expand), activations: Activations::F32 }
}

/// Puts the attributes before an item.
macro_rules! attributed {
    ([$($attributes:tt)*] $($item:tt)*) => { $($attributes)* $($item)* };
}

/// A list of [`Tile`]s: `(height, vectors side by side, panels)`.
macro_rules! tiles {
    ($attributes:tt, $function:ident, $product:ty, ahead $ahead:expr, [$(($height:literal, $width:literal, $panels:literal)),* $(,)?]) => {
        &[$({
            $crate::backend::cpu::compiled::attributed! { $attributes
                unsafe fn run(call: $crate::backend::cpu::tile::TileCall) {
                    // SAFETY: the caller's.
                    unsafe { $crate::backend::cpu::tile::$function::<$product, $height, $width, $panels, { $ahead }>(call) }
                }
            }
            $crate::backend::cpu::tile::Tile { run, panels: $panels }
        }),*]
    };
}

/// The [`Compiled`] of a vector type, with the products as given (which may name the functions here) and the tiles for
/// widened weights; every function gets the attributes.
macro_rules! compiled {
    ($attributes:tt, $vector:ty, f32: $f32:expr, bf16: $bf16:expr, int8: $int8:expr, w8a8: $w8a8:expr, widened: $widened:expr) => {{
        use $crate::backend::cpu::{attend, cache, compiled::widened, expand, finish, pack, quantize, rows, tile};
        $crate::backend::cpu::compiled::attributed! { $attributes
            unsafe fn expand_bf16(block: &expand::Expand) {
            // SAFETY: the caller's.
            unsafe { expand::expand_narrow::<tile::Pairs<$vector>>(block) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn expand_f16(block: &expand::Expand) {
            // SAFETY: the caller's.
            unsafe { expand::expand_f16(block) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn expand_e4m3(block: &expand::Expand) {
            // SAFETY: the caller's.
            unsafe { expand::expand_e4m3::<$vector>(block) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn expand_i8(block: &expand::Expand) {
            // SAFETY: the caller's.
            unsafe { expand::expand_narrow::<tile::Fours<$vector>>(block) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn quantize(rows: &quantize::Quantize) {
            // SAFETY: the caller's.
            unsafe { quantize::quantize(rows) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn rescale(sums: &quantize::Rescale<'_>) {
            // SAFETY: the caller's.
            unsafe { quantize::rescale::<$vector>(sums) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn pack_f32(strip: &pack::Pack) {
            // SAFETY: the caller's.
            unsafe { pack::pack_f32(strip) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn pack_pairs(strip: &pack::Pack) {
            // SAFETY: the caller's.
            unsafe { pack::pack_pairs(strip) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn finish(sums: &finish::Finish) {
            // SAFETY: the caller's.
            unsafe { finish::finish::<$vector>(sums) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn norm(norm: &rows::Norm) {
            // SAFETY: the caller's.
            unsafe { rows::norm::<$vector>(norm) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn add(elements: &rows::Elements) {
            // SAFETY: the caller's.
            unsafe { rows::add::<$vector>(elements) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn mul(elements: &rows::Elements) {
            // SAFETY: the caller's.
            unsafe { rows::mul::<$vector>(elements) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn activate(f: $crate::types::Activation, elements: &rows::Elements) {
            // SAFETY: the caller's.
            unsafe { rows::activate::<$vector>(f, elements) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn soft_cap(cap: f32, elements: &rows::Elements) {
            // SAFETY: the caller's.
            unsafe { rows::soft_cap::<$vector>(cap, elements) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn rotate(rotation: &rows::Rotation) {
            // SAFETY: the caller's.
            unsafe { rows::rotate::<$vector>(rotation) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn attend_f32(task: &attend::Attend<'_>) {
            // SAFETY: the caller's.
            unsafe { attend::attend::<$vector, f32>(task) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn attend_bf16(task: &attend::Attend<'_>) {
            // SAFETY: the caller's.
            unsafe { attend::attend::<$vector, cache::Bf16>(task) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn attend_f16(task: &attend::Attend<'_>) {
            // SAFETY: the caller's.
            unsafe { attend::attend::<$vector, cache::F16>(task) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn attend_e4m3(task: &attend::Attend<'_>) {
            // SAFETY: the caller's.
            unsafe { attend::attend::<$vector, cache::E4m3>(task) }
        } }
        $crate::backend::cpu::compiled::Compiled {
            f32: $f32,
            bf16: $bf16,
            f16: widened($widened, expand_f16),
            e4m3: widened($widened, expand_e4m3),
            int8: $int8,
            w8a8: $w8a8,
            pack_f32,
            pack_pairs,
            quantize,
            rescale,
            finish,
            norm,
            add,
            mul,
            activate,
            soft_cap,
            rotate,
            attend_f32,
            attend_bf16,
            attend_f16,
            attend_e4m3,
        }
    }};
}

pub(super) use attributed;
#[cfg(target_arch = "x86_64")]
pub(super) use {compiled, tiles};

const PORTABLE_TILES: &[Tile] =
    tiles!([], accumulate, super::tile::F32<Plain>, ahead 0, [(1, 2, 1), (2, 1, 1), (3, 1, 1), (4, 1, 1)]);
const PORTABLE_PAIRS: &[Tile] =
    tiles!([], widen, super::tile::Pairs<Plain>, ahead 0, [(1, 2, 1), (2, 1, 1), (3, 1, 1), (4, 1, 1)]);
const PORTABLE_FOURS: &[Tile] =
    tiles!([], widen, super::tile::Fours<Plain>, ahead 0, [(1, 2, 1), (2, 1, 1), (3, 1, 1), (4, 1, 1)]);
const PORTABLE_BYTES: &[Tile] =
    tiles!([], accumulate, super::tile::Bytes<Plain>, ahead 0, [(1, 2, 1), (2, 1, 1), (3, 1, 1), (4, 1, 1)]);

/// The kernels of [`super::isa::Isa::Portable`].
pub(super) static PORTABLE: Compiled = compiled!([], Plain,
    f32: stored(PORTABLE_TILES, PORTABLE_TILES, PORTABLE_TILES, Activations::F32),
    bf16: widening(PORTABLE_PAIRS, PORTABLE_PAIRS, PORTABLE_TILES, expand_bf16),
    int8: widening(PORTABLE_FOURS, PORTABLE_FOURS, PORTABLE_TILES, expand_i8),
    w8a8: stored(PORTABLE_BYTES, PORTABLE_BYTES, PORTABLE_BYTES, Activations::Bytes),
    widened: PORTABLE_TILES
);
