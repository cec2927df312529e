//! Names of temporary files, and what becomes of those whose writer was killed.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// A hidden name in the same directory (a rename does not cross file systems), unique among concurrent builds.
pub(super) fn temporary_name(path: &Path) -> Result<PathBuf> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut name = prefix(path)
        .filter(|_| !path.is_dir())
        .ok_or_else(|| Error::argument(path.display().to_string(), "an engine path must name a file"))?;
    name.push(format!("{}-{}{SUFFIX}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    Ok(directory_of(path).join(name))
}

/// The directory that holds `path`.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Removes the temporary files for `path` that nobody holds locked. A lock, unlike a process id, also tells who lives
/// in another container or on another host.
pub(super) fn remove(path: &Path) {
    let (Some(prefix), Ok(entries)) = (prefix(path), std::fs::read_dir(directory_of(path))) else { return };
    for entry in entries.filter_map(std::result::Result::ok) {
        if is_temporary(entry.file_name().as_encoded_bytes(), prefix.as_encoded_bytes()) {
            remove_abandoned(&entry.path());
        }
    }
}

const SUFFIX: &str = ".tmp";

fn prefix(path: &Path) -> Option<OsString> {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name()?);
    prefix.push(".");
    Some(prefix)
}

/// Whether `name` is one that [`temporary_name`] gives: prefix, process id, `-`, number, suffix.
fn is_temporary(name: &[u8], prefix: &[u8]) -> bool {
    let middle = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
    let number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let mut parts = middle.unwrap_or_default().split(|byte| *byte == b'-');
    parts.next().is_some_and(number) && parts.next().is_some_and(number) && parts.next().is_none()
}

fn remove_abandoned(path: &Path) {
    let regular = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
    if regular && File::open(path).is_ok_and(|file| file.try_lock().is_ok()) {
        // The next build tries again.
        let _ = std::fs::remove_file(path);
    }
}
