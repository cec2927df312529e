//! Owned device and pinned memory: given back on drop.

use std::sync::Arc;

use super::driver::{Address, Driver};
use crate::error::Result;

/// Device memory.
pub(super) struct DeviceMemory {
    driver: Arc<dyn Driver>,
    pub(super) address: Address,
    pub(super) bytes: usize,
}

impl DeviceMemory {
    /// Memory that is not initialised; none for 0 bytes.
    pub(super) fn new(driver: &Arc<dyn Driver>, bytes: usize, what: &str) -> Result<Self> {
        let address = if bytes == 0 { 0 } else { driver.allocate(bytes, what)? };
        Ok(Self { driver: Arc::clone(driver), address, bytes })
    }

    /// Memory that is zero once the stream has come so far.
    pub(super) fn zeroed(driver: &Arc<dyn Driver>, bytes: usize, what: &str) -> Result<Self> {
        let memory = Self::new(driver, bytes, what)?;
        if bytes > 0 {
            // SAFETY: the memory is this large and was just allocated.
            unsafe { driver.fill(memory.address, bytes, 0)? };
        }
        Ok(memory)
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        self.driver.release(self.address);
    }
}

/// Page-locked host memory.
pub(super) struct PinnedMemory {
    driver: Arc<dyn Driver>,
    pub(super) pointer: *mut u8,
    pub(super) bytes: usize,
}

// SAFETY: the memory is owned, and whoever holds it decides who touches it.
unsafe impl Send for PinnedMemory {}

impl PinnedMemory {
    pub(super) fn new(driver: &Arc<dyn Driver>, bytes: usize, what: &str) -> Result<Self> {
        let pointer = driver.allocate_pinned(bytes.max(1), what)?;
        Ok(Self { driver: Arc::clone(driver), pointer, bytes })
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        self.driver.release_pinned(self.pointer);
    }
}
