//! Status codes and the last error of a thread.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};

use super::panic::boundary_or;
use crate::error::{Error, Status};

/// What came of a call or of a request. Codes are grouped in blocks and never change or get reused; a later version may
/// add codes, so treat one that you do not know as a failure.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum trtllm_status {
    /// Success.
    Ok = 0,

    /// An argument is NULL, out of range, not UTF-8 or contradicts another one.
    InvalidArgument = 100,
    /// A handle was destroyed, is of another type, or never existed.
    InvalidHandle = 101,
    /// The object is not in a state that allows this call.
    InvalidState = 102,
    /// The call would wait for the thread that makes it.
    WouldDeadlock = 103,
    /// The caller's buffer is too small.
    BufferTooSmall = 104,
    /// Nothing arrived within the caller's timeout.
    Timeout = 105,

    /// The operating system refused a file operation.
    Io = 200,
    /// A file or entry does not exist.
    NotFound = 201,
    /// A file's content contradicts itself or its checksum.
    Corrupt = 202,
    /// A file or a header was made by an incompatible version.
    UnsupportedVersion = 203,
    /// A file is of a kind that is not read, e.g. GGUF or a pickle.
    UnsupportedFormat = 204,
    /// `config.json` or `generation_config.json` holds an impossible value.
    InvalidConfig = 205,
    /// A tensor is missing, misshapen, overlapping or of a wrong dtype.
    InvalidCheckpoint = 206,
    /// The tokenizer cannot be loaded or refuses an input.
    InvalidTokenizer = 207,
    /// The chat template does not parse, fails, or exceeds its limits.
    InvalidTemplate = 208,

    /// The graph is not well formed.
    InvalidNetwork = 300,
    /// A model family, operation, precision or option that this library does not have.
    Unsupported = 301,

    /// An allocation failed.
    OutOfMemory = 400,
    /// The caller's memory budget does not suffice; the message has the needed figure.
    BudgetExceeded = 401,
    /// The request queue is full.
    QueueFull = 402,
    /// A request can never fit this engine or executor.
    RequestTooLarge = 403,
    /// The device, driver or library is not there.
    DeviceUnavailable = 404,
    /// A thread could not be started.
    ThreadFailed = 405,
    /// The device failed while it was computing: everything that ran on it has ended with this status, and it takes no more.
    DeviceLost = 406,

    /// The caller cancelled the operation or request.
    Cancelled = 500,
    /// A request ran past its time limit.
    TimeLimit = 501,
    /// A request's logits contained NaN or no finite value.
    Numeric = 502,
    /// The executor is shutting down.
    ShuttingDown = 503,

    /// A bug in the library; the object concerned is unusable.
    Internal = 600,
    /// A panic was caught at the boundary: a bug in the library.
    Panic = 601,
}

macro_rules! mirror {
    ($($variant:ident)*) => {
        impl From<Status> for trtllm_status {
            fn from(status: Status) -> Self {
                match status { $(Status::$variant => trtllm_status::$variant,)* }
            }
        }

        $(const _: () = assert!(Status::$variant as i32 == trtllm_status::$variant as i32);)*
    };
}

mirror! {
    Ok
    InvalidArgument InvalidHandle InvalidState WouldDeadlock BufferTooSmall Timeout
    Io NotFound Corrupt UnsupportedVersion UnsupportedFormat InvalidConfig InvalidCheckpoint InvalidTokenizer InvalidTemplate
    InvalidNetwork Unsupported
    OutOfMemory BudgetExceeded QueueFull RequestTooLarge DeviceUnavailable ThreadFailed DeviceLost
    Cancelled TimeLimit Numeric ShuttingDown
    Internal Panic
}

thread_local! {
    static LAST: RefCell<Option<(trtllm_status, CString)>> = const { RefCell::new(None) };
}

/// Makes `error` the calling thread's last error and returns its status.
pub(super) fn record(error: &Error) -> trtllm_status {
    let status = trtllm_status::from(error.status());
    let mut message = error.to_string();
    message.retain(|c| c != '\0');
    let message = CString::new(message).expect("every NUL was removed");
    // At thread exit the local is gone; the status still tells what happened.
    let _ = LAST.try_with(|last| last.replace(Some((status, message))));
    status
}

