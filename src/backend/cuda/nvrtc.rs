//! NVIDIA's run-time compiler: kernel specifications to cubins. Needed to build engines, and to load one that holds no
//! cubins for the device.

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::driver::Arch;
use super::kernel::KernelSpec;
use super::library::{Library, file_of, function_table};
use super::sources;
use crate::error::{Error, Result};

/// Names the library by its full path; no other is tried then.
const VARIABLE: &str = "TRTLLM_NVRTC";
const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
/// The compiler recurses deeply on large kernels.
const STACK_BYTES: usize = 16 << 20;

const INVALID_OPTION: c_int = 5;

/// Version of the compiler, major and minor.
///
/// # Errors
/// `DeviceUnavailable` when there is none.
pub fn version() -> Result<(u32, u32)> {
    nvrtc()?.version()
}

/// The cubin of a specification of an embedded source.
///
/// # Errors
/// `DeviceUnavailable` when there is no compiler; `Unsupported` when it does not know the arch; `Internal` with the
/// compiler's log when it refuses the source.
pub fn compile(spec: &KernelSpec, arch: Arch) -> Result<Vec<u8>> {
    let text = sources::source(spec.source)
        .ok_or_else(|| Error::internal(spec.source, "the library carries no such kernel"))?;
    compile_text(text, spec, arch)
}

/// `work` on every item by so many threads; results in the items' order. The first error stops all.
pub(super) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let worker = || -> Result<Vec<(usize, R)>> {
        let mut done = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { break };
            done.push((at, work(item).inspect_err(|_| failed.store(true, Ordering::Relaxed))?));
        }
        Ok(done)
    };
    let mut results = std::thread::scope(|scope| -> Result<Vec<(usize, R)>> {
        let start = |_| {
            let thread = std::thread::Builder::new().name("trtllm-compile".into()).stack_size(STACK_BYTES);
            thread.spawn_scoped(scope, worker).map_err(|error| {
                failed.store(true, Ordering::Relaxed);
                Error::ThreadFailed { what: "trtllm-compile".into(), why: error.to_string() }
            })
        };
        let handles: Vec<_> = (0..threads.clamp(1, items.len().max(1))).map(start).collect::<Result<_>>()?;
        let mut results = Vec::with_capacity(items.len());
        for handle in handles {
            let done = handle.join().map_err(|_| Error::internal("kernel compilation", "its thread panicked"))?;
            results.extend(done?);
        }
        Ok(results)
    })?;
    results.sort_by_key(|(at, _)| *at);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// As [`compile`], for a text that the library does not carry.
pub(super) fn compile_text(text: &str, spec: &KernelSpec, arch: Arch) -> Result<Vec<u8>> {
    let nvrtc = nvrtc()?;
    let program = nvrtc.create(text, spec)?;
    let defines = spec.defines.iter().map(|(name, value)| match value.as_str() {
        "" => format!("-D{name}"),
        value => format!("-D{name}={value}"),
    });
    let options = [format!("--gpu-architecture={arch}"), "--std=c++17".into()].into_iter().chain(defines);
    let options = options.map(c_string).collect::<Result<Vec<_>>>()?;
    match program.compile(&options) {
        0 => program.cubin(),
        INVALID_OPTION => {
            let (major, minor) = nvrtc.version()?;
            let why = format!("NVRTC {major}.{minor} does not compile for {arch}: {}", program.log());
            Err(Error::Unsupported { what: spec.describe(arch), why })
        }
        code => Err(Error::internal(spec.describe(arch), format!("{}\n{}", nvrtc.name_of(code), program.log()))),
    }
}

type Handle = *mut c_void;

function_table! {
    /// The functions that are used. Their types are as here since NVRTC 11.1.
    Nvrtc {
        get_version = c"nvrtcVersion"(*mut c_int, *mut c_int) -> c_int;
        get_error_string = c"nvrtcGetErrorString"(c_int) -> *const c_char;
        create_program = c"nvrtcCreateProgram"(*mut Handle, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> c_int;
        destroy_program = c"nvrtcDestroyProgram"(*mut Handle) -> c_int;
        compile_program = c"nvrtcCompileProgram"(Handle, c_int, *const *const c_char) -> c_int;
        get_log_size = c"nvrtcGetProgramLogSize"(Handle, *mut usize) -> c_int;
        get_log = c"nvrtcGetProgramLog"(Handle, *mut c_char) -> c_int;
        get_cubin_size = c"nvrtcGetCUBINSize"(Handle, *mut usize) -> c_int;
        get_cubin = c"nvrtcGetCUBIN"(Handle, *mut c_char) -> c_int;
    }
}

/// The compiler, opened at the first use. Only success is remembered.
fn nvrtc() -> Result<&'static Nvrtc> {
    static NVRTC: OnceLock<Nvrtc> = OnceLock::new();
    if let Some(nvrtc) = NVRTC.get() {
        return Ok(nvrtc);
    }
    let opened = open()?;
    Ok(NVRTC.get_or_init(|| opened))
}

