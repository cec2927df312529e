//! Where a kernel's machine code comes from: the engine, the disk cache, the compiler.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::driver::Arch;
use super::kernel::KernelSpec;
use super::{nvrtc, sources};
use crate::error::{Error, Result};

/// Names a kernel for an arch: a hash of its source, every header, its macros and the arch.
#[must_use]
pub fn key(spec: &KernelSpec, arch: Arch) -> u128 {
    let mut hash = Xxh3::new();
    let mut add = |text: &str| {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    add(sources::source(spec.source).unwrap_or_default());
    for (name, text) in sources::headers() {
        add(name);
        add(text);
    }
    for (name, value) in &spec.defines {
        add(name);
        add(value);
    }
    add(&arch.to_string());
    hash.digest128()
}

/// Stored code and the policy for the rest.
#[derive(Default)]
pub struct CubinStore {
    stored: HashMap<u128, Arc<[u8]>>,
    /// Archs of the stored code, for messages.
    archs: Vec<Arch>,
}

impl CubinStore {
    /// A store with the code in an engine's section.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn new(section: &[u8]) -> Result<Self> {
        let corrupt = || Error::Corrupt { what: "kernels".into(), why: "the section ends inside an entry".into() };
        let mut store = Self::default();
        for (key, arch, cubin) in unpack_cubins(section).ok_or_else(corrupt)? {
            if !store.archs.contains(&arch) {
                store.archs.push(arch);
            }
            store.stored.insert(key, cubin.into());
        }
        Ok(store)
    }

    /// The code of a kernel.
    ///
    /// # Errors
    /// `DeviceUnavailable` naming this arch and those of the stored code when there is no compiler; what it says of a kernel.
    pub fn get(&self, spec: &KernelSpec, arch: Arch) -> Result<Arc<[u8]>> {
        let key = key(spec, arch);
        if let Some(cubin) = self.stored.get(&key) {
            return Ok(Arc::clone(cubin));
        }
        compile_cached(spec, arch, key).map(Arc::from).map_err(|error| self.explain(error, arch))
    }

    fn explain(&self, error: Error, arch: Arch) -> Error {
        match error {
            Error::DeviceUnavailable { what, why } => {
                let archs = self.archs.iter().map(Arch::to_string).collect::<Vec<_>>().join(", ");
                let has = if archs.is_empty() { "no compiled kernels".into() } else { format!("kernels for {archs}") };
                Error::DeviceUnavailable { what, why: format!("the engine has {has}, the device is {arch}; {why}") }
            }
            other => other,
        }
    }
}

/// Compiled kernels as the bytes of an engine's section: for each its key, arch, length and code.
#[must_use]
pub fn pack_cubins(cubins: &[(u128, Arch, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, arch, cubin) in cubins {
        bytes.extend_from_slice(&key.to_le_bytes());
        bytes.extend_from_slice(&u64::from(arch.number()).to_le_bytes());
        bytes.extend_from_slice(&(cubin.len() as u64).to_le_bytes());
        bytes.extend_from_slice(cubin);
    }
    bytes
}

/// What [`pack_cubins`] made of them.
fn unpack_cubins(mut bytes: &[u8]) -> Option<Vec<(u128, Arch, Vec<u8>)>> {
    let mut cubins = Vec::new();
    while !bytes.is_empty() {
        let (key, rest) = bytes.split_first_chunk::<16>()?;
        let (arch, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|length| *length <= rest.len())?;
        let number = u32::try_from(u64::from_le_bytes(*arch)).ok()?;
        let (cubin, rest) = rest.split_at(length);
        let arch = Arch { major: number / 10, minor: number % 10 };
        cubins.push((u128::from_le_bytes(*key), arch, cubin.to_vec()));
        bytes = rest;
    }
    Some(cubins)
}

/// Compiles every kernel on `threads` threads, using the disk cache.
///
/// # Errors
/// The first that a compilation gave.
pub fn compile_all(specs: &[KernelSpec], arch: Arch, threads: usize) -> Result<Vec<(u128, Vec<u8>)>> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, u128, Vec<u8>)>> {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some(spec) = specs.get(index) else { return Ok(done) };
            let key = key(spec, arch);
            done.push((index, key, compile_cached(spec, arch, key)?));
        }
    };
    let mut all = std::thread::scope(|scope| {
        let start = |_| {
            std::thread::Builder::new()
                .name("trtllm-nvrtc".into())
                .spawn_scoped(scope, work)
                .map_err(|error| Error::ThreadFailed { what: "trtllm-nvrtc".into(), why: error.to_string() })
        };
        let threads = (0..threads.max(1)).map(start).collect::<Vec<_>>();
        let mut all = Vec::new();
        for thread in threads {
            let done = thread?
                .join()
                .map_err(|_| Error::Panic { what: "trtllm-nvrtc".into(), why: "compiling panicked".into() })?;
            all.extend(done?);
        }
        Ok::<_, Error>(all)
    })?;
    all.sort_unstable_by_key(|(index, ..)| *index);
    Ok(all.into_iter().map(|(_, key, cubin)| (key, cubin)).collect())
}

fn compile_cached(spec: &KernelSpec, arch: Arch, key: u128) -> Result<Vec<u8>> {
    let (major, minor) = nvrtc::version()?;
    let place = folder().map(|folder| folder.join(format!("{key:032x}-{major}.{minor}.cubin")));
    if let Some(cubin) = place.as_ref().and_then(|place| fs::read(place).ok()).and_then(unseal) {
        return Ok(cubin);
    }
    let cubin = nvrtc::compile(spec, arch)?;
    if let Some(place) = place {
        // A cache that cannot be written is no cache.
        let _ = keep(&place, &cubin);
    }
    Ok(cubin)
}

fn keep(place: &std::path::Path, cubin: &[u8]) -> std::io::Result<()> {
    let folder = place.parent().unwrap_or(place);
    fs::create_dir_all(folder)?;
    let temporary = place.with_extension(format!("{}-{:?}", std::process::id(), std::thread::current().id()));
    let mut sealed = xxh3_64(cubin).to_le_bytes().to_vec();
    sealed.extend_from_slice(cubin);
    fs::write(&temporary, sealed)?;
    fs::rename(&temporary, place)
}

/// The content of a cached file whose checksum is right.
fn unseal(sealed: Vec<u8>) -> Option<Vec<u8>> {
    let (sum, cubin) = sealed.split_first_chunk::<8>()?;
    (u64::from_le_bytes(*sum) == xxh3_64(cubin)).then(|| cubin.to_vec())
}

fn folder() -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    of("TRTLLM_CACHE")
        .or_else(|| of("XDG_CACHE_HOME").map(|cache| cache.join("trtllm")))
        .or_else(|| of("HOME").map(|home| home.join(".cache/trtllm")))
        .map(|folder| folder.join("cubins"))
}
