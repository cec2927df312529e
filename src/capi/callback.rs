//! Callbacks into the caller: what they are given, and what they must not do.

use std::cell::Cell;
use std::ffi::c_void;

use crate::error::{Error, Result};

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Frees user data; called exactly once.
pub(super) type Free = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// A pointer that a caller wants back in its callbacks.
pub(super) struct UserData {
    pointer: *mut c_void,
    free: Free,
}

// SAFETY: the library only carries the pointer; the C contract says that callbacks come on other threads.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

impl UserData {
    pub(super) fn new(pointer: *mut c_void, free: Free) -> Self {
        Self { pointer, free }
    }

    pub(super) fn pointer(&self) -> *mut c_void {
        self.pointer
    }
}

impl Drop for UserData {
    fn drop(&mut self) {
        if let Some(free) = self.free {
            // SAFETY: the caller gave this function for this pointer; drop runs once.
            during_callback(|| unsafe { free(self.pointer) });
        }
    }
}

/// Runs a callback of the caller and marks this thread meanwhile.
pub(super) fn during_callback<T>(callback: impl FnOnce() -> T) -> T {
    let before = RUNNING.replace(true);
    let result = callback();
    RUNNING.set(before);
    result
}

/// Refuses a call that waits for the library's threads while this thread runs a callback: it may be one of them.
pub(super) fn refuse_during_callback(what: &str) -> Result<()> {
    if RUNNING.get() {
        let why = "it waits for the threads that run callbacks, and was called from one".to_owned();
        return Err(Error::WouldDeadlock { what: what.to_owned(), why });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn user_data_is_freed_once_and_inside_a_callback() {
        unsafe extern "C" fn count(user_data: *mut c_void) {
            // SAFETY: the test passes a counter.
            unsafe { &*user_data.cast::<AtomicUsize>() }.fetch_add(1, Ordering::Relaxed);
            assert!(refuse_during_callback("it").is_err());
        }
        let counter = AtomicUsize::new(0);
        drop(UserData::new((&raw const counter).cast_mut().cast(), Some(count)));
        drop(UserData::new((&raw const counter).cast_mut().cast(), None));
        assert_eq!(counter.load(Ordering::Relaxed), 1);
        assert!(refuse_during_callback("it").is_ok());
    }
}
