//! From a plan step to addresses: everything is checked here, so that a launch may trust it.

use super::cache::LayerCache;
use super::panels::{Panels, Scales};
use crate::backend::{Batch, Bindings, Region};
use crate::engine::{Granularity, Limits, Packing, Plan, Precision, Rows, ScaleSpec, Step, View, WeightSpec};
use crate::error::{Error, Result};
use crate::types::{AttentionSpec, DType};

/// A view of a workspace value, as an address. `Send` and `Sync` because the address is only used within a launch,
/// under its contract.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix {
    address: usize,
    stride: usize,
    pub columns: usize,
    pub rows: Rows,
}

impl Matrix {
    /// Start of a row.
    ///
    /// # Safety
    /// The workspace is alive, and the row is within the limits that the step was prepared for.
    pub(super) unsafe fn row(&self, row: usize) -> *mut f32 {
        // SAFETY: the slot was checked to hold all rows of the limits.
        unsafe { (self.address as *mut f32).add(row * self.stride) }
    }

    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Rows this value has in a step.
    pub(super) fn count(&self, batch: &Batch) -> usize {
        match self.rows {
            Rows::Tokens => batch.tokens.len(),
            Rows::LogitRows => batch.logit_rows.len(),
        }
    }
}

/// A vector of f32.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vector {
    address: usize,
}

impl Vector {
    /// The first element; whoever reads it does so while the weight is alive.
    pub(super) fn start(&self) -> *const f32 {
        self.address as *const f32
    }
}

/// A matrix whose rows are looked up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    pub address: usize,
    pub dtype: DType,
    pub packing: Packing,
    pub rows: usize,
    pub columns: usize,
}

/// The cache of one attention layer, and what bounds its use.
#[derive(Clone, Copy)]
pub(super) struct Cache {
    pub layer: LayerCache,
    pub dtype: DType,
    /// Keys a query sees, itself included; `usize::MAX` without a window.
    pub window: usize,
    pub blocks: usize,
    /// The KV group, and how many there are.
    pub group: usize,
    pub groups: usize,
}

/// One step with everything around it.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    plan: &'a Plan,
    pub step: &'a Step,
    bindings: &'a Bindings,
    pub limits: &'a Limits,
}

impl<'a> Operands<'a> {
    pub(super) fn new(plan: &'a Plan, step: usize, bindings: &'a Bindings, limits: &'a Limits) -> Result<Self> {
        let step = plan.steps.get(step).ok_or_else(|| Error::Corrupt {
            what: "plan".into(),
            why: format!("it has {} steps, and step {step} was asked for", plan.steps.len()),
        })?;
        let operands = Operands { plan, step, bindings, limits };
        operands.check_slots()?;
        Ok(operands)
    }

    /// A `Corrupt` error that names the step.
    pub(super) fn corrupt(&self, why: impl Into<String>) -> Error {
        Error::Corrupt { what: self.what(), why: why.into() }
    }

    /// An `Unsupported` error that names the step.
    pub(super) fn unsupported(&self, why: impl Into<String>) -> Error {
        Error::Unsupported { what: self.what(), why: why.into() }
    }

    fn what(&self) -> String {
        format!("step `{}` ({})", self.step.name, self.step.op.name())
    }

    /// No output shares a slot with an operand or with another output.
    fn check_slots(&self) -> Result<()> {
        let slot = |view: &View| self.plan.values.get(view.value).map(|value| value.slot);
        for (index, output) in self.step.outputs.iter().enumerate() {
            let mut others = self.step.inputs.iter().chain(&self.step.outputs[..index]);
            if others.any(|other| slot(other) == slot(output)) {
                return Err(self.corrupt("an output shares its slot with another operand"));
            }
        }
        Ok(())
    }

    pub(super) fn input(&self, index: usize) -> Result<Matrix> {
        let view = self.step.inputs.get(index).ok_or_else(|| self.corrupt(format!("input {index} is missing")))?;
        self.matrix(*view)
    }

    pub(super) fn output(&self, index: usize) -> Result<Matrix> {
        let view = self.step.outputs.get(index).ok_or_else(|| self.corrupt(format!("output {index} is missing")))?;
        self.matrix(*view)
    }

