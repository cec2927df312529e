//! A plan as it will be loaded, before anything is: its classes, where everything goes, and what it all takes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::attention::{tile_tokens, tiles_only};
use super::call::{Call, Code, Count, Shared};
use super::check;
use super::choose::{Class, Selector};
use super::cubins::{Compiler, CubinStore};
use super::driver::Arch;
use super::flight::Flight;
use super::kernel::KernelSpec;
use super::matmul::MatmulSpec;
use super::program::Sizes;
use super::sample;
use super::step::Layout;
use super::tactics::Tactics;
use super::target::CudaTarget;
use crate::engine::{BLOCK_TOKENS, Limits, Plan};
use crate::error::Result;

/// Steps that may be under way.
pub(super) const DEPTH: usize = 2;

/// Device memory of a graph for each of its kernels. Measured on an H200 (driver 580): 2,516 bytes.
pub const GRAPH_NODE_BYTES: usize = 4 << 10;

/// Device memory of a module beside its code, which the measured one did not need: for what the driver rounds up to.
pub const MODULE_BYTES: usize = 16 << 10;

/// Code of a kernel that is still to be compiled: more than any of this library's sources gives.
const UNKNOWN_CUBIN_BYTES: usize = 256 << 10;

/// What cuBLASLt keeps on a device beside the workspace that it is given: its state and the kernels that it loads.
pub(super) const PRODUCTS_BYTES: usize = 64 << 20;

/// Everything that is decided about a plan before it is loaded.
pub(super) struct Blueprint {
    pub(super) limits: Limits,
    pub(super) classes: Vec<Class>,
    pub(super) layout: Layout,
    pub(super) sizes: Sizes,
    /// What sampling keeps on the device.
    pub(super) sampling: [(Shared, usize); 5],
    /// Row counts that get a decode graph.
    pub(super) buckets: Vec<usize>,
    cubins: CubinStore<Arc<dyn Compiler>>,
    arch: Arch,
}

impl Blueprint {
    /// # Errors
    /// `RequestTooLarge` when a size does not fit the address space; what [`check::plan`] and [`check::limits`] say.
    pub(super) fn new(
        plan: &Plan,
        limits: Limits,
        target: &CudaTarget,
        tactics: &Tactics,
        cubins: CubinStore<Arc<dyn Compiler>>,
    ) -> Result<Self> {
        check::plan(plan)?;
        check::limits(plan, &limits)?;
        let classes = Selector { plan, target, tactics }.classes(&limits);
        Ok(Self {
            limits,
            layout: layout(plan, &limits),
            sizes: Sizes::new(plan, &limits, &classes)?,
            sampling: sample::memory(plan.model.vocab_size, limits.logit_rows, limits.rows),
            buckets: if tiles_only(plan) { Vec::new() } else { buckets(limits) },
            classes,
            cubins,
            arch: target.arch,
        })
    }

    /// Device memory, that of modules and graphs as far as it can be known.
    ///
    /// # Errors
    /// As [`CubinStore::stored_bytes`].
    pub(super) fn device_bytes(&self) -> Result<usize> {
        let sampling: usize = self.sampling.iter().map(|(_, bytes)| bytes).sum();
        let driver = self.code_bytes()?.saturating_add(self.graph_bytes());
        Ok(self.sizes.total().saturating_add(sampling + self.layout.bytes).saturating_add(driver))
    }

    /// Page-locked memory of all steps under way.
    pub(super) fn pinned_bytes(&self) -> usize {
        DEPTH * Flight::bytes_for(self.layout.bytes, self.limits.logit_rows)
    }

    /// The machine code of every kernel, what has to be compiled by all processors together.
    ///
    /// # Errors
    /// As [`CubinStore::get_all`].
    pub(super) fn cubins(&self) -> Result<HashMap<KernelSpec, Arc<[u8]>>> {
        let specs: Vec<KernelSpec> = self.specs().into_iter().cloned().collect();
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cubins = self.cubins.get_all(&specs, self.arch, threads)?;
        Ok(specs.into_iter().zip(cubins).collect())
    }

