//! Finds the fastest tactic of every linear layer: each candidate runs on the device that is there, or did so in an earlier
//! build.

mod bed;
mod measurement;
mod timings;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::Serialize;

use super::bind::Modules;
use super::call::Call;
use super::choose::Selector;
use super::cubins::{Compiler, CubinStore};
use super::cublas;
use super::driver::Driver;
use super::kernel::KernelSpec;
use super::linear::{Layer, Tactic};
use super::tactics::Tactics;
use super::target::CudaTarget;
use super::work::Linear;
use crate::engine::Plan;
use crate::error::{Result, Status};
use bed::Bed;
pub use measurement::Measurement;
use timings::TimingKey;
pub use timings::Timings;

/// How a tuning went.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TuneSummary {
    /// Candidates that were timed now.
    pub measured: usize,
    /// Candidates whose timing an earlier build left.
    pub remembered: usize,
    /// Kernels of ours that this device refused; the choice is among the others.
    pub refused: usize,
    /// Candidates of layers that did not fit beside what else is on the device: these keep their defaults.
    pub skipped: usize,
    /// By layer and row count.
    pub measurements: Vec<Measurement>,
}

/// A layer that computes so many rows by one of its candidates.
struct Trial {
    /// Index into the plan's layers.
    layer: usize,
    rows: usize,
    tactic: Tactic,
    call: Call,
    key: TimingKey,
}

type Report<'a> = &'a mut dyn FnMut(f32) -> Result<()>;
type Cubins = HashMap<KernelSpec, Arc<[u8]>>;

/// Part of a tuning, by time, that compiles.
const COMPILING: f32 = 0.7;
/// What two measurements of one kernel differ by.
const NOISE: f32 = 1.02;

/// Measures on one device.
pub struct Tuner<'a, C> {
    pub driver: &'a Arc<dyn Driver>,
    pub cubins: &'a CubinStore<C>,
    pub timings: &'a mut Timings,
    /// Compiling threads.
    pub threads: usize,
}

impl<C: Compiler> Tuner<'_, C> {
    /// The fastest tactics of a plan. `report` hears which part is done, and ends the tuning by an error.
    ///
    /// # Errors
    /// What `report` or the compiler says; `DeviceLost`.
    pub fn tune(&mut self, plan: &Plan, tactics: &mut Tactics, report: Report<'_>) -> Result<TuneSummary> {
        let products = cublas::version().is_ok();
        let target = CudaTarget { products, ..CudaTarget::of(self.driver.info(), plan.invariant) };
        let layers = Selector { plan, target: &target, tactics: &Tactics::default() }.layers();
        let trials = self.trials(plan, &target, &layers)?;
        let open: Vec<&Trial> = trials.iter().filter(|trial| self.timings.get(trial.key).is_none()).collect();
        let mut summary = TuneSummary { remembered: trials.len() - open.len(), ..TuneSummary::default() };
        let cubins = self.compile(&open, report)?;
        self.measure(plan, &layers, &open, &cubins, &mut summary, report)?;
        for alike in trials.chunk_by(|a, b| (a.layer, a.rows) == (b.layer, b.rows)) {
            let Trial { layer, rows, tactic: default, .. } = alike[0];
            let timed = |trial: &Trial| Some((trial.tactic, self.timings.get(trial.key)?));
            let timed: Vec<_> = alike.iter().filter_map(timed).collect();
            let Some(chosen) = fastest(&timed) else { continue };
            let layer = Layer::new(plan, &layers[layer].0, plan.precision.base());
            summary.measurements.push(Measurement::new(&layer, rows, default, &chosen, &timed));
            tactics.set(target.arch, layer.key(), rows, chosen);
        }
        Ok(summary)
    }

    /// Every candidate of every layer and row count that has a choice.
    fn trials(&self, plan: &Plan, target: &CudaTarget, layers: &[(Linear, BTreeSet<usize>)]) -> Result<Vec<Trial>> {
        let mut trials = Vec::new();
        for (index, (linear, sizes)) in layers.iter().enumerate() {
            let layer = Layer::new(plan, linear, plan.precision.base());
            for &rows in sizes {
                let candidates = layer.candidates(target, rows);
                if candidates.len() < 2 {
                    continue;
                }
                for tactic in candidates {
                    let call = layer.call(target, tactic, rows);
                    let key = TimingKey::new(&call, rows, self.driver.info())?;
                    trials.push(Trial { layer: index, rows, tactic, call, key });
                }
            }
        }
        Ok(trials)
    }

    /// The machine code of all trials.
    fn compile(&self, trials: &[&Trial], report: Report<'_>) -> Result<Cubins> {
        let specs: BTreeSet<_> = trials.iter().filter_map(|trial| trial.call.spec()).collect();
        let specs: Vec<_> = specs.into_iter().cloned().collect();
        let arch = self.driver.info().arch;
        let cubins = self.cubins.get_all_reporting(&specs, arch, self.threads, &mut |part| report(COMPILING * part))?;
        Ok(specs.into_iter().zip(cubins).collect())
    }

    /// Times every trial, layer by layer.
    fn measure(
        &mut self,
        plan: &Plan,
        layers: &[(Linear, BTreeSet<usize>)],
        trials: &[&Trial],
        cubins: &Cubins,
        summary: &mut TuneSummary,
        report: Report<'_>,
    ) -> Result<()> {
        let mut modules = Modules::new(self.driver);
        let mut done = 0;
        for alike in trials.chunk_by(|a, b| a.layer == b.layer) {
            let linear = &layers[alike[0].layer].0;
            let most = alike.iter().map(|trial| trial.rows).max().unwrap_or(0);
            let bed = match Bed::new(self.driver, plan, linear, most, alike.iter().map(|trial| &trial.call)) {
                Err(error) if error.status() == Status::OutOfMemory => {
                    // A device that is full of something else is no reason not to build.
                    summary.skipped += alike.len();
                    continue;
                }
                bed => bed?,
            };
            for trial in alike {
                report(COMPILING + (1.0 - COMPILING) * done as f32 / trials.len() as f32)?;
                done += 1;
                let loaded = modules.load(&trial.call, cubins);
                match loaded.and_then(|loaded| bed.time(linear, &trial.call, loaded, trial.rows)) {
                    Ok(microseconds) => {
                        summary.measured += 1;
                        self.timings.put(trial.key, microseconds);
                    }
                    Err(error) if error.status() == Status::DeviceLost => return Err(error),
                    // The library has fewer algorithms for some products, or none.
                    Err(_) if matches!(trial.tactic, Tactic::Product(_)) => {}
                    Err(_) => summary.refused += 1,
                }
            }
        }
        Ok(())
    }
}

/// The fastest of what was timed: one of our own kernels, and before it a product of the vendor's library if that is faster
/// still. The default, which comes first, stays where the difference is noise.
fn fastest(timed: &[(Tactic, f32)]) -> Option<Vec<Tactic>> {
    let (products, own): (Vec<_>, Vec<_>) = timed.iter().partition(|(tactic, _)| matches!(tactic, Tactic::Product(_)));
    let least = |of: &[(Tactic, f32)]| of.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1));
    let ours = least(&own).map(|least| if own[0].1 <= least.1 * NOISE { own[0] } else { least })?;
    let theirs = least(&products).filter(|theirs| theirs.1 * NOISE < ours.1);
    Some(theirs.into_iter().chain([ours]).map(|(tactic, _)| tactic).collect())
}
