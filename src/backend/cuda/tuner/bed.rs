//! Device memory in which one linear layer runs with random operands, and the clock beside it.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::bind::{Binder, Bound, Loaded, Places};
use super::super::call::{Call, Shared};
use super::super::driver::{Address, Driver};
use super::super::event::TimedEvent;
use super::super::memory::DeviceMemory;
use super::super::step::{Counts, Layout};
use super::super::work::{Linear, Operand};
use crate::engine::{Limits, Plan};
use crate::error::Result;
use crate::types::{DType, bf16, e4m3, f16};

/// Weights are read in turn from as many copies as this takes: more than twice what an L2 keeps.
const COLD_BYTES: usize = 128 << 20;
const MOST_COPIES: usize = 64;
/// What a timed graph should take at least, in microseconds, if memory gave 4 TB/s and multiplications 800 T/s.
const TIMED: f64 = 400.0;
const MOST_LAUNCHES: usize = 64;
const REPLAYS: usize = 5;
/// Bytes of random elements, repeated over every operand.
const PATTERN: usize = 1 << 20;
const ALIGNMENT: usize = 256;

/// Operands of one layer for at most so many rows.
pub(super) struct Bed<'a> {
    driver: &'a Arc<dyn Driver>,
    plan: &'a Plan,
    limits: Limits,
    layout: Layout,
    /// One for each copy of the weights.
    places: Vec<Places>,
    offsets: Vec<usize>,
    start: TimedEvent,
    end: TimedEvent,
    _memory: Vec<DeviceMemory>,
}

