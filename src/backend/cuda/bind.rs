//! Calls become launches: addresses for operands, functions for specifications.

use std::collections::HashMap;
use std::sync::Arc;

use super::blueprint::{PRODUCTS_BYTES, module_bytes};
use super::call::{Arg, Call, Code, Count, Grid, Shared};
use super::driver::{Address, Argument, Driver, Function, Launch, MapElement, MapSpec, Matmul, Module};
use super::kernel::KernelSpec;
use super::matmul::{MatmulOperands, MatmulSpec};
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

/// What a call's code became.
#[derive(Debug, Clone, Copy)]
pub(super) enum Loaded {
    Kernel(Function),
    Product(Matmul),
}

/// Loaded code: a module for each specification, a prepared product for each shape.
pub(super) struct Modules {
    driver: Arc<dyn Driver>,
    modules: HashMap<KernelSpec, Module>,
    products: HashMap<MatmulSpec, Matmul>,
    module_bytes: usize,
}

impl Modules {
    pub(super) fn new(driver: &Arc<dyn Driver>) -> Self {
        Self { driver: Arc::clone(driver), modules: HashMap::new(), products: HashMap::new(), module_bytes: 0 }
    }

    /// Device memory of all of it, as far as it is known.
    pub(super) fn bytes(&self) -> usize {
        self.module_bytes + if self.products.is_empty() { 0 } else { PRODUCTS_BYTES }
    }

    /// The code of a call, whose kernel is among `cubins`.
    pub(super) fn load(&mut self, call: &Call, cubins: &HashMap<KernelSpec, Arc<[u8]>>) -> Result<Loaded> {
        match &call.code {
            Code::Kernel(spec) => {
                let module = match self.modules.get(spec) {
                    Some(module) => *module,
                    None => {
                        let cubin = &cubins[spec];
                        let module = self.driver.load(cubin, &spec.describe(self.driver.info().arch))?;
                        self.module_bytes += module_bytes(cubin.len());
                        self.modules.insert(spec.clone(), module);
                        module
                    }
                };
                self.driver.function(module, spec.entry, call.shared).map(Loaded::Kernel)
            }
            Code::Product(spec) => {
                let product = match self.products.get(spec) {
                    Some(product) => *product,
                    None => {
                        let product = self.driver.matmul(spec)?;
                        self.products.insert(*spec, product);
                        product
                    }
                };
                Ok(Loaded::Product(product))
            }
        }
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        self.modules.values().for_each(|module| self.driver.unload(*module));
        self.products.values().for_each(|product| self.driver.release_matmul(*product));
    }
}

/// What is enqueued.
enum Action {
    /// Its grid and the arguments that are row counts are still open.
    Kernel {
        launch: Launch,
        grid: Grid,
        open: Vec<(usize, Count)>,
    },
    Product {
        product: Matmul,
        operands: MatmulOperands,
    },
}

/// A call with addresses, whose row count is still open.
pub(super) struct Bound {
    action: Action,
    count: Count,
    only_with_tiles: bool,
}

impl Bound {
    /// Rows of a step that it runs over.
    pub(super) fn rows(&self, counts: &Counts) -> u32 {
        counts.of(self.count)
    }

    pub(super) fn is_product(&self) -> bool {
        matches!(self.action, Action::Product { .. })
    }

    /// Enqueues the call for a step; false when there is nothing to do. With `dependent`, a kernel may begin before what is
    /// ahead of it has ended.
    ///
    /// # Safety
    /// The counts are within the limits that the call was bound for.
    pub(super) unsafe fn enqueue(&mut self, driver: &dyn Driver, counts: &Counts, dependent: bool) -> Result<bool> {
        let rows = counts.of(self.count);
        if rows == 0 || (self.only_with_tiles && counts.tiles == 0) {
            return Ok(false);
        }
        match &mut self.action {
            Action::Kernel { launch, grid, open } => {
                for (index, count) in open {
                    launch.arguments[*index] = Argument::U32(counts.of(*count));
                }
                launch.grid = grid.of(rows);
                launch.dependent = dependent;
                // SAFETY: the binder gave each argument what its kernel expects, sized for the limits.
                unsafe { driver.launch(launch)? };
            }
            // SAFETY: as above.
            Action::Product { product, operands } => unsafe { driver.launch_matmul(*product, operands, rows)? },
        }
        Ok(true)
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
    pub(super) fn bind(&self, call: &Call, loaded: Loaded) -> Result<Bound> {
        let arguments = call.args.iter().map(|arg| self.argument(arg)).collect::<Result<Vec<_>>>()?;
        let action = match loaded {
            Loaded::Kernel(function) => {
                let open = call.args.iter().enumerate().filter_map(|(index, arg)| match arg {
                    Arg::Count(count) => Some((index, *count)),
                    _ => None,
                });
                let Call { grid, block, shared, cluster, .. } = *call;
                let launch = Launch { function, grid: [1; 3], block, shared, cluster, dependent: false, arguments };
                Action::Kernel { launch, grid, open: open.collect() }
            }
            Loaded::Product(product) => Action::Product { product, operands: operands(&arguments)? },
        };
        Ok(Bound { action, count: call.count, only_with_tiles: call.only_with_tiles })
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

fn operands(arguments: &[Argument]) -> Result<MatmulOperands> {
    use Argument::Address as At;
    match *arguments {
        [At(x), At(weight), At(out), At(residual), At(x_scale), At(weight_scale), At(bias), At(workspace)] => {
            Ok(MatmulOperands { x, weight, out, residual, x_scale, weight_scale, bias, workspace })
        }
        _ => Err(Error::internal("matrix product", "its arguments are not those of one")),
    }
}

fn bytes(element: MapElement) -> usize {
    match element {
        MapElement::Byte => 1,
        MapElement::Half | MapElement::Bf16 => 2,
    }
}
