//! What makes a plan safe to run, whoever wrote it: backends index memory by it without looking again.

use std::collections::HashSet;

use super::signature::check_signature;
use super::{
    BLOCK_TOKENS, Granularity, KvGroup, Packing, Plan, Rows, ScaleSpec, Step, Target, Value, View, WeightSpec,
    value_dtype,
};
use crate::error::{Error, Result};
use crate::types::{DType, Op};

/// No extent of a plan is larger, so that the product of an extent and a dtype's size never overflows.
const MOST: usize = 1 << 31;
/// Bytes of one KV block, far beyond any model.
const MOST_BLOCK_BYTES: usize = 1 << 40;

impl Plan {
    /// Checks everything that running relies on: indices, shapes, operands of every step, places of weights, order of
    /// steps, sizes and sharing of slots, KV groups.
    ///
    /// # Errors
    /// `Corrupt` naming the part of the plan.
    pub fn validate(&self) -> Result<()> {
        self.check_model()?;
        self.check_weights()?;
        self.check_values()?;
        self.check_groups()?;
        for (index, step) in self.steps.iter().enumerate() {
            self.check_views(step)
                .and_then(|()| check_signature(self, step))
                .map_err(|why| corrupt(format!("step {index} `{}`", step.name), why))?;
        }
        let lifetimes = self.check_order()?;
        self.check_dtypes()?;
        self.check_sharing(&lifetimes)
    }

    fn check_model(&self) -> Result<()> {
        let model = &self.model;
        let extents = [model.vocab_size, model.hidden_size, model.layers, model.max_positions];
        if extents.iter().any(|extent| *extent == 0 || *extent >= MOST) {
            return Err(corrupt("model", "an extent is zero or too large"));
        }
        match self.precision.runs_on(self.target) {
            true => Ok(()),
            false => Err(corrupt("precision", format!("a plan for {} is not {}", self.target, self.precision))),
        }
    }

    fn check_weights(&self) -> Result<()> {
        let mut end = 0u64;
        for weight in &self.weights {
            end = weight_end(weight, end)
                .and_then(|end| self.check_scale(weight).map(|()| end))
                .map_err(|why| corrupt(format!("weight `{}`", weight.name), why))?;
            if self.target == Target::Cuda && weight.packing != Packing::RowMajor {
                return Err(corrupt(format!("weight `{}`", weight.name), "weights for cuda are row-major"));
            }
        }
        match self.weights.is_empty() {
            true => Err(corrupt("weights", "there are none")),
            false => Ok(()),
        }
    }

    /// Exactly the weights of codes have scales, as many as their granularity says; those of i8 go by row.
    fn check_scale(&self, weight: &WeightSpec) -> Result<(), String> {
        let ScaleSpec { weight: index, granularity } = match (weight.dtype.is_scaled(), weight.scale) {
            (true, Some(scale)) => scale,
            (false, None) => return Ok(()),
            (true, None) => return Err(format!("it is {} and has no scales", weight.dtype)),
            (false, Some(_)) => return Err(format!("it is {} and has scales", weight.dtype)),
        };
        let (scales, [rows, columns]) = match (self.weights.get(index), weight.shape.as_slice()) {
            (Some(scales), [rows, columns]) => (scales, [*rows, *columns]),
            (None, _) => return Err(format!("its scales, weight {index}, do not exist")),
            _ => return Err(format!("it is {} and no matrix", weight.dtype)),
        };
        let sound = (weight.dtype != DType::I8 || granularity == Granularity::Row)
            && scales.dtype == DType::F32
            && scales.packing == Packing::RowMajor
            && scales.shape == granularity.scale_shape(rows, columns);
        match sound {
            true => Ok(()),
            false => Err(format!("its scales, `{}`, are {} {:?}", scales.name, scales.dtype, scales.shape)),
        }
    }