    fn calls(&self) -> impl Iterator<Item = &Call> {
        self.classes.iter().flat_map(Class::all_calls)
    }

    /// Every product of the vendor's library, once.
    pub(super) fn products(&self) -> impl Iterator<Item = &MatmulSpec> {
        let products = self.calls().filter_map(|call| match &call.code {
            Code::Kernel(_) => None,
            Code::Product(spec) => Some(spec),
        });
        products.collect::<HashSet<_>>().into_iter()
    }

    fn specs(&self) -> BTreeSet<&KernelSpec> {
        self.calls().filter_map(Call::spec).collect()
    }

    /// Of modules, and of the vendor's library where it is used.
    fn code_bytes(&self) -> Result<usize> {
        let bytes = |spec| Ok(self.cubins.stored_bytes(spec, self.arch)?.unwrap_or(UNKNOWN_CUBIN_BYTES));
        let modules: usize = self.specs().into_iter().map(|spec| bytes(spec).map(module_bytes)).sum::<Result<_>>()?;
        Ok(modules + if self.products().next().is_some() { PRODUCTS_BYTES } else { 0 })
    }

    fn graph_bytes(&self) -> usize {
        let nodes = |rows: &usize| {
            let class = self.classes.iter().find(|class| *rows <= class.tokens).or(self.classes.last());
            class.map_or(0, |class| class.calls.iter().filter(|forms| is_in_decode(&forms[0].1)).count() + 1)
        };
        graph_bytes(self.buckets.iter().map(nodes).sum())
    }
}

/// Device memory of a module. Its cubin has what is no code, too.
pub(super) fn module_bytes(cubin: usize) -> usize {
    cubin + MODULE_BYTES
}

/// Device memory of graphs of so many kernels together.
pub(super) fn graph_bytes(nodes: usize) -> usize {
    nodes * GRAPH_NODE_BYTES
}

fn layout(plan: &Plan, limits: &Limits) -> Layout {
    let blocks = plan.model.max_positions.div_ceil(BLOCK_TOKENS);
    // Rows that share a prefix have tables that are together longer than the pool.
    let entries = plan.kv_groups.len() * limits.rows * blocks;
    Layout::new(*limits, plan.kv_groups.len(), tile_tokens(plan), entries)
}

/// Whether steps of nothing but decode rows have the call.
fn is_in_decode(call: &Call) -> bool {
    !call.only_with_tiles && call.count != Count::Tiles
}

/// Row counts of decode graphs: dense where a step is short, and at most an eighth of padding further up. Powers of two are
/// among them, so that padding leads to the kernels of no larger class.
fn buckets(limits: Limits) -> Vec<usize> {
    let most = limits.rows.min(limits.tokens).min(limits.logit_rows);
    let mut buckets = Vec::new();
    let mut rows: usize = 1;
    while rows < most {
        buckets.push(rows);
        rows += ((rows + 1).next_power_of_two() / 16).max(1);
    }
    buckets.push(most);
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Padding leads to no larger class, whose kernels are others, and costs little.
    #[test]
    fn buckets_have_every_power_of_two_and_little_padding() {
        for most in 1..=1024 {
            let buckets = buckets(Limits { tokens: most, logit_rows: most, rows: most, kv_blocks: 1 });
            assert_eq!((buckets[0], buckets.last()), (1, Some(&most)));
            for pair in buckets.windows(2) {
                let (least, padded) = (pair[0] + 1, pair[1]);
                assert!(least <= padded && (padded - least) * 8 <= least, "{pair:?}");
            }
            let mut powers = (0..).map(|n| 1 << n).take_while(|power| *power <= most);
            assert!(powers.all(|power: usize| buckets.contains(&power)), "{buckets:?}");
        }
    }
}