impl<'a> Bed<'a> {
    pub(super) fn new<'c>(
        driver: &'a Arc<dyn Driver>,
        plan: &'a Plan,
        linear: &Linear,
        rows: usize,
        calls: impl Iterator<Item = &'c Call> + Clone,
    ) -> Result<Self> {
        let limits = Limits { tokens: rows, logit_rows: rows, rows: 1, kv_blocks: 0 };
        let (activations, offsets) = Self::activations(driver, linear, rows)?;
        let workspace = activations.address;
        let partial = calls.clone().map(|call| call.partial_bytes).max().unwrap_or(0);
        let counters = 4 * calls.map(|call| call.counters).max().unwrap_or(0);
        let partial = DeviceMemory::new(driver, partial, "partial sums of a tuned layer")?;
        let counters = DeviceMemory::zeroed(driver, counters, "counters of a tuned layer")?;
        let shared = HashMap::from([(Shared::Partial, partial.address), (Shared::Counters, counters.address)]);
        let (weights, copies) = Self::weights(driver, plan, linear)?;
        let places = copies.into_iter().map(|weights| Places {
            weights,
            workspace,
            caches: Vec::new(),
            layer_bytes: Vec::new(),
            input: 0,
            shared: shared.clone(),
        });
        Ok(Self {
            driver,
            plan,
            limits,
            layout: Layout::new(limits, 0, 1, 0),
            places: places.collect(),
            offsets,
            start: TimedEvent::new(driver)?,
            end: TimedEvent::new(driver)?,
            _memory: vec![activations, partial, counters, weights],
        })
    }

    /// What the layer reads and writes for `rows` rows, with the offset of each buffer.
    fn activations(driver: &Arc<dyn Driver>, linear: &Linear, rows: usize) -> Result<(DeviceMemory, Vec<usize>)> {
        let operands = [linear.reads(), vec![linear.out]].concat();
        let most = operands.iter().map(|operand| operand.buffer).max().unwrap_or(0);
        let (mut offsets, mut bytes) = (vec![0; most + 1], 0);
        let size = |operand: &Operand| (rows * operand.stride * operand.dtype.bytes()).next_multiple_of(ALIGNMENT);
        for operand in &operands {
            offsets[operand.buffer] = bytes;
            bytes += size(operand);
        }
        let memory = DeviceMemory::new(driver, bytes, "activations of a tuned layer")?;
        for operand in &operands {
            let to = memory.address + offsets[operand.buffer] as u64;
            fill(&**driver, to, size(operand), &pattern(operand.dtype))?;
        }
        Ok((memory, offsets))
    }

    /// Copies of all that the layer takes from the engine, and where each weight of the plan lies in each.
    fn weights(driver: &Arc<dyn Driver>, plan: &Plan, linear: &Linear) -> Result<(DeviceMemory, Vec<Vec<Address>>)> {
        let scale = |weight: &usize| plan.weights[*weight].scale.as_ref().map(|scale| scale.weight);
        let scales = linear.weights.iter().filter_map(scale);
        let others = linear.biases.iter().copied().chain(linear.norm.map(|norm| norm.gain));
        let needed: Vec<usize> = linear.weights.iter().copied().chain(scales).chain(others).collect();
        let size = |weight: usize| (plan.weights[weight].bytes as usize).next_multiple_of(ALIGNMENT);
        let bytes: usize = needed.iter().map(|weight| size(*weight)).sum();
        let copies = COLD_BYTES.div_ceil(bytes).clamp(1, MOST_COPIES);
        let memory = DeviceMemory::new(driver, copies * bytes, "weights of a tuned layer")?;
        let patterns: Vec<_> = needed.iter().map(|weight| pattern(plan.weights[*weight].dtype)).collect();
        let mut at = memory.address;
        let mut all = Vec::with_capacity(copies);
        for _ in 0..copies {
            let mut addresses = vec![0; plan.weights.len()];
            for (weight, pattern) in needed.iter().zip(&patterns) {
                fill(&**driver, at, size(*weight), pattern)?;
                addresses[*weight] = at;
                at += size(*weight) as u64;
            }
            all.push(addresses);
        }
        Ok((memory, all))
    }

    /// Microseconds of one launch among others like it, each with weights that are not in L2.
    pub(super) fn time(&self, linear: &Linear, call: &Call, loaded: Loaded, rows: usize) -> Result<f32> {
        let driver = &**self.driver;
        let counts = Counts { tokens: rows as u32, logit_rows: rows as u32, ..Counts::default() };
        let mut bound = self.places.iter().map(|places| self.bind(places, call, loaded)).collect::<Result<Vec<_>>>()?;
        let launches = self.launches(linear, rows);
        driver.begin_capture()?;
        let launched = (0..launches).try_for_each(|index| {
            let dependent = index > 0 && driver.info().arch.is_hopper_or_later();
            let at = index % bound.len();
            // SAFETY: all operands lie in the bed, sized for these rows.
            unsafe { bound[at].enqueue(driver, &counts, dependent) }.map(drop)
        });
        let graph = driver.end_capture()?;
        let timed = launched.and_then(|()| {
            // The first replay warms up, and brings what a launch refuses to light.
            let mut times = (0..=REPLAYS)
                .map(|_| {
                    driver.record(self.start.event)?;
                    // SAFETY: as above.
                    unsafe { driver.launch_graph(graph)? };
                    driver.record(self.end.event)?;
                    driver.wait(self.end.event)?;
                    driver.elapsed(self.start.event, self.end.event)
                })
                .collect::<Result<Vec<f32>>>()?
                .split_off(1);
            times.sort_by(f32::total_cmp);
            Ok(times[REPLAYS / 2] * 1e3 / launches as f32)
        });
        driver.release_graph(graph);
        timed
    }

    fn bind(&self, places: &Places, call: &Call, loaded: Loaded) -> Result<Bound> {
        let Self { plan, limits, layout, offsets, .. } = self;
        Binder { driver: &**self.driver, plan, limits, places, layout, offsets }.bind(call, loaded)
    }

    /// So many that the graph is long enough to be timed.
    fn launches(&self, linear: &Linear, rows: usize) -> usize {
        let weights = linear.weights.iter().map(|weight| &self.plan.weights[*weight]);
        let bytes: u64 = weights.clone().map(|weight| weight.bytes).sum();
        let operations: usize = weights.map(|weight| 2 * rows * weight.shape.iter().product::<usize>()).sum();
        let one = (bytes as f64 / 4e6).max(operations as f64 / 8e8);
        ((TIMED / one).ceil() as usize).clamp(2, MOST_LAUNCHES).max(self.places.len().min(MOST_LAUNCHES))
    }
}

impl Drop for Bed<'_> {
    fn drop(&mut self) {
        let _ = self.driver.synchronize();
    }
}

/// Random elements of a type, between -1 and 1: what multiplications cost depends on their operands.
fn pattern(dtype: DType) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let count = PATTERN / dtype.bytes();
    match dtype {
        DType::F32 => (0..count).flat_map(|_| next().to_le_bytes()).collect(),
        DType::BF16 => (0..count).flat_map(|_| bf16::encode(next()).to_le_bytes()).collect(),
        DType::F16 => (0..count).flat_map(|_| f16::encode(next()).to_le_bytes()).collect(),
        DType::E4M3 => (0..count).map(|_| e4m3::encode(next())).collect(),
        DType::I8 | DType::I32 => vec![0; PATTERN],
    }
}

fn fill(driver: &dyn Driver, to: Address, bytes: usize, pattern: &[u8]) -> Result<()> {
    for start in (0..bytes).step_by(PATTERN) {
        // SAFETY: the range was allocated by the caller; the pattern outlives the copies, which are waited for.
        unsafe { driver.upload(to + start as u64, pattern.as_ptr(), PATTERN.min(bytes - start))? };
    }
    driver.synchronize()
}