fn open() -> Result<Nvrtc> {
    let library = Library::find(VARIABLE, &NAMES).map_err(missing)?;
    if let Some(file) = library.symbol(c"nvrtcVersion").and_then(file_of) {
        open_builtins(&file);
    }
    Nvrtc::of(library).map_err(|name| missing(format!("it is too old, as it lacks {name}")))
}

fn missing(why: String) -> Error {
    Error::DeviceUnavailable { what: "compiler libnvrtc".into(), why }
}

/// Opens the builtins beside the library: it looks for them by bare name when it compiles, and finds them open.
fn open_builtins(library: &Path) {
    let real = library.canonicalize().unwrap_or_default();
    for folder in [library, &real].into_iter().filter_map(Path::parent) {
        for builtins in builtins_in(folder) {
            // One that does not open is missed by the compiler, which says so.
            let _ = Library::open(builtins);
        }
    }
}

fn builtins_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let is_builtins = |path: &PathBuf| {
        path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("libnvrtc-builtins.so"))
    };
    entries.flatten().map(|entry| entry.path()).filter(is_builtins).collect()
}

impl Nvrtc {
    fn version(&self) -> Result<(u32, u32)> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both are valid places.
        let code = unsafe { (self.get_version)(&raw mut major, &raw mut minor) };
        self.check(code, "nvrtcVersion")?;
        Ok((u32::try_from(major).unwrap_or(0), u32::try_from(minor).unwrap_or(0)))
    }

    fn name_of(&self, code: c_int) -> String {
        // SAFETY: it gives a static string for every code.
        let name = unsafe { (self.get_error_string)(code) };
        if name.is_null() {
            return format!("NVRTC error {code}");
        }
        // SAFETY: as above.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }

    fn check(&self, code: c_int, call: &str) -> Result<()> {
        if code == 0 { Ok(()) } else { Err(Error::internal(call, self.name_of(code))) }
    }

    /// A program of `text` that may include every embedded header.
    fn create(&self, text: &str, spec: &KernelSpec) -> Result<Program<'_>> {
        let (text, name) = (c_string(text)?, c_string(spec.source)?);
        let (names, texts): (Vec<_>, Vec<_>) = sources::headers().unzip();
        let names = names.into_iter().map(c_string).collect::<Result<Vec<_>>>()?;
        let texts = texts.into_iter().map(c_string).collect::<Result<Vec<_>>>()?;
        let (names_at, texts_at) = (pointers(&names), pointers(&texts));
        let mut handle = null_mut();
        // SAFETY: all strings are NUL-terminated and live during the call, which copies them.
        let code = unsafe {
            let count = names_at.len() as c_int;
            let (texts, names) = (texts_at.as_ptr(), names_at.as_ptr());
            (self.create_program)(&raw mut handle, text.as_ptr(), name.as_ptr(), count, texts, names)
        };
        self.check(code, "nvrtcCreateProgram")?;
        Ok(Program { nvrtc: self, handle })
    }
}

fn c_string(text: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(text).map_err(|_| Error::internal("kernel source", "it holds a NUL"))
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).collect()
}

/// One compilation.
struct Program<'n> {
    nvrtc: &'n Nvrtc,
    handle: Handle,
}

