//! The kernels, compiled for one instruction set: a table of functions.

use super::attend::Attend;
use super::expand::Expand;
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
    /// Tiles of as many panels as the registers hold, for reading the weights once; none where every weight is widened
    /// before it is multiplied.
    pub streams: &'static [Tile],
    /// Tiles of one panel for sweeping a block of weights over many rows.
    pub sweep: &'static [Tile],
    /// How a block is widened to f32 first, where `sweep` wants that.
    pub expand: Option<unsafe fn(&Expand)>,
    /// Whether activations are packed as pairs of bf16.
    pub pairs: bool,
}

/// Everything compiled for one instruction set. The functions may only be called on a machine that has it.
pub(super) struct Compiled {
    pub f32: Products,
    pub bf16: Products,
    pub f16: Products,
    pub e4m3: Products,
    pub pack_f32: unsafe fn(&Pack),
    pub pack_pairs: unsafe fn(&Pack),
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

/// Products with weights that are always widened first.
pub(super) const fn widened(sweep: &'static [Tile], expand: unsafe fn(&Expand)) -> Products {
    Products { single: &[], streams: &[], sweep, expand: Some(expand), pairs: false }
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
    ($attributes:tt, $vector:ty, f32: $f32:expr, bf16: $bf16:expr, widened: $widened:expr) => {{
        use $crate::backend::cpu::{attend, cache, compiled::widened, expand, finish, pack, rows};
        $crate::backend::cpu::compiled::attributed! { $attributes
            #[allow(dead_code, reason = "dot products take pairs of bf16 as they are")]
            unsafe fn expand_bf16(block: &expand::Expand) {
            // SAFETY: the caller's.
            unsafe { expand::expand_bf16::<$vector>(block) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn expand_f16(block: &expand::Expand) {
            // SAFETY: the caller's.
            unsafe { expand::expand_f16(block) }
        } }
        $crate::backend::cpu::compiled::attributed! { $attributes unsafe fn expand_e4m3(block: &expand::Expand) {
            // SAFETY: the caller's.
            unsafe { expand::expand_e4m3::<$vector>(block) }
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
            pack_f32,
            pack_pairs,
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
    tiles!([], widen, super::tile::F32<Plain>, ahead 0, [(1, 2, 1), (2, 1, 1), (3, 1, 1), (4, 1, 1)]);

/// The kernels of [`super::isa::Isa::Portable`].
pub(super) static PORTABLE: Compiled = compiled!([], Plain,
    f32: Products { single: PORTABLE_TILES, streams: PORTABLE_TILES, sweep: PORTABLE_TILES, expand: None, pairs: false },
    bf16: Products { single: PORTABLE_PAIRS, streams: PORTABLE_PAIRS, sweep: PORTABLE_TILES, expand: Some(expand_bf16), pairs: false },
    widened: PORTABLE_TILES
);
