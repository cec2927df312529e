//! The CUDA part of an engine: tactics for the device that is there, and the machine code of every specialisation that its
//! plan selects, for each arch.

use std::sync::Arc;

use crate::backend::cuda::{
    Arch, CubinStore, CudaTarget, Driver, RealDriver, Selector, Tactics, Timings, Tuner, check_plan, nvrtc_version,
    pack_cubins,
};
use crate::engine::Plan;
use crate::error::Result;

/// What is built for where there is no device to ask.
const DEFAULT: Arch = Arch { major: 9, minor: 0 };

/// Sections of an engine.
pub(super) struct Kernels {
    pub(super) cubins: Vec<u8>,
    pub(super) tactics: Option<Vec<u8>>,
}

/// Compiles for `archs`, by default that of the first device, whose tactics are measured if `tune` says so.
///
/// # Errors
/// `Unsupported` for a layer without a kernel; `DeviceUnavailable` without NVRTC; what it says of a kernel; what `report` says; what the device says while tuning.
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
    let (store, mut cubins) = (CubinStore::compiling(), Vec::new());
    let tactics = match driver {
        Some(driver) if tune && archs.contains(&driver.info().arch) => measure(&driver, plan, &store, threads, report)?,
        _ => Tactics::default(),
    };
    for arch in archs {
        let target = CudaTarget::typical(arch, plan.invariant);
        let specs = Selector { plan, target: &target, tactics: &tactics }.specialisations();
        let specs = specs.into_iter().collect::<Vec<_>>();
        let compiled = store.get_all(&specs, arch, threads)?;
        cubins.extend(specs.into_iter().zip(compiled).map(|(spec, cubin)| (spec, arch, cubin)));
    }
    let cubins = pack_cubins(&cubins, nvrtc_version()?)?;
    let tactics = if tactics.is_empty() { None } else { Some(tactics.to_json()?) };
    Ok(Kernels { cubins, tactics })
}

fn measure(
    driver: &Arc<dyn Driver>,
    plan: &Plan,
    cubins: &CubinStore,
    threads: usize,
    report: &mut dyn FnMut(f32) -> Result<()>,
) -> Result<Tactics> {
    let (mut tactics, mut timings) = (Tactics::default(), Timings::of_user());
    let tuned = Tuner { driver, cubins, timings: &mut timings, threads }.tune(plan, &mut tactics, report);
    // What was measured before it was cancelled need not be measured again.
    timings.save();
    tuned.map(|_| tactics)
}
