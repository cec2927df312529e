//! The one wall between this library and the panics of the `tokenizers` crate.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result};

/// Runs `call`; a panic inside becomes `InvalidTokenizer` naming `what` was being done.
///
/// The process-wide panic hook belongs to the host application and is left alone, so the default hook may still print
/// the message. `structure` refuses beforehand the files that are known to panic.
pub(super) fn guard<T>(what: &str, call: impl FnOnce() -> T) -> Result<T> {
    // Every value the closures borrow is either dropped with the failure or read-only with self-healing caches.
    catch_unwind(AssertUnwindSafe(call))
        .map_err(|payload| invalid(what, format!("the tokenizers crate panicked: {}", message(&*payload))))
}

/// An `InvalidTokenizer` error.
pub(super) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Error {
    Error::InvalidTokenizer { what: what.into(), why: why.into() }
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let owned = payload.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        // `resume_unwind` raises without calling the hook, which keeps the test output clean.
        let raise = || -> u32 { std::panic::resume_unwind(Box::new("boom".to_string())) };
        let error = guard("decode", raise).unwrap_err();
        assert_eq!(error, invalid("decode", "the tokenizers crate panicked: boom"));
        assert_eq!(guard("decode", || 7), Ok(7));
    }
}
