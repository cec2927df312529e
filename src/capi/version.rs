//! Versions of the headers and of the library that is loaded. To refuse a library that does not fit, a program asks once:
//!
//!     trtllm_check_version(TRTLLM_VERSION_MAJOR, TRTLLM_VERSION_MINOR)

use std::ffi::c_char;

use super::panic::{boundary, boundary_or};
use super::status::trtllm_status;
use crate::error::Error;

/// Major version of this header.
pub const TRTLLM_VERSION_MAJOR: u32 = 0;
/// Minor version of this header.
pub const TRTLLM_VERSION_MINOR: u32 = 1;
/// Patch version of this header.
pub const TRTLLM_VERSION_PATCH: u32 = 0;
/// Version of this header as one number: major * 65536 + minor * 256 + patch.
pub const TRTLLM_VERSION_NUMBER: u32 = 256;

const STRING: &std::ffi::CStr =
    match std::ffi::CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(string) => string,
        Err(_) => panic!("a version has no NUL"),
    };

/// The version of the loaded library as `TRTLLM_VERSION_NUMBER` is composed.
///
/// Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_version() -> u32 {
    boundary_or(TRTLLM_VERSION_NUMBER, "trtllm_version", || TRTLLM_VERSION_NUMBER)
}

/// The version of the loaded library as text, e.g. `0.1.0`.
///
/// Ownership: returns a static string. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_version_string() -> *const c_char {
    boundary_or(STRING.as_ptr(), "trtllm_version_string", || STRING.as_ptr())
}

/// Whether a program compiled against headers of version `major.minor` may use the loaded library: the majors are equal
/// and the library's minor is not older. Before version 1.0 the minors must be equal.
///
/// Thread safety: safe. Fails with `TRTLLM_STATUS_UNSUPPORTED_VERSION`.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_check_version(major: u32, minor: u32) -> trtllm_status {
    boundary("trtllm_check_version", || {
        if fits((TRTLLM_VERSION_MAJOR, TRTLLM_VERSION_MINOR), (major, minor)) {
            return Ok(());
        }
        let why = format!("the library is {}, the program was compiled for {major}.{minor}", env!("CARGO_PKG_VERSION"));
        Err(Error::UnsupportedVersion { what: "libtrtllm".to_owned(), why })
    })
}

fn fits(library: (u32, u32), headers: (u32, u32)) -> bool {
    library.0 == headers.0 && if library.0 == 0 { library.1 == headers.1 } else { library.1 >= headers.1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_crate() {
        let parts = [TRTLLM_VERSION_MAJOR, TRTLLM_VERSION_MINOR, TRTLLM_VERSION_PATCH];
        assert_eq!(env!("CARGO_PKG_VERSION"), parts.map(|p| p.to_string()).join("."));
        assert_eq!(TRTLLM_VERSION_NUMBER, parts[0] << 16 | parts[1] << 8 | parts[2]);
        assert!(parts[1] < 256 && parts[2] < 256);
    }

    #[test]
    fn compatibility_follows_semantic_versions() {
        assert!(fits((0, 1), (0, 1)) && !fits((0, 2), (0, 1)) && !fits((0, 1), (0, 2)));
        assert!(fits((1, 3), (1, 2)) && !fits((1, 2), (1, 3)) && !fits((2, 0), (1, 0)));
    }
}