    fn check_values(&self) -> Result<()> {
        for value in &self.values {
            let fits = value.columns < MOST
                && self.slots.get(value.slot).is_some_and(|slot| {
                    let bytes = match value.rows {
                        Rows::Tokens => slot.bytes_per_token,
                        Rows::LogitRows => slot.bytes_per_logit_row,
                    };
                    bytes >= value.row_bytes() && bytes <= MOST * DType::F32.bytes()
                });
            if !fits || value.columns == 0 {
                return Err(corrupt(format!("value `{}`", value.name), "it does not fit its slot"));
            }
        }
        let limit = MOST * DType::F32.bytes();
        match self.slots.iter().all(|slot| slot.bytes_per_token <= limit && slot.bytes_per_logit_row <= limit) {
            true => Ok(()),
            false => Err(corrupt("slots", "one is too large")),
        }
    }

    fn check_groups(&self) -> Result<()> {
        let mut layers = HashSet::new();
        for (index, group) in self.kv_groups.iter().enumerate() {
            let known = group.layers.iter().all(|layer| *layer < self.model.layers && layers.insert(*layer));
            if !known || !group_is_sound(group) {
                return Err(corrupt(format!("kv group {index}"), "its layers, heads, window or dtype are impossible"));
            }
        }
        Ok(())
    }

    fn check_views(&self, step: &Step) -> Result<(), String> {
        let within = |view: &View| {
            let value = self.values.get(view.value).ok_or("a view's value does not exist")?;
            let end = view.start.checked_add(view.columns).ok_or("a view overflows")?;
            match view.columns > 0 && end <= value.columns {
                true => Ok(()),
                false => Err(format!("a view ends outside value `{}`", value.name)),
            }
        };
        step.inputs.iter().chain(&step.outputs).try_for_each(within)?;
        let whole =
            |view: &View| view.start == 0 && self.values.get(view.value).is_some_and(|v| v.columns == view.columns);
        match step.outputs.iter().all(whole) {
            true => Ok(()),
            false => Err("an output is not a whole value".into()),
        }
    }

    /// Every value is written once and before it is read, every cache before attention reads it. Returns the lifetimes.
    fn check_order(&self) -> Result<Vec<Option<Lifetime>>> {
        let mut lifetimes: Vec<Option<Lifetime>> = vec![None; self.values.len()];
        let mut appended = HashSet::new();
        for (index, step) in self.steps.iter().enumerate() {
            let wrong = |why: String| corrupt(format!("step {index} `{}`", step.name), why);
            for view in &step.inputs {
                match lifetimes.get_mut(view.value) {
                    Some(Some(lifetime)) => lifetime.last = index,
                    _ => return Err(wrong(format!("it reads `{}` before it is written", self.value_name(view.value)))),
                }
            }
            for view in &step.outputs {
                match lifetimes.get_mut(view.value) {
                    Some(empty @ None) => *empty = Some(Lifetime { first: index, last: index }),
                    _ => return Err(wrong(format!("it writes `{}` a second time", self.value_name(view.value)))),
                }
            }
            match &step.op {
                Op::CacheAppend(spec) | Op::FusedAttention { attention: spec, .. }
                    if !appended.insert((spec.group, spec.layer)) =>
                {
                    return Err(wrong("it appends to a cache a second time".into()));
                }
                Op::Attention(spec) if !appended.contains(&(spec.group, spec.layer)) => {
                    return Err(wrong("it reads a cache before this step's tokens are appended".into()));
                }
                _ => {}
            }
        }
        self.keep_outputs(&mut lifetimes)?;
        Ok(lifetimes)
    }

    fn keep_outputs(&self, lifetimes: &mut [Option<Lifetime>]) -> Result<()> {
        for output in &self.outputs {
            let wrong = |why: &str| corrupt(format!("output `{}`", output.name), why);
            match lifetimes.get_mut(output.value) {
                Some(Some(lifetime)) => lifetime.last = self.steps.len(),
                _ => return Err(wrong("no step writes it")),
            }
            let logits = |value: &Value| value.rows == Rows::LogitRows && value.columns == self.model.vocab_size;
            if output.name == "logits" && !self.values.get(output.value).is_some_and(logits) {
                return Err(wrong("it has not a column per token of the vocabulary"));
            }
        }
        match self.outputs.is_empty() {
            true => Err(corrupt("outputs", "there are none")),
            false => Ok(()),
        }
    }

