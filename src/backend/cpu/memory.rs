//! Host memory: owned and zeroed, or borrowed from whoever holds the weights.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::backend::{Buffer, Region};
use crate::error::{Error, Result};

/// Alignment of every owned buffer: a cache line.
const ALIGNMENT: usize = 64;
/// Buffers from this size on are aligned to, and ask the system for, huge pages.
const HUGE_PAGE: usize = 2 << 20;

/// Owned, zeroed memory.
pub(super) struct OwnedMemory {
    start: NonNull<u8>,
    layout: Layout,
    bytes: usize,
}

// SAFETY: the memory is plain bytes owned by this object; who accesses it when is the contract of `Kernel::launch`.
unsafe impl Send for OwnedMemory {}
// SAFETY: as above; `&self` only gives out the address.
unsafe impl Sync for OwnedMemory {}

impl OwnedMemory {
    /// `bytes` zero bytes, 64-byte aligned; `what` names them in the `OutOfMemory` error.
    pub(super) fn zeroed(bytes: usize, what: &str) -> Result<Self> {
        let out_of_memory = || Error::out_of_memory(what, bytes);
        let alignment = if bytes >= HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT };
        let layout = Layout::from_size_align(bytes.max(ALIGNMENT), alignment).map_err(|_| out_of_memory())?;
        let start = zeroed_pages(layout).ok_or_else(out_of_memory)?;
        Ok(OwnedMemory { start, layout, bytes })
    }

    pub(super) fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }
}

/// Memory that the system has already zeroed. Large pieces are mapped directly: `alloc_zeroed` with an alignment above
/// the allocator's own clears the memory by hand, which would touch every page.
fn zeroed_pages(layout: Layout) -> Option<NonNull<u8>> {
    if layout.align() < HUGE_PAGE {
        // SAFETY: the size is at least ALIGNMENT, never zero.
        return NonNull::new(unsafe { alloc_zeroed(layout) });
    }
    map::huge(layout.size())
}

impl Drop for OwnedMemory {
    fn drop(&mut self) {
        if self.layout.align() < HUGE_PAGE {
            // SAFETY: allocated by `alloc_zeroed` with this layout.
            unsafe { dealloc(self.start.as_ptr(), self.layout) };
        } else {
            // SAFETY: mapped by `map::huge` with this size.
            unsafe { map::release(self.start, self.layout.size()) };
        }
    }
}

impl Buffer for OwnedMemory {
    fn region(&self) -> Region {
        Region { address: self.address(), bytes: self.bytes }
    }
}

/// Memory of somebody else, used in place.
pub(super) struct BorrowedMemory(pub(super) Region);

impl Buffer for BorrowedMemory {
    fn region(&self) -> Region {
        self.0
    }
}

/// Anonymous mappings aligned to huge pages.
mod map {
    use std::ptr::NonNull;

    use super::HUGE_PAGE;

    /// Maps one huge page more than asked and returns both ends, so that the rest starts on a huge page.
    pub(super) fn huge(bytes: usize) -> Option<NonNull<u8>> {
        let bytes = bytes.checked_next_multiple_of(4096)?;
        let mapped = bytes.checked_add(HUGE_PAGE)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping; nothing existing is touched.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), mapped, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return None;
        }
        let base = base as usize;
        let start = base.next_multiple_of(HUGE_PAGE);
        // SAFETY: the three ranges lie within the mapping just made; only the middle one is kept.
        unsafe {
            unmap(base, start - base);
            unmap(start + bytes, base + mapped - start - bytes);
            libc::madvise(start as *mut libc::c_void, bytes, libc::MADV_HUGEPAGE);
        }
        NonNull::new(start as *mut u8)
    }

    /// # Safety
    /// `start` came from [`huge`] with the same `bytes`, and nothing uses it any more.
    pub(super) unsafe fn release(start: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { unmap(start.as_ptr() as usize, bytes.next_multiple_of(4096)) };
    }

    unsafe fn unmap(start: usize, bytes: usize) {
        if bytes > 0 {
            // SAFETY: the caller names a range it owns.
            unsafe { libc::munmap(start as *mut libc::c_void, bytes) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_zeroed() {
        for bytes in [0, 1, 100, HUGE_PAGE - 1, HUGE_PAGE, 3 * HUGE_PAGE + 5] {
            let memory = OwnedMemory::zeroed(bytes, "test").unwrap();
            let region = memory.region();
            assert_eq!((region.address % 64, region.bytes), (0, bytes));
            // SAFETY: the region is alive and ours.
            let content = unsafe { std::slice::from_raw_parts_mut(region.address as *mut u8, bytes) };
            assert!(content.iter().all(|byte| *byte == 0));
            content.fill(7);
        }
    }

    #[test]
    fn a_refused_allocation_names_its_purpose() {
        let error = OwnedMemory::zeroed(usize::MAX / 4, "the pool").err().unwrap();
        assert_eq!(error.status(), crate::Status::OutOfMemory);
        assert!(error.to_string().contains("the pool"));
    }
}
