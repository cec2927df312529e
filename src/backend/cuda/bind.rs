//! Calls become launches: addresses for operands, functions for specifications.

use std::collections::HashMap;
use std::sync::Arc;

use super::blueprint::module_bytes;
use super::call::{Arg, Call, Count, Grid, Shared};
use super::driver::{Address, Argument, Driver, Function, Launch, MapElement, MapSpec, Module};
use super::kernel::KernelSpec;
use super::step::{Counts, Layout};
use super::work::Operand;
use crate::engine::{Limits, Plan, Rows};
use crate::error::{Error, Result};

/// Where everything lies.
pub(super) struct Places {
    pub(super) weights: Vec<Address>,
    pub(super) workspace: Address,
    pub(super) caches: Vec<Address>,
    /// Bytes of a layer in each group's pool.
    pub(super) layer_bytes: Vec<usize>,
    pub(super) input: Address,
    pub(super) shared: HashMap<Shared, Address>,
}

/// Loaded modules, one for each specification.
pub(super) struct Modules {
    driver: Arc<dyn Driver>,
    loaded: HashMap<KernelSpec, Module>,
    /// Device memory of all of them, as far as it is known.
    pub(super) bytes: usize,
}

impl Modules {
    pub(super) fn new(driver: &Arc<dyn Driver>) -> Self {
        Self { driver: Arc::clone(driver), loaded: HashMap::new(), bytes: 0 }
    }

    /// The function of a call; `cubin` gives the code of what is not loaded yet.
    pub(super) fn function(
        &mut self,
        call: &Call,
        cubin: &mut dyn FnMut(&KernelSpec) -> Result<Arc<[u8]>>,
    ) -> Result<Function> {
        let module = match self.loaded.get(&call.spec) {
            Some(module) => *module,
            None => {
                let what = call.spec.describe(self.driver.info().arch);
                let cubin = cubin(&call.spec)?;
                let module = self.driver.load(&cubin, &what)?;
                self.bytes += module_bytes(cubin.len());
                self.loaded.insert(call.spec.clone(), module);
                module
            }
        };
        self.driver.function(module, call.spec.entry, call.shared)
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        self.loaded.values().for_each(|module| self.driver.unload(*module));
    }
}

/// A launch whose row count is still open.
pub(super) struct Bound {
    pub(super) launch: Launch,
    grid: Grid,
    count: Count,
    /// Arguments that are row counts.
    open: Vec<(usize, Count)>,
    only_with_tiles: bool,
}

impl Bound {
    /// Rows of a step that it runs over.
    pub(super) fn rows(&self, counts: &Counts) -> u32 {
        counts.of(self.count)
    }

    /// The launch for a step; `None` when it has no rows.
    pub(super) fn of(&mut self, counts: &Counts, dependent: bool) -> Option<&Launch> {
        let rows = counts.of(self.count);
        if rows == 0 || (self.only_with_tiles && counts.tiles == 0) {
            return None;
        }
        for (index, count) in &self.open {
            self.launch.arguments[*index] = Argument::U32(counts.of(*count));
        }
        self.launch.grid = self.grid.of(rows);
        self.launch.dependent = dependent;
        Some(&self.launch)
    }
}

/// Binds the calls of one list of works.
pub(super) struct Binder<'a> {
    pub(super) driver: &'a dyn Driver,
    pub(super) plan: &'a Plan,
    pub(super) limits: &'a Limits,
    pub(super) places: &'a Places,
    pub(super) layout: &'a Layout,
    pub(super) offsets: &'a [usize],
}

impl Binder<'_> {
    pub(super) fn bind(&self, call: &Call, function: Function) -> Result<Bound> {
        let arguments = call.args.iter().map(|arg| self.argument(arg)).collect::<Result<Vec<_>>>()?;
        let open = call.args.iter().enumerate().filter_map(|(index, arg)| match arg {
            Arg::Count(count) => Some((index, *count)),
            _ => None,
        });
        let launch = Launch {
            function,
            grid: [1; 3],
            block: call.block,
            shared: call.shared,
            cluster: call.cluster,
            dependent: false,
            arguments,
        };
        Ok(Bound {
            launch,
            grid: call.grid,
            count: call.count,
            open: open.collect(),
            only_with_tiles: call.only_with_tiles,
        })
    }

    /// Where an operand's first element lies.
    pub(super) fn address(&self, operand: &Operand) -> Address {
        let start = operand.start * operand.dtype.bytes();
        self.places.workspace + (self.offsets[operand.buffer] + start) as u64
    }

    fn argument(&self, arg: &Arg) -> Result<Argument> {
        let places = self.places;
        Ok(match arg {
            Arg::Null => Argument::Address(0),
            Arg::U32(value) => Argument::U32(*value),
            Arg::Count(_) => Argument::U32(0),
            Arg::Buffer(operand) => Argument::Address(self.address(operand)),
            Arg::Weight(index) => Argument::Address(places.weights[*index]),
            Arg::Scale(index) => Argument::Address(places.weights[self.scale_of(*index)?]),
            Arg::Cache { group, layer } => {
                Argument::Address(places.caches[*group] + (layer * places.layer_bytes[*group]) as u64)
            }
            Arg::Input(input) => Argument::Address(places.input + self.layout.offset(*input) as u64),
            Arg::Shared(shared) => Argument::Address(places.shared[shared]),
            Arg::BufferMap { of, element, box_rows, box_columns } => {
                let rows = match of.rows {
                    Rows::Tokens => self.limits.tokens,
                    Rows::LogitRows => self.limits.logit_rows,
                };
                Argument::Map(self.driver.tensor_map(&MapSpec {
                    element: *element,
                    address: self.address(of),
                    rows,
                    columns: of.columns,
                    row_bytes: of.stride * bytes(*element),
                    box_rows: *box_rows,
                    box_columns: *box_columns,
                })?)
            }
            Arg::WeightMap { of, element, box_rows, box_columns } => {
                let [rows, columns] = self.plan.weights[*of].shape[..] else {
                    return Err(Error::internal("tensor map", "a weight is no matrix"));
                };
                Argument::Map(self.driver.tensor_map(&MapSpec {
                    element: *element,
                    address: places.weights[*of],
                    rows,
                    columns,
                    row_bytes: columns * bytes(*element),
                    box_rows: *box_rows,
                    box_columns: *box_columns,
                })?)
            }
        })
    }

    fn scale_of(&self, weight: usize) -> Result<usize> {
        let spec = &self.plan.weights[weight];
        let scale = spec.scale.as_ref().map(|scale| scale.weight);
        scale.ok_or_else(|| Error::internal(format!("weight `{}`", spec.name), "it has no scales"))
    }
}

fn bytes(element: MapElement) -> usize {
    match element {
        MapElement::Byte => 1,
        MapElement::Half | MapElement::Bf16 => 2,
    }
}
