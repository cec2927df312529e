//! The kernels' source text, which the library carries.

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// The text of a file by its path below `kernels/`.
pub(super) fn source(path: &str) -> Option<&'static str> {
    KERNELS.iter().find(|(name, _)| *name == path).map(|(_, text)| *text)
}

/// Path and text of every header, in an order that is always the same.
pub(super) fn headers() -> impl Iterator<Item = (&'static str, &'static str)> {
    KERNELS.iter().copied().filter(|(path, _)| path.ends_with(".cuh"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_found_by_path() {
        assert!(source("common/types.cuh").unwrap().contains("half_t"));
        assert_eq!(source("common/none.cuh"), None);
        assert!(headers().any(|(path, _)| path == "common/ptx.cuh"));
        assert!(headers().all(|(path, text)| source(path) == Some(text)));
    }
}
