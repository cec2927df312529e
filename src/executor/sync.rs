//! What the executor's threads meet on. It is named in one place, so that tests can compile `exchange`, `service` and
//! `threads` on primitives whose schedule they decide.

pub(super) use std::sync::atomic::{AtomicU64, Ordering};
pub(super) use std::thread;

pub(super) use parking_lot::{Condvar, Mutex, MutexGuard};
