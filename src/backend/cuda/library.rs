//! A shared library opened at run time by name.

use std::ffi::{CStr, CString, OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::NonNull;

/// An open library. It is never closed: CUDA's libraries keep threads and exit handlers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Library(NonNull<c_void>);

// SAFETY: a handle of the dynamic linker may be used from any thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Opens by path, or by the linker's search for a bare name; the error is the linker's own.
    pub(super) fn open(name: impl AsRef<OsStr>) -> Result<Self, String> {
        let name = CString::new(name.as_ref().as_bytes()).map_err(|_| "the name holds a NUL".to_string())?;
        // SAFETY: `name` is NUL-terminated. The libraries opened here are CUDA's, whose initialisers ask nothing of us.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        NonNull::new(handle).map(Self).ok_or_else(last_error)
    }

    /// The address of a symbol.
    pub(super) fn symbol(self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: the handle is open and `name` NUL-terminated.
        NonNull::new(unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) })
    }
}

/// The file that the code or data at `symbol` was loaded from.
pub(super) fn file_of(symbol: NonNull<c_void>) -> Option<PathBuf> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr fills `info` when it returns non-zero; all zeros are a valid `Dl_info` besides.
    let info = unsafe { (libc::dladdr(symbol.as_ptr(), info.as_mut_ptr()) != 0).then(|| info.assume_init())? };
    // SAFETY: a non-NULL `dli_fname` is a NUL-terminated string that lives as long as the library, which is never closed.
    let name = (!info.dli_fname.is_null()).then(|| unsafe { CStr::from_ptr(info.dli_fname) })?;
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

fn last_error() -> String {
    // SAFETY: dlerror gives NULL or a NUL-terminated string that is valid until this thread's next dl call.
    let text = unsafe {
        let text = libc::dlerror();
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    text.unwrap_or_else(|| "the dynamic linker gave no reason".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_found_and_know_their_file() {
        let library = Library::open("libc.so.6").unwrap();
        let symbol = library.symbol(c"strlen").unwrap();
        assert!(file_of(symbol).unwrap().to_string_lossy().contains("libc"));
        assert!(library.symbol(c"no_such_function_here").is_none());
    }

    #[test]
    fn a_missing_library_is_named_by_the_linker() {
        assert!(Library::open("libnothing-of-that-name.so.1").unwrap_err().contains("libnothing-of-that-name"));
        assert!(Library::open("a\0b").unwrap_err().contains("NUL"));
    }
}
