//! A plan on a device: weights, workspace, caches and input in device memory, bound launches for every class of step, and
//! graphs for decode steps.

use std::collections::HashMap;
use std::sync::Arc;

use super::bind::{Binder, Bound, Modules, Places};
use super::blueprint::Blueprint;
use super::call::{Call, Shared};
use super::choose::Class;
use super::driver::{Address, Driver};
use super::memory::DeviceMemory;
use super::step::{Counts, Layout};
use crate::engine::{Engine, KvGroup, Limits, Plan};
use crate::error::{Error, Result};

/// Bound launches of the steps of at most `tokens` tokens.
pub(super) struct BoundClass {
    pub(super) tokens: usize,
    launches: Vec<Choices>,
    sampling: [Bound; 2],
    /// Where the logits come to lie.
    pub(super) logits: Address,
}

/// One launch in several forms, by the most rows that each is for; the last takes any.
struct Choices(Vec<(usize, Bound)>);

impl Choices {
    fn of(&mut self, counts: &Counts) -> &mut Bound {
        let rows = self.0[0].1.rows(counts) as usize;
        let at = self.0.iter().position(|(most, _)| rows <= *most).unwrap_or(self.0.len() - 1);
        &mut self.0[at].1
    }
}

impl BoundClass {
    /// Enqueues the class's launches for a step, the first kernel of sampling included; tells how many.
    ///
    /// # Safety
    /// The counts are within the limits that the class was bound for, and the input is on its way to the device.
    pub(super) unsafe fn launch(&mut self, driver: &dyn Driver, counts: &Counts) -> Result<usize> {
        // The first launch follows a copy, on which it cannot depend programmatically.
        let (mut dependent, mut launched) = (false, 0);
        let bounds = self.launches.iter_mut().map(|choices| choices.of(counts));
        for bound in bounds.chain([&mut self.sampling[0]]) {
            // SAFETY: the caller's.
            if unsafe { bound.enqueue(driver, counts, dependent)? } {
                dependent = driver.info().arch.is_hopper_or_later();
                launched += 1;
            }
        }
        Ok(launched)
    }

    /// Whether some step of the class is a product of the vendor's library.
    pub(super) fn has_products(&self) -> bool {
        self.launches.iter().flat_map(|choices| &choices.0).any(|(_, bound)| bound.is_product())
    }

    /// Enqueues the kernel that finishes filtered rows.
    ///
    /// # Safety
    /// As [`Self::launch`], which was the last.
    pub(super) unsafe fn filter(&mut self, driver: &dyn Driver, counts: &Counts) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.sampling[1].enqueue(driver, counts, false) }.map(drop)
    }
}

/// Device memory that a loaded plan asks for.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    pub(super) weights: usize,
    pub(super) workspace: usize,
    pub(super) partial: usize,
    pub(super) counters: usize,
    /// By KV group: a layer of its pool, and all of it.
    pub(super) layer_bytes: Vec<usize>,
    pub(super) caches: Vec<usize>,
}

