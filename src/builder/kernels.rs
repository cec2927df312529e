//! The CUDA part of an engine: tactics for the device that is there, and the machine code of every specialisation that its
//! plan selects, for each arch.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::{Compiled, KernelRecord, Tuning};
use crate::backend::cuda::{
    Arch, CubinStore, CudaTarget, Driver, RealDriver, Selector, Tactics, Timings, Tuner, check_plan, nvrtc_version,
    pack_cubins,
};
use crate::engine::Plan;
use crate::error::Result;

/// What is built for where there is no device to ask.
const DEFAULT: Arch = Arch { major: 9, minor: 0 };

/// Part of the work, by time, that tuning is where there is any.
const TUNING: f32 = 0.8;

/// Sections of an engine, and what to tell of them.
pub(super) struct Kernels {
    pub(super) cubins: Vec<u8>,
    pub(super) tactics: Option<Vec<u8>>,
    pub(super) record: KernelRecord,
}

/// Compiles for `archs`, by default that of the first device, whose tactics are measured if `tune` says so.
///
/// # Errors
/// `Unsupported` for a layer without a kernel; `DeviceUnavailable` without NVRTC; what it says of a kernel; what `report` says;
/// what the device says while tuning.
pub(super) fn compile(
    plan: &Plan,
    archs: &[Arch],
    tune: bool,
    report: &mut dyn FnMut(f32) -> Result<()>,
) -> Result<Kernels> {
    check_plan(plan)?;
    let driver = RealDriver::open(0).ok();
    let present = driver.as_ref().map(|driver| driver.info().arch);
    let archs = if archs.is_empty() { vec![present.unwrap_or(DEFAULT)] } else { archs.to_vec() };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (store, mut cubins, mut built) = (CubinStore::compiling(), Vec::new(), BTreeMap::new());
    let (tactics, tuning) = match driver {
        Some(driver) if tune && archs.contains(&driver.info().arch) => {
            let (tactics, tuning) = measure(&driver, plan, &store, threads, &mut |part| report(TUNING * part))?;
            (tactics, Some(tuning))
        }
        _ => (Tactics::default(), None),
    };
    let begin = if tactics.is_empty() { 0.0 } else { TUNING };
    for (index, arch) in archs.iter().copied().enumerate() {
        let target = CudaTarget::typical(arch, plan.invariant);
        let specs = Selector { plan, target: &target, tactics: &tactics }.specialisations();
        let specs = specs.into_iter().collect::<Vec<_>>();
        let compiled = store.get_all_reporting(&specs, arch, threads, &mut |part| {
            report(begin + (1.0 - begin) * (index as f32 + part) / archs.len() as f32)
        })?;
        let bytes = compiled.iter().map(|cubin| cubin.len()).sum();
        built.insert(arch.to_string(), Compiled { kernels: specs.len(), bytes });
        cubins.extend(specs.into_iter().zip(compiled).map(|(spec, cubin)| (spec, arch, cubin)));
    }
    let (major, minor) = nvrtc_version()?;
    let record = KernelRecord { compiler: format!("{major}.{minor}"), archs: built, tuning };
    let cubins = pack_cubins(&cubins, (major, minor))?;
    let tactics = if tactics.is_empty() { None } else { Some(tactics.to_json()?) };
    Ok(Kernels { cubins, tactics, record })
}

fn measure(
    driver: &Arc<dyn Driver>,
    plan: &Plan,
    cubins: &CubinStore,
    threads: usize,
    report: &mut dyn FnMut(f32) -> Result<()>,
) -> Result<(Tactics, Tuning)> {
    let (mut tactics, mut timings) = (Tactics::default(), Timings::of_user());
    let tuned = Tuner { driver, cubins, timings: &mut timings, threads }.tune(plan, &mut tactics, report);
    // What was measured before it was cancelled need not be measured again.
    timings.save();
    let info = driver.info();
    Ok((tactics, Tuning { device: info.name.clone(), arch: info.arch.to_string(), summary: tuned? }))
}
