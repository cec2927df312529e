//! A plan on a device: weights bound, workspace and KV pools allocated, one kernel prepared for each step.

use std::sync::Arc;
use std::time::Instant;

use super::check::check_batch;
use super::{Forward, MemoryPlan, StepOutput};
use crate::backend::{Batch, Bindings, Buffer, Device, Kernel, Region, StepTime};
use crate::engine::{Engine, Limits};
use crate::error::{Error, Result};
use crate::types::heap;

/// A loaded model. Fields drop in order: kernels before the memory that they point into.
pub struct Session {
    kernels: Vec<Box<dyn Kernel>>,
    device: Box<dyn Device>,
    logits: Region,
    /// Logits of the step that was launched and not collected, and its time.
    computed: Option<(usize, StepTime)>,
    /// When the last step was over.
    ended: Option<Instant>,
    staging: Vec<f32>,
    limits: Limits,
    memory_bytes: u64,
    _buffers: Vec<Box<dyn Buffer>>,
    engine: Arc<Engine>,
}

impl Session {
    /// Allocates and prepares everything for steps within `limits`.
    ///
    /// # Errors
    /// `OutOfMemory` naming what was to be allocated; whatever the device says of a step it cannot run.
    pub fn new(engine: Arc<Engine>, device: Box<dyn Device>, limits: Limits) -> Result<Self> {
        let plan = engine.plan();
        let memory = MemoryPlan::new(plan, &limits)?;
        let memory_bytes = memory.total().saturating_add(device.scratch_bytes(plan, &limits)) as u64;
        let (weights, pools, what) = (plan.weights.len(), plan.kv_groups.len(), "list of buffers");
        let mut buffers = heap::vector(weights + pools + 1, what)?;
        let mut bindings = Bindings { kv_blocks: limits.kv_blocks, ..Bindings::default() };
        heap::reserve(&mut bindings.weights, weights, what)?;
        for (index, weight) in plan.weights.iter().enumerate() {
            // SAFETY: the engine owns the bytes and this session holds the engine, declared after the buffers.
            let buffer = unsafe { device.bind(engine.weight(index), &weight.name)? };
            bindings.weights.push(buffer.region());
            buffers.push(buffer);
        }
        let workspace = device.allocate(memory.workspace, "workspace")?;
        let base = workspace.region().address;
        let slots = std::iter::zip(&memory.slot_offsets, &memory.slot_bytes);
        bindings.slots =
            heap::collect(slots.map(|(offset, bytes)| Region { address: base + offset, bytes: *bytes }), what)?;
        buffers.push(workspace);
        for bytes in &memory.cache {
            let pool = device.allocate(*bytes, "KV cache")?;
            bindings.kv.push(pool.region());
            buffers.push(pool);
        }
        let logits = logits_region(&engine, &bindings)?;
        let mut kernels = heap::vector(plan.steps.len(), "list of kernels")?;
        for step in 0..plan.steps.len() {
            kernels.push(device.prepare(plan, step, &bindings, &limits)?);
        }
        Ok(Self {
            kernels,
            device,
            logits,
            computed: None,
            ended: None,
            staging: Vec::new(),
            limits,
            memory_bytes,
            _buffers: buffers,
            engine,
        })
    }

    /// The engine this session runs.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }
}

fn logits_region(engine: &Engine, bindings: &Bindings) -> Result<Region> {
    let plan = engine.plan();
    let output = plan.outputs.iter().find(|output| output.name == "logits");
    let value = output
        .and_then(|output| plan.values.get(output.value))
        .ok_or_else(|| Error::Corrupt { what: "plan".into(), why: "it has no output named `logits`".into() })?;
    if value.columns != plan.model.vocab_size {
        let why = format!("logits have {} columns, the vocabulary {} tokens", value.columns, plan.model.vocab_size);
        return Err(Error::Corrupt { what: "plan".into(), why });
    }
    Ok(bindings.slots[value.slot])
}

impl Forward for Session {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    fn vocab_size(&self) -> usize {
        self.engine.plan().model.vocab_size
    }

    fn launch(&mut self, batch: &Batch) -> Result<()> {
        let plan = self.engine.plan();
        check_batch(batch, plan, &self.limits, None)?;
        let begin = Instant::now();
        for kernel in &mut self.kernels {
            // SAFETY: the session owns every region bound in `new`, and `&mut self` excludes another launch.
            unsafe { kernel.launch(batch)? };
        }
        let end = Instant::now();
        let idle = self.ended.replace(end).map(|ended| begin.saturating_duration_since(ended)).unwrap_or_default();
        let time = StepTime { device: end.saturating_duration_since(begin), idle };
        self.computed = Some((batch.logit_rows.len() * plan.model.vocab_size, time));
        Ok(())
    }

    fn collect(&mut self) -> Result<StepOutput<'_>> {
        let (count, time) = self.computed.take().ok_or_else(|| Error::internal("session", "no step was launched"))?;
        // SAFETY: the last step wrote `count` values there; the borrow of `self` keeps writers out.
        let logits = unsafe { self.device.read(self.logits, count, &mut self.staging)? };
        Ok(StepOutput { sampled: &[], logits, time })
    }
}
