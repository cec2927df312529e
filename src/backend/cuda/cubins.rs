//! Where a kernel's cubin comes from: the engine that stored it, the cache on disk, or the compiler.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::OnceLock;

use xxhash_rust::xxh3::Xxh3;

use super::cache::CubinCache;
use super::driver::Arch;
use super::kernel::KernelSpec;
use super::stored::StoredCubins;
use super::{nvrtc, sources};
use crate::error::{Error, Result};

/// What a cubin is made from: source, all headers, macros and arch, but not the compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CubinKey(pub u128);

impl CubinKey {
    /// # Errors
    /// `Internal` when the library carries no such source.
    pub fn new(spec: &KernelSpec, arch: Arch) -> Result<Self> {
        let text = sources::source(spec.source)
            .ok_or_else(|| Error::internal(spec.source, "the library carries no such kernel"))?;
        let mut hash = Xxh3::new();
        hash.update(&headers_digest().to_le_bytes());
        for part in [spec.source, spec.entry, text, &arch.to_string()] {
            add(&mut hash, part);
        }
        for (name, value) in &spec.defines {
            add(&mut hash, name);
            add(&mut hash, value);
        }
        Ok(Self(hash.digest128()))
    }

    /// The key of what this compiler makes of it.
    fn compiled_by(self, (major, minor): (u32, u32)) -> Self {
        let mut hash = Xxh3::new();
        hash.update(&self.0.to_le_bytes());
        hash.update(&major.to_le_bytes());
        hash.update(&minor.to_le_bytes());
        Self(hash.digest128())
    }
}

impl fmt::Display for CubinKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The length goes first, so that no two lists of parts look alike.
fn add(hash: &mut Xxh3, part: &str) {
    hash.update(&(part.len() as u64).to_le_bytes());
    hash.update(part.as_bytes());
}

fn headers_digest() -> u128 {
    static DIGEST: OnceLock<u128> = OnceLock::new();
    *DIGEST.get_or_init(|| {
        let mut hash = Xxh3::new();
        for (path, text) in sources::headers() {
            add(&mut hash, path);
            add(&mut hash, text);
        }
        hash.digest128()
    })
}

/// What makes cubins.
pub trait Compiler: Send + Sync {
    /// As [`nvrtc::version`].
    fn version(&self) -> Result<(u32, u32)>;
    /// As [`nvrtc::compile`].
    fn compile(&self, spec: &KernelSpec, arch: Arch) -> Result<Vec<u8>>;
}

/// NVRTC, as this machine has it.
#[derive(Debug, Clone, Copy)]
pub struct RuntimeCompiler;

impl Compiler for RuntimeCompiler {
    fn version(&self) -> Result<(u32, u32)> {
        nvrtc::version()
    }

    fn compile(&self, spec: &KernelSpec, arch: Arch) -> Result<Vec<u8>> {
        nvrtc::compile(spec, arch)
    }
}

impl<C: Compiler + ?Sized> Compiler for Arc<C> {
    fn version(&self) -> Result<(u32, u32)> {
        (**self).version()
    }

    fn compile(&self, spec: &KernelSpec, arch: Arch) -> Result<Vec<u8>> {
        (**self).compile(spec, arch)
    }
}

/// Whether machine code that came with an engine may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredPolicy {
    Use,
    /// Only what is compiled here from the library's own sources runs.
    Refuse,
}

/// Gives cubins, from the cheapest place that has them.
pub struct CubinStore<C = RuntimeCompiler> {
    stored: StoredCubins,
    policy: StoredPolicy,
    cache: Option<CubinCache>,
    compiler: C,
}

impl CubinStore {
    /// A store of nothing but the user's cache and the compiler, as builders need it.
    #[must_use]
    pub fn compiling() -> Self {
        Self::new(StoredCubins::default(), StoredPolicy::Refuse, CubinCache::of_user())
    }

    /// A store of an engine's cubins (none: [`StoredCubins::default`]), with a cache or without.
    #[must_use]
    pub fn new(stored: StoredCubins, policy: StoredPolicy, cache: Option<CubinCache>) -> Self {
        Self::with_compiler(stored, policy, cache, RuntimeCompiler)
    }
}

