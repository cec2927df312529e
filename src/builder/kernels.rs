//! The machine code of a CUDA engine: every specialisation that its plan selects, for each arch.

use crate::backend::cuda::{Arch, CudaTarget, RealDriver, compile_all, pack_cubins, specialisations};
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
    let mut cubins = Vec::new();
    for arch in archs {
        let specs = specialisations(plan, &CudaTarget::typical(arch, plan.invariant));
        let specs = specs.into_iter().collect::<Vec<_>>();
        cubins.extend(compile_all(&specs, arch, threads)?.into_iter().map(|(key, cubin)| (key, arch, cubin)));
    }
    Ok(pack_cubins(&cubins))
}
