//! The machine code of a CUDA engine: every specialisation that its plan selects, for each arch.

use crate::backend::cuda::{Arch, CubinStore, CudaTarget, RealDriver, nvrtc_version, pack_cubins, specialisations};
use crate::engine::Plan;
use crate::error::Result;

/// What is built for where there is no device to ask.
const DEFAULT: Arch = Arch { major: 9, minor: 0 };

/// The engine's section of compiled kernels.
///
/// # Errors
/// `DeviceUnavailable` without NVRTC; what it says of a kernel.
pub(super) fn compile(plan: &Plan, archs: &[Arch]) -> Result<Vec<u8>> {
    let present = || RealDriver::open(0).map_or(DEFAULT, |driver| driver.info().arch);
    let archs = if archs.is_empty() { vec![present()] } else { archs.to_vec() };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (store, mut cubins) = (CubinStore::compiling(), Vec::new());
    for arch in archs {
        let specs = specialisations(plan, &CudaTarget::typical(arch, plan.invariant));
        let specs = specs.into_iter().collect::<Vec<_>>();
        let compiled = store.get_all(&specs, arch, threads)?;
        cubins.extend(specs.into_iter().zip(compiled).map(|(spec, cubin)| (spec, arch, cubin)));
    }
    pack_cubins(&cubins, nvrtc_version()?)
}