    /// An input of that many columns with a row for each row of `like`.
    pub(super) fn input_like(&self, index: usize, like: &Matrix, columns: usize) -> Result<Matrix> {
        let input = self.input(index)?;
        if input.rows != like.rows || input.columns != columns {
            return Err(self.corrupt(format!("input {index} has not {columns} columns, or other rows than the output")));
        }
        Ok(input)
    }

    fn matrix(&self, view: View) -> Result<Matrix> {
        let missing = || self.corrupt(format!("value {} or its slot is missing", view.value));
        let value = self.plan.values.get(view.value).ok_or_else(missing)?;
        let slot = self.bindings.slots.get(value.slot).ok_or_else(missing)?;
        if view.start.checked_add(view.columns).is_none_or(|end| end > value.columns) {
            return Err(self.corrupt(format!("a view leaves value `{}`", value.name)));
        }
        let rows = match value.rows {
            Rows::Tokens => self.limits.tokens,
            Rows::LogitRows => self.limits.logit_rows,
        };
        self.check_region(*slot, &[rows, value.columns, 4], &value.name)?;
        let address = slot.address + view.start * 4;
        Ok(Matrix { address, stride: value.columns, columns: view.columns, rows: value.rows })
    }

    fn check_region(&self, region: Region, extents: &[usize], name: &str) -> Result<()> {
        let bytes = extents.iter().try_fold(1usize, |product, extent| product.checked_mul(*extent));
        if bytes.is_none_or(|bytes| bytes > region.bytes) || !region.address.is_multiple_of(4) {
            let why = format!("`{name}` lies in {} bytes, too few or misaligned for {extents:?}", region.bytes);
            return Err(self.corrupt(why));
        }
        Ok(())
    }

    fn weight(&self, index: usize) -> Result<(&'a WeightSpec, Region)> {
        let missing = || self.corrupt(format!("weight {index} is missing"));
        self.plan_weight(*self.step.weights.get(index).ok_or_else(missing)?)
    }

    /// A weight by its index in the plan.
    fn plan_weight(&self, id: usize) -> Result<(&'a WeightSpec, Region)> {
        let missing = || self.corrupt(format!("weight {id} of the plan is missing"));
        let (Some(spec), Some(region)) = (self.plan.weights.get(id), self.bindings.weights.get(id)) else {
            return Err(missing());
        };
        let bytes = spec.packed_bytes().and_then(|bytes| usize::try_from(bytes).ok());
        let bytes = bytes.ok_or_else(|| self.corrupt(format!("weight `{}` has an impossible shape", spec.name)))?;
        self.check_region(*region, &[bytes], &spec.name)?;
        Ok((spec, *region))
    }

    /// Elements of weight `index`, at least one.
    pub(super) fn length(&self, index: usize) -> Result<usize> {
        let (spec, _) = self.weight(index)?;
        match spec.shape.as_slice() {
            [length] if *length > 0 => Ok(*length),
            shape => Err(self.corrupt(format!("weight `{}` is {shape:?} where a vector is due", spec.name))),
        }
    }

    /// Weight `index`: `length` f32.
    pub(super) fn vector(&self, index: usize, length: usize) -> Result<Vector> {
        let (spec, region) = self.weight(index)?;
        if spec.packing != Packing::RowMajor || spec.dtype != DType::F32 {
            return Err(self.unsupported(format!("weight `{}` is not row-major f32", spec.name)));
        }
        if spec.shape.iter().product::<usize>() != length {
            return Err(self.corrupt(format!("weight `{}` has not {length} elements", spec.name)));
        }
        Ok(Vector { address: region.address })
    }

    /// How the engine stores its matrices.
    pub(super) fn precision(&self) -> Precision {
        self.plan.precision
    }

