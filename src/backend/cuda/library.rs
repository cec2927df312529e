//! A shared library opened at run time by name.

use std::ffi::{CStr, CString, OsStr, OsString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

/// Where toolkits put their libraries without telling the linker; the bare name is looked for before.
const FOLDERS: [&str; 3] = ["", "/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib"];
/// What a variable says in place of a path where the library is not wanted.
const HIDDEN: &str = "none";

/// An open library. It is never closed: CUDA's libraries keep threads and exit handlers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Library(NonNull<c_void>);

// SAFETY: a handle of the dynamic linker may be used from any thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Opens the library that the environment's `variable` names by its path (`none` hides it), or else the first that is
    /// found under one of its names. The error says what to do.
    pub(super) fn find(variable: &str, names: &[&str]) -> Result<Self, String> {
        Self::choose(variable, std::env::var_os(variable), names)
    }

    fn choose(variable: &str, named: Option<OsString>, names: &[&str]) -> Result<Self, String> {
        match named.filter(|path| !path.is_empty()) {
            Some(path) if path == HIDDEN => Err(format!("{variable} hides it")),
            Some(path) => Self::open(path).map_err(|why| format!("{variable} names no usable library: {why}")),
            None => {
                let paths =
                    || FOLDERS.iter().flat_map(|folder| names.iter().map(move |name| Path::new(folder).join(name)));
                paths().find_map(|path| Self::open(path).ok()).ok_or_else(|| {
                    format!("it was not found: install the CUDA toolkit or set {variable} to the library's path")
                })
            }
        }
    }

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

/// A struct of functions of a library, each with its symbol and type: `of` finds them all, or names one that is missing.
macro_rules! function_table {
    ($(#[$doc:meta])* $table:ident { $($name:ident = $symbol:literal ($($argument:ty),*) -> $result:ty;)* }) => {
        $(#[$doc])*
        struct $table { $($name: unsafe extern "C" fn($($argument),*) -> $result,)* }

        impl $table {
            fn of(library: Library) -> Result<Self, String> {
                Ok(Self { $($name: {
                    let address = library.symbol($symbol).ok_or_else(|| $symbol.to_string_lossy().into_owned())?;
                    // SAFETY: the library's headers give the symbol this type in every version that has the table's name.
                    unsafe {
                        std::mem::transmute::<std::ptr::NonNull<std::ffi::c_void>, unsafe extern "C" fn($($argument),*) -> $result>(address)
                    }
                },)* })
            }
        }
    };
}
pub(super) use function_table;

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
    fn a_variable_names_the_library_or_hides_it() {
        let choose = |named: Option<&str>, names: &[&str]| Library::choose("X", named.map(OsString::from), names);
        assert!(choose(None, &["libnothing.so", "libc.so.6"]).unwrap().symbol(c"strlen").is_some());
        assert!(choose(Some(""), &["libc.so.6"]).is_ok());
        assert!(choose(Some("libc.so.6"), &["libnothing.so"]).is_ok());
        assert_eq!(choose(Some("none"), &["libc.so.6"]).unwrap_err(), "X hides it");
        let why = choose(Some("libnothing.so"), &["libc.so.6"]).unwrap_err();
        assert!(why.contains("X names no usable library") && why.contains("libnothing.so"), "{why}");
        assert!(choose(None, &["libnothing.so"]).unwrap_err().contains("set X to the library's path"));
    }

    #[test]
    fn a_missing_library_is_named_by_the_linker() {
        assert!(Library::open("libnothing-of-that-name.so.1").unwrap_err().contains("libnothing-of-that-name"));
        assert!(Library::open("a\0b").unwrap_err().contains("NUL"));
    }
}