impl Sizes {
    /// All of it, and the caches.
    pub(super) fn total(&self) -> usize {
        let scratch = [self.weights, self.workspace, self.partial, self.counters];
        scratch.iter().chain(&self.caches).fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    pub(super) fn new(plan: &Plan, limits: &Limits, classes: &[Class]) -> Result<Self> {
        let calls = || classes.iter().flat_map(Class::all_calls);
        let weights = usize::try_from(plan.weights_bytes()).map_err(|_| too_large("weights"))?;
        let layer = |group: &KvGroup| {
            let block = group.block_bytes() / group.layers.len().max(1);
            block.checked_mul(limits.kv_blocks).ok_or_else(|| too_large("KV cache"))
        };
        let layer_bytes = plan.kv_groups.iter().map(layer).collect::<Result<Vec<_>>>()?;
        let cache = |(group, layer): (&KvGroup, &usize)| {
            layer.checked_mul(group.layers.len()).ok_or_else(|| too_large("KV cache"))
        };
        let caches = plan.kv_groups.iter().zip(&layer_bytes).map(cache).collect::<Result<_>>()?;
        Ok(Self {
            weights,
            workspace: classes.iter().map(|class| class.workspace.bytes).max().unwrap_or(0),
            partial: calls().map(|call| call.partial_bytes).max().unwrap_or(0),
            counters: 4 * calls().map(|call| call.counters).max().unwrap_or(0),
            layer_bytes,
            caches,
        })
    }
}

fn too_large(what: &str) -> Error {
    Error::RequestTooLarge { what: what.into(), why: "its size does not fit the address space".into() }
}

/// Everything of a plan that lies on the device.
pub(super) struct Resident {
    pub(super) classes: Vec<BoundClass>,
    pub(super) layout: Layout,
    pub(super) input: DeviceMemory,
    pub(super) shared: HashMap<Shared, Address>,
    bytes: usize,
    modules: Modules,
    _memory: Vec<DeviceMemory>,
}

impl Resident {
    /// Uploads the weights, takes all memory and binds every class.
    ///
    /// # Errors
    /// `OutOfMemory` naming what did not fit; a kernel that can neither be loaded nor compiled; `DeviceLost`.
    pub(super) fn new(driver: &Arc<dyn Driver>, engine: &Engine, blueprint: &Blueprint) -> Result<Self> {
        let plan = engine.plan();
        let Blueprint { limits, classes, layout, sizes, .. } = blueprint;
        let cubins = blueprint.cubins()?;
        let mut memory = Vec::new();
        let mut take = |bytes: usize, what: &str| -> Result<Address> {
            let taken = DeviceMemory::zeroed(driver, bytes, what)?;
            let address = taken.address;
            memory.push(taken);
            Ok(address)
        };
        let weights = take(sizes.weights, "weights")?;
        let workspace = take(sizes.workspace, "workspace")?;
        let mut caches = Vec::new();
        for bytes in &sizes.caches {
            caches.push(take(*bytes, "KV cache")?);
        }
        let mut shared = HashMap::new();
        shared.insert(Shared::Partial, take(sizes.partial, "partial sums")?);
        shared.insert(Shared::Counters, take(sizes.counters, "counters")?);
        for (name, bytes) in &blueprint.sampling {
            shared.insert(*name, take(*bytes, "sampling state")?);
        }
        let input = DeviceMemory::zeroed(driver, layout.bytes, "step input")?;
        upload_weights(&**driver, engine, weights)?;
        let places = Places {
            weights: plan.weights.iter().map(|weight| weights + weight.offset).collect(),
            workspace,
            caches,
            layer_bytes: sizes.layer_bytes.clone(),
            input: input.address,
            shared: shared.clone(),
        };
        let mut modules = Modules::new(driver);
        let bound = classes
            .iter()
            .map(|class| {
                let binder = Binder {
                    driver: &**driver,
                    plan,
                    limits,
                    places: &places,
                    layout,
                    offsets: &class.workspace.offsets,
                };
                let mut bind = |call: &Call| {
                    let loaded = modules.load(call, &cubins)?;
                    binder.bind(call, loaded)
                };
                let launches = class
                    .calls
                    .iter()
                    .map(|forms| {
                        let forms = forms.iter().map(|(most, call)| Ok((*most, bind(call)?)));
                        forms.collect::<Result<Vec<_>>>().map(Choices)
                    })
                    .collect::<Result<Vec<_>>>()?;
                let sampling = [bind(&class.sampling[0])?, bind(&class.sampling[1])?];
                Ok(BoundClass { tokens: class.tokens, launches, sampling, logits: binder.address(&class.works.logits) })
            })
            .collect::<Result<Vec<_>>>()?;
        let bytes = memory.iter().map(|memory| memory.bytes).sum::<usize>() + input.bytes;
        driver.synchronize()?;
        Ok(Self { classes: bound, layout: layout.clone(), input, shared, bytes, modules, _memory: memory })
    }

    /// Bytes on the device, those of the modules included.
    pub(super) fn device_bytes(&self) -> usize {
        self.bytes + self.modules.bytes()
    }

    /// The class for a step of `tokens` tokens.
    pub(super) fn class(&mut self, tokens: usize) -> &mut BoundClass {
        let at = self.classes.iter().position(|class| tokens <= class.tokens).unwrap_or(self.classes.len() - 1);
        &mut self.classes[at]
    }
}

fn upload_weights(driver: &dyn Driver, engine: &Engine, base: Address) -> Result<()> {
    for (index, weight) in engine.plan().weights.iter().enumerate() {
        let bytes = engine.weight(index);
        // SAFETY: the destination has the weight's size; the stream is empty before the engine can go.
        unsafe { driver.upload(base + weight.offset, bytes.as_ptr(), bytes.len())? };
    }
    driver.synchronize()
}