    /// Every value has the element type that its step's operation gives it.
    fn check_dtypes(&self) -> Result<()> {
        let dtype = |view: &View| self.values.get(view.value).map(|value| value.dtype);
        let logits = self.logits();
        for step in &self.steps {
            let input = step.inputs.first().and_then(dtype);
            for (index, view) in step.outputs.iter().enumerate() {
                let wanted = match logits.contains(&Some(view.value)) {
                    true => DType::F32,
                    false => value_dtype(self.target, self.precision, &step.op, index, input),
                };
                if dtype(view) != Some(wanted) {
                    return Err(corrupt(
                        format!("value `{}`", self.value_name(view.value)),
                        format!("it is not {wanted}"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The value that is the output `logits`, and the one from which a soft cap makes it.
    fn logits(&self) -> [Option<usize>; 2] {
        let logits = self.outputs.iter().find(|output| output.name == "logits").map(|output| output.value);
        let makes = |step: &&Step| step.outputs.first().map(|view| view.value) == logits;
        let cap = self.steps.iter().filter(|step| matches!(step.op, Op::SoftCap { .. })).find(makes);
        [logits, cap.and_then(|step| step.inputs.first()).map(|view| view.value)]
    }

    /// No two values that are alive in one step share a slot.
    fn check_sharing(&self, lifetimes: &[Option<Lifetime>]) -> Result<()> {
        let mut by_slot: Vec<(usize, Lifetime, usize)> = Vec::with_capacity(self.values.len());
        for (index, (value, lifetime)) in self.values.iter().zip(lifetimes).enumerate() {
            let lifetime = lifetime.ok_or_else(|| corrupt(format!("value `{}`", value.name), "no step writes it"))?;
            by_slot.push((value.slot, lifetime, index));
        }
        by_slot.sort_unstable_by_key(|(slot, lifetime, _)| (*slot, lifetime.first, lifetime.last));
        for pair in by_slot.windows(2) {
            let [(slot, earlier, one), (other_slot, later, other)] = pair else { continue };
            if slot == other_slot && later.first <= earlier.last {
                let why = format!("it shares a slot with `{}` while both are alive", self.value_name(*one));
                return Err(corrupt(format!("value `{}`", self.value_name(*other)), why));
            }
        }
        Ok(())
    }

    fn value_name(&self, value: usize) -> &str {
        self.values.get(value).map_or("?", |value| value.name.as_str())
    }
}

/// First and last step in which a value is alive; an output of the plan lives one step longer than the plan.
#[derive(Debug, Clone, Copy)]
struct Lifetime {
    first: usize,
    last: usize,
}

/// Where a weight ends, given where the one before it ends: weights lie one after another without free choice.
fn weight_end(weight: &WeightSpec, previous_end: u64) -> Result<u64, String> {
    if weight.shape.is_empty() || weight.shape.iter().any(|extent| *extent == 0 || *extent >= MOST) {
        return Err("an extent is zero or too large".into());
    }
    if weight.packed_bytes() != Some(weight.bytes) {
        return Err(format!("{} bytes are not what shape and packing need", weight.bytes));
    }
    if previous_end.checked_next_multiple_of(weight.packing.alignment()) != Some(weight.offset) {
        return Err("it does not follow the weight before it".into());
    }
    if weight.checksum_value().is_none() {
        return Err("its checksum is not 16 hexadecimal digits".into());
    }
    weight.offset.checked_add(weight.bytes).ok_or_else(|| "its end overflows".into())
}

fn group_is_sound(group: &KvGroup) -> bool {
    let block_bytes = [2, group.layers.len(), group.kv_heads, group.head_dim, BLOCK_TOKENS, group.dtype.bytes()]
        .iter()
        .try_fold(1usize, |product, factor| product.checked_mul(*factor));
    matches!(group.dtype, DType::F32 | DType::BF16 | DType::F16 | DType::E4M3)
        && group.window != Some(0)
        && block_bytes.is_some_and(|bytes| bytes > 0 && bytes <= MOST_BLOCK_BYTES)
}

fn corrupt(what: impl std::fmt::Display, why: impl Into<String>) -> Error {
    Error::Corrupt { what: format!("plan: {what}"), why: why.into() }
}
