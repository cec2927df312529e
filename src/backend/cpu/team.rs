//! What all kernels of a device share: its threads, its compiled functions, and one scratch, since steps run one after
//! another.

use parking_lot::{Mutex, MutexGuard};

use super::compiled::Compiled;
use super::memory::OwnedMemory;
use super::pool::Pool;
use crate::error::Result;

/// Elements below which a row operation is not worth another thread.
const GRAIN: usize = 16 * 1024;
/// Every piece of scratch starts on a cache line.
const LINE: usize = 64;

/// Scratch that a step needs, in bytes: once for the step, and once for each lane of the pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Need {
    pub shared: usize,
    pub lane: usize,
}

impl Need {
    /// What serves both.
    pub(super) fn max(self, other: Need) -> Need {
        Need { shared: self.shared.max(other.shared), lane: self.lane.max(other.lane) }
    }

    /// Bytes for a pool of `lanes`; `usize::MAX` when that overflows.
    pub(super) fn bytes(self, lanes: usize) -> usize {
        let Some(need) = self.in_lines() else { return usize::MAX };
        need.lane.checked_mul(lanes).and_then(|bytes| bytes.checked_add(need.shared)).unwrap_or(usize::MAX)
    }

    fn in_lines(self) -> Option<Need> {
        Some(Need {
            shared: self.shared.checked_next_multiple_of(LINE)?,
            lane: self.lane.checked_next_multiple_of(LINE)?,
        })
    }
}

struct Scratch {
    memory: OwnedMemory,
    need: Need,
}

/// Threads, functions and scratch of a device.
pub(super) struct Team {
    pub pool: Pool,
    pub compiled: &'static Compiled,
    scratch: Mutex<Scratch>,
}

impl Team {
    pub(super) fn new(threads: usize, compiled: &'static Compiled) -> Result<Self> {
        let scratch = Scratch { memory: OwnedMemory::zeroed(0, "scratch")?, need: Need::default() };
        Ok(Team { pool: Pool::new(threads)?, compiled, scratch: Mutex::new(scratch) })
    }

    /// Makes the scratch large enough for `need`, beside what it already serves.
    pub(super) fn reserve(&self, need: Need) -> Result<()> {
        let mut scratch = self.scratch.lock();
        let need = scratch.need.max(need);
        if need != scratch.need {
            scratch.memory = OwnedMemory::zeroed(need.bytes(self.pool.lanes()), "the CPU kernels' scratch")?;
            scratch.need = need.in_lines().unwrap_or(need);
        }
        Ok(())
    }

    /// Takes the scratch for one launch.
    pub(super) fn scratch(&self) -> Turn<'_> {
        let guard = self.scratch.lock();
        let areas = Areas { address: guard.memory.address(), need: guard.need };
        Turn { areas, _guard: guard }
    }

    /// Calls `body` for every row, spread over the threads where the whole is large enough.
    pub(super) fn for_rows(&self, rows: usize, columns: usize, body: &(dyn Fn(usize) + Sync)) -> Result<()> {
        let rows_per_task = (GRAIN / columns.max(1)).max(1);
        self.pool.run(rows.div_ceil(rows_per_task), &|_, task| {
            for row in task * rows_per_task..rows.min((task + 1) * rows_per_task) {
                body(row);
            }
        })
    }
}

/// The scratch, taken.
pub(super) struct Turn<'a> {
    pub areas: Areas,
    _guard: MutexGuard<'a, Scratch>,
}

/// Where the pieces of the scratch lie.
#[derive(Clone, Copy)]
pub(super) struct Areas {
    address: usize,
    need: Need,
}

impl Areas {
    /// The step's own piece.
    pub(super) fn shared(self) -> *mut f32 {
        self.address as *mut f32
    }

    /// The piece of one lane.
    pub(super) fn lane(self, lane: usize) -> *mut f32 {
        (self.address + self.need.shared + lane * self.need.lane) as *mut f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_grow_and_never_overflow() {
        let need = Need { shared: 100, lane: 10 };
        assert_eq!(need.bytes(2), 128 + 2 * 64);
        assert_eq!(Need { shared: 1, lane: usize::MAX }.bytes(2), usize::MAX);
        assert_eq!(need.max(Need { shared: 1, lane: 11 }), Need { shared: 100, lane: 11 });
    }
}
