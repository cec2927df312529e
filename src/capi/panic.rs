//! The boundary around every exported function: errors become a status, a panic becomes `PANIC`, nothing unwinds into C.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

use super::status::{self, trtllm_status};
use crate::error::{Error, Result};

thread_local! {
    /// How many boundaries this thread is inside: a callback may call back into the library.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Where the panic now unwinding on this thread started.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs the body of the exported `function`. A failure becomes the thread's last error; outputs are the body's last act.
pub(super) fn boundary(function: &str, body: impl FnOnce() -> Result<()>) -> trtllm_status {
    match guarded(function, body) {
        Ok(()) => trtllm_status::Ok,
        Err(error) => status::record(&error),
    }
}

/// Runs the body of an exported function that cannot fail; `fallback` stands in for a panic.
pub(super) fn boundary_or<T>(fallback: T, function: &str, body: impl FnOnce() -> T) -> T {
    guarded(function, || Ok(body())).unwrap_or(fallback)
}

fn guarded<T>(function: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    install_hook();
    let _inside = Inside::enter();
    // Objects behind handles are only changed under their own locks, and the executor turns unhealthy by itself.
    catch_unwind(AssertUnwindSafe(|| {
        may_panic();
        body()
    }))
    .unwrap_or_else(|payload| Err(Error::Panic { what: function.to_owned(), why: describe(payload) }))
}

/// A place in a call where a test can let it panic.
#[inline]
pub(super) fn may_panic() {
    #[cfg(test)]
    tests::panic_when_armed();
}

struct Inside;

impl Inside {
    fn enter() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// The default hook prints to stderr, which a library must not do: panics inside a boundary are only noted.
fn install_hook() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(
            move |info| {
                if inside_boundary() || on_own_thread() { note(info) } else { previous(info) }
            },
        ));
    });
}

fn inside_boundary() -> bool {
    DEPTH.try_with(|depth| depth.get() > 0).unwrap_or(false)
}

/// Threads of the library are named `trtllm...` and catch their panics themselves.
fn on_own_thread() -> bool {
    std::thread::current().name().is_some_and(|name| name.starts_with("trtllm"))
}

fn note(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    // At thread exit the local is gone; the place is then lost, which only shortens a message.
    let _ = PLACE.try_with(|slot| slot.replace(place));
}

fn describe(payload: Box<dyn Any + Send>) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned());
    // A payload may panic when it is dropped; leaking that one is the lesser evil.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    format!("{text} ({})", PLACE.take())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::capi::status::trtllm_last_error_message;

    thread_local! {
        /// How many places this thread still passes before it panics.
        static PLACES: Cell<Option<usize>> = const { Cell::new(None) };
    }

    pub(super) fn panic_when_armed() {
        match PLACES.get() {
            None => {}
            Some(0) => panic!("injected panic"),
            Some(places) => PLACES.set(Some(places - 1)),
        }
    }

    /// Runs `body` with a panic waiting behind the first `places` places that this thread passes; from then on it panics at
    /// every place.
    pub(crate) fn with_panic_behind<T>(places: usize, body: impl FnOnce() -> T) -> T {
        PLACES.set(Some(places));
        let result = body();
        PLACES.set(None);
        result
    }

    /// Runs `body` with a panic waiting inside every boundary of this thread.
    pub(crate) fn with_injected_panic<T>(body: impl FnOnce() -> T) -> T {
        with_panic_behind(0, body)
    }

    pub(crate) fn last_message() -> String {
        // SAFETY: the function returns a NUL-terminated string that lives until this thread's next call.
        unsafe { std::ffi::CStr::from_ptr(trtllm_last_error_message()) }.to_string_lossy().into_owned()
    }

    #[test]
    fn a_panic_becomes_a_status_with_message_and_place() {
        assert_eq!(boundary("trtllm_test", || panic!("boom {}", 1)), trtllm_status::Panic);
        let message = last_message();
        assert!(message.starts_with("panic in trtllm_test: boom 1 (src/capi/panic.rs:"), "{message}");
        assert_eq!(boundary("trtllm_test", || Ok(())), trtllm_status::Ok);
    }

    #[test]
    fn a_payload_that_panics_on_drop_does_not_escape() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("second");
            }
        }
        assert_eq!(boundary("trtllm_test", || std::panic::panic_any(Bomb)), trtllm_status::Panic);
    }

    #[test]
    fn an_infallible_function_falls_back() {
        assert_eq!(boundary_or(7, "trtllm_test", || 1), 1);
        assert_eq!(with_injected_panic(|| boundary_or(7, "trtllm_test", || 1)), 7);
    }
}