    /// Weight `index`: a matrix `[n, k]` in panels, with its scales.
    pub(super) fn panels(&self, index: usize, n: usize, k: usize) -> Result<Panels> {
        let (spec, region) = self.weight(index)?;
        if spec.packing != Packing::Panels || spec.dtype == DType::I32 {
            return Err(self.unsupported(format!("weight `{}` is {} or not in panels", spec.name, spec.dtype)));
        }
        if spec.shape != [n, k] {
            return Err(self.corrupt(format!("weight `{}` is {:?} where [{n}, {k}] is due", spec.name, spec.shape)));
        }
        let scales = match (spec.dtype, spec.scale) {
            (DType::I8, Some(ScaleSpec { granularity: Granularity::Block, .. })) => {
                return Err(self.corrupt(format!("weight `{}` is i8 and scaled by blocks", spec.name)));
            }
            (DType::E4M3 | DType::I8, Some(scale)) => Some(self.scales(&scale, n, k)?),
            (DType::E4M3 | DType::I8, None) => {
                return Err(self.corrupt(format!("weight `{}` has no scales", spec.name)));
            }
            _ => None,
        };
        Ok(Panels { address: region.address, dtype: spec.dtype, n, k, scales })
    }

    /// The scales of a matrix `[n, k]`.
    fn scales(&self, scale: &ScaleSpec, n: usize, k: usize) -> Result<Scales> {
        let (spec, region) = self.plan_weight(scale.weight)?;
        let shape = scale.granularity.scale_shape(n, k);
        if spec.packing != Packing::RowMajor || spec.dtype != DType::F32 || spec.shape != shape {
            return Err(self.corrupt(format!("scales `{}` are {} {:?}", spec.name, spec.dtype, spec.shape)));
        }
        Ok(Scales { address: region.address, granularity: scale.granularity })
    }

    /// Weight `index`: a matrix of any number of rows.
    pub(super) fn table(&self, index: usize, columns: usize) -> Result<Table> {
        let (spec, region) = self.weight(index)?;
        if !matches!(spec.dtype, DType::F32 | DType::BF16 | DType::F16) {
            return Err(self.unsupported(format!("weight `{}` is {}", spec.name, spec.dtype)));
        }
        match *spec.shape.as_slice() {
            [rows, width] if width == columns => {
                Ok(Table { address: region.address, dtype: spec.dtype, packing: spec.packing, rows, columns })
            }
            _ => Err(self.corrupt(format!("weight `{}` is {:?} where [_, {columns}] is due", spec.name, spec.shape))),
        }
    }

    /// The layer's cache that `spec` names.
    pub(super) fn cache(&self, spec: &AttentionSpec) -> Result<Cache> {
        let (group, pool) = match (self.plan.kv_groups.get(spec.group), self.bindings.kv.get(spec.group)) {
            (Some(group), Some(pool)) => (group, *pool),
            _ => return Err(self.corrupt(format!("KV group {} is missing", spec.group))),
        };
        if spec.layer >= group.layers.len() {
            return Err(self.corrupt(format!("layer {} is not in KV group {}", spec.layer, spec.group)));
        }
        if (spec.kv_heads, spec.head_dim) != (group.kv_heads, group.head_dim) {
            return Err(self.corrupt(format!("its KV heads differ from those of KV group {}", spec.group)));
        }
        if spec.kv_heads == 0 || spec.heads == 0 || !spec.heads.is_multiple_of(spec.kv_heads) {
            return Err(self.corrupt(format!("{} heads cannot share {} KV heads", spec.heads, spec.kv_heads)));
        }
        if spec.head_dim == 0 || !spec.head_dim.is_multiple_of(8) || spec.head_dim > 256 {
            return Err(self.unsupported(format!("a head of {} is no multiple of 8 up to 256", spec.head_dim)));
        }
        let stored = matches!(group.dtype, DType::F32 | DType::BF16 | DType::F16 | DType::E4M3);
        if !stored || group.window == Some(0) {
            return Err(self.unsupported(format!("KV group {} is {} with an empty window", spec.group, group.dtype)));
        }
        self.check_region(pool, &[group.block_bytes(), self.bindings.kv_blocks], "the KV pool")?;
        let layer_bytes = group.block_bytes() / group.layers.len() * self.bindings.kv_blocks;
        let address = pool.address + spec.layer * layer_bytes;
        Ok(Cache {
            layer: LayerCache { address, kv_heads: spec.kv_heads, head_dim: spec.head_dim },
            dtype: group.dtype,
            window: group.window.unwrap_or(usize::MAX),
            blocks: self.bindings.kv_blocks,
            group: spec.group,
            groups: self.plan.kv_groups.len(),
        })
    }
}
