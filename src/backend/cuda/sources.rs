//! The kernels' sources, embedded in the library.

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// The text of a source file of `kernels/`.
pub(super) fn source(path: &str) -> Option<&'static str> {
    KERNELS.iter().find(|(name, _)| *name == path).map(|(_, text)| *text)
}

/// Path and text of every header.
pub(super) fn headers() -> impl Iterator<Item = (&'static str, &'static str)> {
    KERNELS.iter().copied().filter(|(name, _)| name.ends_with(".cuh"))
}