impl Program<'_> {
    fn compile(&self, options: &[CString]) -> c_int {
        let options = pointers(options);
        // SAFETY: the program is live and the options are NUL-terminated strings.
        unsafe { (self.nvrtc.compile_program)(self.handle, options.len() as c_int, options.as_ptr()) }
    }

    fn cubin(&self) -> Result<Vec<u8>> {
        self.content(self.nvrtc.get_cubin_size, self.nvrtc.get_cubin, "nvrtcGetCUBIN")
    }

    /// What the compiler said, or nothing.
    fn log(&self) -> String {
        let log = self.content(self.nvrtc.get_log_size, self.nvrtc.get_log, "nvrtcGetProgramLog").unwrap_or_default();
        String::from_utf8_lossy(&log).trim_end_matches('\0').trim().into()
    }

    fn content(
        &self,
        size: unsafe extern "C" fn(Handle, *mut usize) -> c_int,
        get: unsafe extern "C" fn(Handle, *mut c_char) -> c_int,
        call: &str,
    ) -> Result<Vec<u8>> {
        let mut bytes = 0;
        // SAFETY: the program is live.
        self.nvrtc.check(unsafe { size(self.handle, &raw mut bytes) }, call)?;
        let mut content = vec![0_u8; bytes];
        // SAFETY: the buffer has the size that was asked for.
        self.nvrtc.check(unsafe { get(self.handle, content.as_mut_ptr().cast()) }, call)?;
        Ok(content)
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        unsafe { (self.nvrtc.destroy_program)(&raw mut self.handle) };
    }
}

/// Tests that need a compiler ask here whether there is one.
#[cfg(test)]
pub(super) fn is_here() -> bool {
    match nvrtc() {
        Ok(_) => true,
        Err(error) => {
            println!("skipped: {error}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;

    const HOPPER: Arch = Arch { major: 9, minor: 0 };
    const SPEC: KernelSpec = KernelSpec { source: "test.cu", entry: "scale", defines: Vec::new() };
    const ARCHS: [&str; 6] = ["80", "87", "89", "90a", "100a", "120a"];
    const TEXT: &str = r#"
        #include "common/ptx.cuh"
        extern "C" __global__ void scale(float *x) { pdl_wait(); x[threadIdx.x] *= FACTOR; }
    "#;

    #[test]
    fn a_kernel_with_headers_and_macros_becomes_a_cubin_for_each_arch() {
        if !is_here() {
            return;
        }
        assert!(version().unwrap() >= (12, 0));
        let spec = SPEC.define("FACTOR", 3).define("ELEMENT_F16", "");
        for arch in ARCHS {
            let cubin = compile_text(TEXT, &spec, arch.parse().unwrap()).unwrap();
            assert_eq!(&cubin[..4], b"\x7fELF", "{arch}");
        }
    }

    #[test]
    fn common_headers_compile_alone_for_each_arch() {
        if !is_here() {
            return;
        }
        for arch in ARCHS {
            for (header, _) in sources::headers().filter(|(header, _)| header.starts_with("common/")) {
                let text = format!("#include \"{header}\"\nextern \"C\" __global__ void scale() {{}}");
                compile_text(&text, &SPEC, arch.parse().unwrap()).unwrap_or_else(|error| panic!("{header}: {error}"));
            }
        }
    }

    #[test]
    fn a_refused_source_comes_with_the_compilers_words() {
        if !is_here() {
            return;
        }
        let error = compile_text(TEXT, &SPEC.define("OTHER", 1), HOPPER).unwrap_err();
        assert_eq!(error.status(), Status::Internal);
        let text = error.to_string();
        assert!(text.contains("test.cu OTHER=1 for sm_90a") && text.contains("FACTOR"), "{text}");
    }

    #[test]
    fn an_arch_that_the_compiler_does_not_know_is_unsupported() {
        if !is_here() {
            return;
        }
        let error = compile_text(TEXT, &SPEC.define("FACTOR", 1), Arch { major: 12, minor: 9 }).unwrap_err();
        assert_eq!(error.status(), Status::Unsupported);
        assert!(error.to_string().contains("sm_129a"), "{error}");
    }

    #[test]
    fn a_source_that_is_not_embedded_is_an_error() {
        assert_eq!(compile(&SPEC, HOPPER).unwrap_err().status(), Status::Internal);
    }

    #[test]
    fn parallel_work_keeps_the_order_and_stops_at_an_error() {
        let items: Vec<usize> = (0..100).collect();
        let doubled = in_parallel(&items, 7, |item| Ok(item * 2)).unwrap();
        assert_eq!(doubled, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        let fail = |item: &usize| if *item == 5 { Err(Error::internal("five", "x")) } else { Ok(*item) };
        assert_eq!(in_parallel(&items, 3, fail).unwrap_err(), Error::internal("five", "x"));
        assert!(in_parallel(&[0_usize; 0], 3, fail).unwrap().is_empty());
    }
}
