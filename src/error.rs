//! One error type for the whole library; each variant carries the culprit and maps to one stable status code.

/// Result of every fallible function of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! errors {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $format:literal;)*) => {
        /// Status of a call or of a request. Codes are grouped in blocks and never reused.
        /// cbindgen:prefix-with-name
        #[repr(i32)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Status {
            /// Success.
            Ok = 0,
            $($(#[$doc])* $variant = $code,)*
        }

        impl Status {
            /// Every status, success included.
            pub const ALL: &'static [Status] = &[Status::Ok, $(Status::$variant,)*];

            /// The stable upper-case name, e.g. `INVALID_ARGUMENT`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { Status::Ok => "OK", $(Status::$variant => $name,)* }
            }
        }

        /// What went wrong: `what` names the culprit (an argument, a file, a tensor, a request), `why` explains.
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        pub enum Error {
            $($(#[$doc])* #[error($format)] $variant { what: String, why: String },)*
        }

        impl Error {
            /// The stable status code of this error.
            #[must_use]
            pub fn status(&self) -> Status {
                match self { $(Error::$variant { .. } => Status::$variant,)* }
            }

            /// The error of a given status; `Ok` has none.
            #[must_use]
            pub fn from_status(status: Status, what: impl Into<String>, why: impl Into<String>) -> Option<Self> {
                let (what, why) = (what.into(), why.into());
                match status { Status::Ok => None, $(Status::$variant => Some(Error::$variant { what, why }),)* }
            }

            /// The same error with `context: ` put before its culprit.
            #[must_use]
            pub fn within(self, context: &str) -> Self {
                match self { $(Error::$variant { what, why } => Error::$variant { what: format!("{context}: {what}"), why },)* }
            }
        }
    };
}

errors! {
    /// An argument is NULL, out of range, not UTF-8 or contradicts another one.
    InvalidArgument = 100, "INVALID_ARGUMENT", "invalid argument `{what}`: {why}";
    /// A handle was destroyed, is of another type, or never existed.
    InvalidHandle = 101, "INVALID_HANDLE", "invalid handle `{what}`: {why}";
    /// The object is not in a state that allows this call.
    InvalidState = 102, "INVALID_STATE", "`{what}` cannot be used now: {why}";
    /// The call would wait for the thread that makes it.
    WouldDeadlock = 103, "WOULD_DEADLOCK", "`{what}` would deadlock: {why}";
    /// The caller's buffer is too small; the needed size is in `why`.
    BufferTooSmall = 104, "BUFFER_TOO_SMALL", "buffer `{what}` is too small: {why}";
    /// Nothing arrived within the caller's timeout.
    Timeout = 105, "TIMEOUT", "timed out waiting for {what}: {why}";

    /// The operating system refused a file operation.
    Io = 200, "IO", "{what}: {why}";
    /// A file or entry does not exist.
    NotFound = 201, "NOT_FOUND", "{what} not found: {why}";
    /// A file's content contradicts itself or its checksum.
    Corrupt = 202, "CORRUPT", "{what} is corrupt: {why}";
    /// A file was written by an incompatible version.
    UnsupportedVersion = 203, "UNSUPPORTED_VERSION", "{what} has an unsupported version: {why}";
    /// A file is of a kind that is not read, e.g. GGUF or a pickle.
    UnsupportedFormat = 204, "UNSUPPORTED_FORMAT", "{what} has an unsupported format: {why}";
    /// `config.json` or `generation_config.json` holds an impossible value.
    InvalidConfig = 205, "INVALID_CONFIG", "invalid config {what}: {why}";
    /// A tensor is missing, misshapen, overlapping or of a wrong dtype.
    InvalidCheckpoint = 206, "INVALID_CHECKPOINT", "invalid checkpoint: {what}: {why}";
    /// The tokenizer cannot be loaded or refuses an input.
    InvalidTokenizer = 207, "INVALID_TOKENIZER", "invalid tokenizer: {what}: {why}";
    /// The chat template does not parse, fails, or exceeds its limits.
    InvalidTemplate = 208, "INVALID_TEMPLATE", "invalid chat template: {what}: {why}";

    /// The graph is not well formed.
    InvalidNetwork = 300, "INVALID_NETWORK", "invalid network: {what}: {why}";
    /// A model family, operation, precision or option that this build does not have.
    Unsupported = 301, "UNSUPPORTED", "{what} is not supported: {why}";

    /// An allocation failed.
    OutOfMemory = 400, "OUT_OF_MEMORY", "out of memory for {what}: {why}";
    /// The caller's memory budget does not suffice; the needed figure is in `why`.
    BudgetExceeded = 401, "BUDGET_EXCEEDED", "memory budget exceeded by {what}: {why}";
    /// The request queue is full.
    QueueFull = 402, "QUEUE_FULL", "queue of {what} is full: {why}";
    /// A request can never fit this engine or executor.
    RequestTooLarge = 403, "REQUEST_TOO_LARGE", "request too large: {what}: {why}";
    /// The device, driver or library is not there.
    DeviceUnavailable = 404, "DEVICE_UNAVAILABLE", "device {what} is unavailable: {why}";
    /// A thread could not be started.
    ThreadFailed = 405, "THREAD_FAILED", "thread {what} could not be started: {why}";
    /// The device failed while it was computing; what ran on it is lost, and it is not used again.
    DeviceLost = 406, "DEVICE_LOST", "device {what} was lost: {why}";

    /// The caller cancelled the operation or request.
    Cancelled = 500, "CANCELLED", "{what} was cancelled: {why}";
    /// A request ran past its time limit.
    TimeLimit = 501, "TIME_LIMIT", "{what} ran past its time limit: {why}";
    /// A request's logits contained NaN or no finite value.
    Numeric = 502, "NUMERIC", "numeric failure in {what}: {why}";
    /// The executor is shutting down.
    ShuttingDown = 503, "SHUTTING_DOWN", "{what} is shutting down: {why}";

    /// A bug in the library; the object concerned is unusable.
    Internal = 600, "INTERNAL", "internal error in {what}: {why}";
    /// A panic was caught at the boundary.
    Panic = 601, "PANIC", "panic in {what}: {why}";
}

impl Error {
    /// An `InvalidArgument` for the argument `what`.
    pub fn argument(what: impl Into<String>, why: impl Into<String>) -> Self {
        Error::InvalidArgument { what: what.into(), why: why.into() }
    }

    /// An `Internal` error: a broken promise between two modules.
    pub fn internal(what: impl Into<String>, why: impl Into<String>) -> Self {
        Error::Internal { what: what.into(), why: why.into() }
    }

    /// An `OutOfMemory` for `bytes` that were wanted for `what`.
    pub fn out_of_memory(what: impl Into<String>, bytes: usize) -> Self {
        Error::OutOfMemory { what: what.into(), why: format!("{bytes} bytes were refused") }
    }

    /// An I/O error on `what`; a missing file becomes `NotFound`.
    pub fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        let (what, why) = (what.into(), error.to_string());
        match error.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound { what, why },
            _ => Error::Io { what, why },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_unique() {
        let codes: std::collections::HashSet<_> = Status::ALL.iter().map(|s| *s as i32).collect();
        let names: std::collections::HashSet<_> = Status::ALL.iter().map(|s| s.name()).collect();
        assert_eq!(codes.len(), Status::ALL.len());
        assert_eq!(names.len(), Status::ALL.len());
    }
}
