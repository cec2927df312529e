//! From a checkpoint to an engine file: lowers the optimised graph to a plan, plans memory, packs weights.

mod build;
mod encode;
mod formats;
mod kernels;
mod lower;
mod memory;
mod pack;
mod place;
mod recipe;
mod record;
mod stored;

#[cfg(test)]
mod tests;

pub use build::{BuildOptions, Phase, Source, build, network, plan};
