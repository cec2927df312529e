//! Compiled kernels on disk, from one process to the next. A cache that cannot be used is none; a damaged file is as
//! good as absent.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::Xxh3;

use super::cubins::CubinKey;

/// The user's folder for what the library can make again: `TRTLLM_CACHE`, else `trtllm` in `XDG_CACHE_HOME` or in
/// `~/.cache`. `None` when no variable says where. It may not exist.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    folder_by(|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
}

fn folder_by(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let base = || variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    variable("TRTLLM_CACHE").or_else(|| Some(base()?.join("trtllm")))
}

/// A folder of cubins. Each file is named by its key and begins with a checksum of key and content.
#[derive(Debug, Clone)]
pub struct CubinCache {
    folder: PathBuf,
}

impl CubinCache {
    /// A cache in this folder, which is made when the first cubin comes.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The user's cache.
    #[must_use]
    pub fn of_user() -> Option<Self> {
        Some(Self::new(cache_folder()?.join("cubins")))
    }

    pub(super) fn get(&self, key: CubinKey) -> Option<Vec<u8>> {
        let mut bytes = std::fs::read(self.path(key)).ok()?;
        let (sum, content) = bytes.split_first_chunk()?;
        if u128::from_le_bytes(*sum) != checksum(key, content) {
            return None;
        }
        bytes.drain(..size_of::<u128>());
        Some(bytes)
    }

    /// Keeps a cubin. Failing to is no error: it is compiled again then.
    pub(super) fn put(&self, key: CubinKey, cubin: &[u8]) {
        let mut content = checksum(key, cubin).to_le_bytes().to_vec();
        content.extend_from_slice(cubin);
        let _ = replace(&self.path(key), &content);
    }

    fn path(&self, key: CubinKey) -> PathBuf {
        self.folder.join(format!("{key}.cubin"))
    }
}

/// Writes a file of the cache. Readers find all of it or what was there before.
pub(super) fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let folder = path.parent().unwrap_or(Path::new("."));
    // Only its owner may write what others would run.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let temporary = folder.join(format!(".{}-{number}.tmp", std::process::id()));
    let written = std::fs::write(&temporary, content).and_then(|()| std::fs::rename(&temporary, path));
    written.inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}

/// The key is part of it, so that a file under another's name is not taken for it.
fn checksum(key: CubinKey, content: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&key.0.to_le_bytes());
    hash.update(content);
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: CubinKey = CubinKey(7);

    fn files(folder: &Path) -> Vec<PathBuf> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn a_cubin_comes_back_under_its_own_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CubinCache::new(folder.path().join("a/b"));
        assert_eq!(cache.get(KEY), None);
        cache.put(KEY, b"cubin");
        cache.put(KEY, b"cubin");
        assert_eq!(cache.get(KEY).unwrap(), b"cubin");
        assert_eq!(files(&cache.folder), [cache.path(KEY)]);
        std::fs::rename(cache.path(KEY), cache.path(CubinKey(8))).unwrap();
        assert_eq!((cache.get(KEY), cache.get(CubinKey(8))), (None, None));
    }

    #[test]
    fn damaged_files_are_absent_until_they_are_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CubinCache::new(folder.path().into());
        cache.put(KEY, b"a cubin");
        let whole = std::fs::read(cache.path(KEY)).unwrap();
        for length in 0..whole.len() {
            std::fs::write(cache.path(KEY), &whole[..length]).unwrap();
            assert_eq!(cache.get(KEY), None, "{length} bytes");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(cache.path(KEY), flipped).unwrap();
            assert_eq!(cache.get(KEY), None, "bit {bit}");
        }
        cache.put(KEY, b"a cubin");
        assert_eq!(cache.get(KEY).unwrap(), b"a cubin");
    }

    #[test]
    fn a_folder_that_cannot_be_is_no_cache() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let cache = CubinCache::new(file.path().join("below a file"));
        cache.put(KEY, b"cubin");
        assert_eq!(cache.get(KEY), None);
    }

    #[test]
    fn the_first_variable_that_is_set_tells_the_folder() {
        let folder = |set: &[(&str, &str)]| {
            folder_by(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value)))
        };
        assert_eq!(folder(&[]), None);
        assert_eq!(folder(&[("HOME", "/h")]), Some("/h/.cache/trtllm".into()));
        assert_eq!(folder(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Some("/x/trtllm".into()));
        let all = [("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("TRTLLM_CACHE", "/t")];
        assert_eq!(folder(&all), Some("/t".into()));
    }
}
