//! The paged KV cache as bookkeeping: which block of which pool holds which tokens of which sequence.
//!
//! Every KV group of a plan has its own pool of blocks, and every sequence one block table per group. Full blocks enter
//! a prefix tree, where later sequences find them; once no sequence uses them they stay cached until the room is
//! needed. Nothing here touches a device, a clock or a thread: the caller computes what the tables say.
//!
//! Three rules carry everything else:
//! - an indexed block is never written again, so it may be shared;
//! - a sequence references a node of the tree only together with all its ancestors, and lets go of the deepest first,
//!   so the least recently used node is always a leaf and eviction is a list pop;
//! - a block is exactly one of free, cached (indexed, unreferenced) or referenced.

mod cache;
mod config;
mod manager;
mod pool;
mod sequence;
mod tree;
mod verify;

#[cfg(test)]
mod audit;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod traces;

pub use config::{GroupSpec, KvConfig, KvStats, MAX_SALT_BYTES, PrefixKey, Usage};
pub use manager::KvManager;
pub use sequence::Sequence;
