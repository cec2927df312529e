//! What kernels are chosen for.

use super::driver::{Arch, DeviceInfo};

/// A device as far as the choice of kernels depends on it, with the engine's options. The choice is that for the arch's
/// typical device, so that the kernels that an engine holds serve on every device of that arch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CudaTarget {
    pub arch: Arch,
    /// Of the typical device.
    pub multiprocessors: usize,
    /// Of the device that is there: what grids follow.
    pub present: usize,
    /// Shared memory of a multiprocessor that blocks may use together.
    pub shared_bytes: usize,
    /// A request's bits depend on nothing but itself: one order of sums for every step.
    pub invariant: bool,
    /// Whether the vendor's library of matrix products may take part.
    pub products: bool,
}

impl CudaTarget {
    /// A typical device of an arch: for builds without one.
    #[must_use]
    pub fn typical(arch: Arch, invariant: bool) -> Self {
        let (multiprocessors, shared) = match arch.number() {
            80 => (108, 164),
            87 => (16, 164),
            90 => (132, 228),
            100..=103 => (148, 228),
            89 => (142, 100),
            _ => (170, 100),
        };
        Self { arch, multiprocessors, present: multiprocessors, shared_bytes: shared << 10, invariant, products: false }
    }

    /// Shared memory for each of so many blocks on a multiprocessor.
    pub(super) fn shared_of_blocks(&self, blocks: usize) -> usize {
        /// What a block loses to the system.
        const RESERVED: usize = 1 << 10;
        self.shared_bytes / blocks - RESERVED
    }

    /// A device that is there.
    #[must_use]
    pub fn of(info: &DeviceInfo, invariant: bool) -> Self {
        Self { present: info.multiprocessors, ..Self::typical(info.arch, invariant) }
    }
}