impl<C: Compiler> CubinStore<C> {
    /// The same with another compiler.
    pub fn with_compiler(
        stored: StoredCubins,
        policy: StoredPolicy,
        cache: Option<CubinCache>,
        compiler: C,
    ) -> CubinStore<C> {
        Self { stored, policy, cache, compiler }
    }

    /// The cubin of a specification. Calls from several threads compile in parallel.
    ///
    /// # Errors
    /// `DeviceUnavailable` when it has to be compiled and there is no compiler: naming the arch asked for and those that
    /// the engine has. Else as [`nvrtc::compile`].
    pub fn get(&self, spec: &KernelSpec, arch: Arch) -> Result<Arc<[u8]>> {
        let key = CubinKey::new(spec, arch)?;
        if let Some(cubin) = self.stored(key) {
            return Ok(cubin);
        }
        let version = self.compiler.version().map_err(|error| self.without_compiler(error, spec, arch))?;
        let key = key.compiled_by(version);
        if let Some(cubin) = self.cache.as_ref().and_then(|cache| cache.get(key)) {
            return Ok(cubin.into());
        }
        let cubin = self.compiler.compile(spec, arch)?;
        if let Some(cache) = &self.cache {
            cache.put(key, &cubin);
        }
        Ok(cubin.into())
    }

    /// The cubins of all specifications, in their order, by so many threads.
    ///
    /// # Errors
    /// As [`CubinStore::get`], the first one met; `ThreadFailed`.
    pub fn get_all(&self, specs: &[KernelSpec], arch: Arch, threads: usize) -> Result<Vec<Arc<[u8]>>> {
        nvrtc::in_parallel(specs, threads, |spec| self.get(spec, arch))
    }

    /// The same; `report` hears of the part that is done, a handful of kernels apart, and ends it by an error.
    ///
    /// # Errors
    /// As [`CubinStore::get_all`]; what `report` says.
    pub fn get_all_reporting(
        &self,
        specs: &[KernelSpec],
        arch: Arch,
        threads: usize,
        report: &mut dyn FnMut(f32) -> Result<()>,
    ) -> Result<Vec<Arc<[u8]>>> {
        let mut cubins = Vec::with_capacity(specs.len());
        for part in specs.chunks(4 * threads.max(1)) {
            report(cubins.len() as f32 / specs.len() as f32)?;
            cubins.extend(self.get_all(part, arch, threads)?);
        }
        Ok(cubins)
    }

    /// Bytes of a specification's cubin if it need not be compiled.
    ///
    /// # Errors
    /// As [`CubinKey::new`].
    pub fn stored_bytes(&self, spec: &KernelSpec, arch: Arch) -> Result<Option<usize>> {
        Ok(self.stored(CubinKey::new(spec, arch)?).map(|cubin| cubin.len()))
    }

    fn stored(&self, key: CubinKey) -> Option<Arc<[u8]>> {
        match self.policy {
            StoredPolicy::Use => self.stored.get(key),
            StoredPolicy::Refuse => None,
        }
    }