/// The name of a status code without its prefix, e.g. `INVALID_ARGUMENT`; `UNKNOWN` for a number that is no code.
///
/// Ownership: returns a static string. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_status_name(status: i32) -> *const c_char {
    boundary_or(c"UNKNOWN".as_ptr(), "trtllm_status_name", || name(status).as_ptr())
}

/// What went wrong in the calling thread's last failed call: the culprit and the reason, in English, never NULL.
/// Empty when no call of this thread has failed yet; a call that succeeds leaves it as it is.
///
/// Ownership: borrowed from the library until this thread's next call. Thread safety: safe; a caller whose language moves
/// work between threads (Go) must stay on one thread from the failed call to this one.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_last_error_message() -> *const c_char {
    boundary_or(c"".as_ptr(), "trtllm_last_error_message", || {
        LAST.try_with(|last| last.borrow().as_ref().map(|(_, message)| message.as_ptr()))
            .ok()
            .flatten()
            .unwrap_or(c"".as_ptr())
    })
}

/// The status of the calling thread's last failed call; `TRTLLM_STATUS_OK` when none has failed yet.
///
/// Thread safety: safe, per thread as `trtllm_last_error_message`.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_last_error_status() -> trtllm_status {
    boundary_or(trtllm_status::Panic, "trtllm_last_error_status", || {
        LAST.try_with(|last| last.borrow().as_ref().map(|(status, _)| *status))
            .ok()
            .flatten()
            .unwrap_or(trtllm_status::Ok)
    })
}

/// Names as C strings; a test holds them against [`Status::name`].
fn name(code: i32) -> &'static CStr {
    match code {
        0 => c"OK",
        100 => c"INVALID_ARGUMENT",
        101 => c"INVALID_HANDLE",
        102 => c"INVALID_STATE",
        103 => c"WOULD_DEADLOCK",
        104 => c"BUFFER_TOO_SMALL",
        105 => c"TIMEOUT",
        200 => c"IO",
        201 => c"NOT_FOUND",
        202 => c"CORRUPT",
        203 => c"UNSUPPORTED_VERSION",
        204 => c"UNSUPPORTED_FORMAT",
        205 => c"INVALID_CONFIG",
        206 => c"INVALID_CHECKPOINT",
        207 => c"INVALID_TOKENIZER",
        208 => c"INVALID_TEMPLATE",
        300 => c"INVALID_NETWORK",
        301 => c"UNSUPPORTED",
        400 => c"OUT_OF_MEMORY",
        401 => c"BUDGET_EXCEEDED",
        402 => c"QUEUE_FULL",
        403 => c"REQUEST_TOO_LARGE",
        404 => c"DEVICE_UNAVAILABLE",
        405 => c"THREAD_FAILED",
        406 => c"DEVICE_LOST",
        500 => c"CANCELLED",
        501 => c"TIME_LIMIT",
        502 => c"NUMERIC",
        503 => c"SHUTTING_DOWN",
        600 => c"INTERNAL",
        601 => c"PANIC",
        _ => c"UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_name() {
        for status in Status::ALL {
            assert_eq!(name(*status as i32).to_str().unwrap(), status.name());
        }
        assert_eq!(name(7), c"UNKNOWN");
        assert_eq!(name(i32::MIN), c"UNKNOWN");
    }

    #[test]
    fn the_last_error_belongs_to_its_thread() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(trtllm_last_error_status(), trtllm_status::Ok);
                assert_eq!(record(&Error::argument("path\0", "is NULL")), trtllm_status::InvalidArgument);
                // SAFETY: the message is NUL-terminated and lives until this thread's next call.
                let message = unsafe { CStr::from_ptr(trtllm_last_error_message()) };
                assert_eq!(message, c"invalid argument `path`: is NULL");
                assert_eq!(trtllm_last_error_status(), trtllm_status::InvalidArgument);
            });
            scope.spawn(|| assert_eq!(trtllm_last_error_status(), trtllm_status::Ok));
        });
    }
}
