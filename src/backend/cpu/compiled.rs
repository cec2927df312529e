//! The kernels, compiled for one instruction set: a table of functions.

use super::attend::Attend;
use super::finish::Finish;
use super::pack::Pack;
use super::rows::{Elements, Norm, Rotation};
use super::tile::Tile;
use super::vector::Plain;
use crate::types::Activation;

/// Matrix product tiles for one dtype of weights. Tile lists go by height, from 1 up.
pub(super) struct Products {
    /// Tiles of one panel for weights as they are stored.
    pub single: &'static [Tile],
    /// Tiles of as many panels as the registers hold, for reading the weights once.
    pub streams: &'static [Tile],
    /// Tiles of one panel for sweeping a block of weights over many rows.
    pub sweep: &'static [Tile],
    /// Whether `sweep` wants the block widened to f32 first.
    pub expand: bool,
    /// Whether activations are packed as pairs of bf16.
    pub pairs: bool,
}

/// Everything compiled for one instruction set. The functions may only be called on a machine that has it.
pub(super) struct Compiled {
    pub f32: Products,
    pub bf16: Products,
    pub expand: unsafe fn(*const u32, usize, *mut f32),
    pub pack_f32: unsafe fn(&Pack),
    pub pack_pairs: unsafe fn(&Pack),
    pub finish: unsafe fn(&Finish),
    pub norm: unsafe fn(&Norm),
    pub add: unsafe fn(&Elements),
    pub mul: unsafe fn(&Elements),
    pub activate: unsafe fn(Activation, &Elements),
    pub rotate: unsafe fn(&Rotation),
    pub attend_f32: unsafe fn(&Attend<'_>),
    pub attend_bf16: unsafe fn(&Attend<'_>),
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

/// The [`Compiled`] of a vector type, with the products as given; every function gets the attributes.
macro_rules! compiled {
    ($attributes:tt, $vector:ty, f32: $f32:expr, bf16: $bf16:expr) => {{
        use $crate::backend::cpu::{attend, finish, pack, rows, tile};
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn expand(panel: *const u32, pairs: usize, out: *mut f32) {
            // SAFETY: the caller's.
            unsafe { tile::expand::<$vector>(panel, pairs, out) }
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
            unsafe { attend::attend::<$vector, u16>(task) }
        } }
        $crate::backend::cpu::compiled::Compiled {
            f32: $f32,
            bf16: $bf16,
            expand,
            pack_f32,
            pack_pairs,
            finish,
            norm,
            add,
            mul,
            activate,
            rotate,
            attend_f32,
            attend_bf16,
        }
    }};
}

pub(super) use attributed;
#[cfg(target_arch = "x86_64")]
pub(super) use {compiled, tiles};

const PORTABLE_TILES: &[Tile] =
    tiles!([], accumulate, super::tile::F32<Plain>, ahead 0, [(1, 2, 1), (2, 1, 1), (3, 1, 1), (4, 1, 1)]);
const PORTABLE_PAIRS: &[Tile] =
    tiles!([], widen, super::tile::F32<Plain>, ahead 0, [(1, 2, 1), (2, 1, 1), (3, 1, 1), (4, 1, 1)]);

/// The kernels of [`super::isa::Isa::Portable`].
pub(super) static PORTABLE: Compiled = compiled!([], Plain,
    f32: Products { single: PORTABLE_TILES, streams: PORTABLE_TILES, sweep: PORTABLE_TILES, expand: false, pairs: false },
    bf16: Products { single: PORTABLE_PAIRS, streams: PORTABLE_PAIRS, sweep: PORTABLE_TILES, expand: true, pairs: false }
);
