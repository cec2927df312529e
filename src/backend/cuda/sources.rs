//! The kernels' source text, which the library carries.

include!(concat!(env!("OUT_DIR"), "/kernel_sources.rs"));

/// The text of a file by its path below `kernels/`.
#[must_use]
pub fn source(path: &str) -> Option<&'static str> {
    SOURCES.binary_search_by_key(&path, |(name, _)| name).ok().map(|at| SOURCES[at].1)
}

/// Path and text of every header, ascending by path.
pub fn headers() -> impl Iterator<Item = (&'static str, &'static str)> {
    SOURCES.iter().copied().filter(|(path, _)| path.ends_with(".cuh"))
}

/// Paths of the sources that are compiled, ascending.
pub fn kernels() -> impl Iterator<Item = &'static str> {
    SOURCES.iter().map(|(path, _)| *path).filter(|path| path.ends_with(".cu"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_found_by_path() {
        assert!(SOURCES.is_sorted());
        assert!(source("common/types.cuh").unwrap().contains("half_t"));
        assert_eq!(source("common/none.cuh"), None);
        assert!(headers().any(|(path, _)| path == "common/ptx.cuh"));
        assert!(kernels().all(|path| source(path).is_some()));
    }
}