    fn without_compiler(&self, error: Error, spec: &KernelSpec, arch: Arch) -> Error {
        let Error::DeviceUnavailable { what, mut why } = error else { return error };
        let _ = write!(why, "; it is needed to compile {}", spec.describe(arch));
        let archs: Vec<_> = self.stored.archs().iter().map(Arch::to_string).collect();
        let _ = match (archs.is_empty(), self.policy) {
            (true, _) => Ok(()),
            (false, StoredPolicy::Use) if self.stored.archs().contains(&arch) => {
                write!(why, ", as the engine's kernels are those of another version of this library")
            }
            (false, StoredPolicy::Use) => write!(why, ", as the engine has kernels for {}", archs.join(", ")),
            (false, StoredPolicy::Refuse) => {
                write!(why, ", as the engine's kernels for {} are refused", archs.join(", "))
            }
        };
        Error::DeviceUnavailable { what, why }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeCompiler;
    use super::*;
    use crate::error::Status;

    const ARCH: Arch = Arch { major: 9, minor: 0 };

    fn spec() -> KernelSpec {
        KernelSpec::new("common/types.cuh", "none")
    }

    fn store(
        version: Option<(u32, u32)>,
        stored: StoredCubins,
        policy: StoredPolicy,
        folder: &tempfile::TempDir,
    ) -> CubinStore<Arc<FakeCompiler>> {
        let cache = CubinCache::new(folder.path().join("cache"));
        CubinStore::with_compiler(stored, policy, Some(cache), FakeCompiler::new(version))
    }

    fn stored(arch: Arch) -> StoredCubins {
        let bytes = super::super::stored::pack(&[(spec(), arch, (*b"stored").into())], (13, 0)).unwrap();
        super::super::stored::unpack(&bytes).unwrap()
    }

    #[test]
    fn keys_differ_with_everything_a_cubin_is_made_from() {
        let specs = [
            spec(),
            KernelSpec::new("common/ptx.cuh", "none"),
            KernelSpec::new("common/types.cuh", "other"),
            spec().define("N", 1),
            spec().define("N", 12),
            spec().define("N1", 2),
            spec().define("N", 1).define("M", ""),
            spec().define("M", "").define("N", 1),
        ];
        let mut keys: Vec<_> = specs.iter().map(|spec| CubinKey::new(spec, ARCH).unwrap()).collect();
        keys.push(CubinKey::new(&spec(), Arch { major: 8, minor: 0 }).unwrap());
        keys.push(keys[0].compiled_by((13, 0)));
        keys.push(keys[0].compiled_by((13, 1)));
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(keys[0], CubinKey::new(&spec(), ARCH).unwrap());
        assert_eq!(keys[0].to_string().len(), 32);
    }

    #[test]
    fn stored_cubins_come_first_unless_refused() {
        let folder = tempfile::tempdir().unwrap();
        let uses = store(None, stored(ARCH), StoredPolicy::Use, &folder);
        assert_eq!(&*uses.get(&spec(), ARCH).unwrap(), b"stored");
        assert_eq!(uses.stored_bytes(&spec(), ARCH), Ok(Some(6)));
        let refuses = store(Some((13, 0)), stored(ARCH), StoredPolicy::Refuse, &folder);
        assert_eq!(&*refuses.get(&spec(), ARCH).unwrap(), spec().describe(ARCH).as_bytes());
        assert_eq!(refuses.stored_bytes(&spec(), ARCH), Ok(None));
        assert_eq!(refuses.compiler.compiled(), 1);
    }

    #[test]
    fn what_was_compiled_once_comes_from_the_cache_of_that_compiler() {
        let folder = tempfile::tempdir().unwrap();
        let compiled = |version| {
            let store = store(Some(version), StoredCubins::default(), StoredPolicy::Use, &folder);
            let cubin = store.get(&spec(), ARCH).unwrap();
            assert_eq!(&*cubin, spec().describe(ARCH).as_bytes());
            store.compiler.compiled()
        };
        assert_eq!([compiled((13, 0)), compiled((13, 0)), compiled((13, 1)), compiled((13, 1))], [1, 0, 1, 0]);
    }

    #[test]
    fn all_are_given_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(Some((13, 0)), StoredCubins::default(), StoredPolicy::Use, &folder);
        let specs: Vec<_> = (0..20).map(|n| spec().define("N", n)).collect();
        let cubins = store.get_all(&specs, ARCH, 4).unwrap();
        for (spec, cubin) in specs.iter().zip(&cubins) {
            assert_eq!(&**cubin, spec.describe(ARCH).as_bytes());
        }
    }

    #[test]
    fn without_a_compiler_both_archs_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = Arch { major: 10, minor: 0 };
        for (policy, words) in [(StoredPolicy::Use, "has kernels for sm_90a"), (StoredPolicy::Refuse, "refused")] {
            let error = store(None, stored(ARCH), policy, &folder).get(&spec(), wanted).unwrap_err();
            assert_eq!(error.status(), Status::DeviceUnavailable);
            let text = error.to_string();
            assert!(text.contains("sm_100a") && text.contains("sm_90a") && text.contains(words), "{text}");
        }
    }

    #[test]
    fn an_unknown_source_has_no_key() {
        let error = CubinKey::new(&KernelSpec::new("none.cu", "none"), ARCH).unwrap_err();
        assert_eq!(error.status(), Status::Internal);
    }
}
