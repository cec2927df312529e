//! NVRTC, NVIDIA's run-time compiler, opened when it is first needed.

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::driver::Arch;
use super::kernel::KernelSpec;
use super::sources;
use crate::error::{Error, Result};

/// Names the library when it is not at its usual places.
const VARIABLE: &str = "TRTLLM_NVRTC";
const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
const FOLDERS: [&str; 2] = ["/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib"];

type Program = *mut c_void;

/// The functions in use; each returns 0 when all went well.
struct Nvrtc {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    _libraries: Vec<Library>,
}

/// Major and minor version of the compiler.
///
/// # Errors
/// `DeviceUnavailable` when there is none.
pub fn version() -> Result<(u32, u32)> {
    let nvrtc = nvrtc()?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: places for both numbers.
    match unsafe { (nvrtc.version)(&raw mut major, &raw mut minor) } {
        0 => Ok((major as u32, minor as u32)),
        code => Err(Error::internal("nvrtcVersion", format!("result {code}"))),
    }
}

/// Compiles a kernel to a cubin.
///
/// # Errors
/// `DeviceUnavailable` when there is no compiler; `Internal` with its log when it refuses the kernel.
pub fn compile(spec: &KernelSpec, arch: Arch) -> Result<Vec<u8>> {
    let nvrtc = nvrtc()?;
    let text = sources::source(spec.source).ok_or_else(|| Error::internal(spec.source, "there is no such kernel"))?;
    let string = |text: &str| CString::new(text).map_err(|_| Error::internal(spec.source, "a NUL in its text"));
    let (text, name) = (string(text)?, string(spec.source)?);
    let headers =
        sources::headers().map(|(name, text)| Ok((string(name)?, string(text)?))).collect::<Result<Vec<_>>>()?;
    let names = headers.iter().map(|(name, _)| name.as_ptr()).collect::<Vec<_>>();
    let texts = headers.iter().map(|(_, text)| text.as_ptr()).collect::<Vec<_>>();
    let mut program = ptr::null_mut();
    // SAFETY: strings that live through the call, as many as is said.
    let code = unsafe {
        let count = headers.len() as c_int;
        (nvrtc.create)(&raw mut program, text.as_ptr(), name.as_ptr(), count, texts.as_ptr(), names.as_ptr())
    };
    if code != 0 {
        return Err(Error::internal("nvrtcCreateProgram", format!("result {code}")));
    }
    let compiled = nvrtc.build(program, spec, arch);
    // SAFETY: created above.
    let _ = unsafe { (nvrtc.destroy)(&raw mut program) };
    compiled
}

impl Nvrtc {
    fn build(&self, program: Program, spec: &KernelSpec, arch: Arch) -> Result<Vec<u8>> {
        let mut options = vec![format!("--gpu-architecture={arch}"), "--std=c++17".into()];
        options.extend(spec.defines.iter().map(|(name, value)| match value.as_str() {
            "" => format!("-D{name}"),
            value => format!("-D{name}={value}"),
        }));
        let options = options.into_iter().filter_map(|option| CString::new(option).ok()).collect::<Vec<_>>();
        let pointers = options.iter().map(|option| option.as_ptr()).collect::<Vec<_>>();
        // SAFETY: strings that live through the call.
        match unsafe { (self.compile)(program, pointers.len() as c_int, pointers.as_ptr()) } {
            // SAFETY: the program exists.
            0 => unsafe { read(program, self.cubin_size, self.cubin) },
            _ => {
                // SAFETY: the program exists.
                let log = unsafe { read(program, self.log_size, self.log) }?;
                let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_string();
                Err(Error::internal(spec.describe(arch), log))
            }
        }
    }

    fn open() -> Result<Self, String> {
        let mut tried = Vec::new();
        for path in candidates() {
            // SAFETY: NVIDIA's libraries run nothing of the caller's when they are opened.
            match unsafe { Self::load(&path) } {
                Ok(nvrtc) => return Ok(nvrtc),
                Err(error) => tried.push(error),
            }
        }
        Err(tried.join("; "))
    }

    unsafe fn load(path: &Path) -> Result<Self, String> {
        let mut libraries = Vec::new();
        // It looks for its builtins by a bare name, which an open library satisfies.
        for builtins in builtins_beside(path) {
            // SAFETY: the caller's.
            libraries.extend(unsafe { Library::open(Some(builtins), RTLD_NOW | RTLD_LOCAL) });
        }
        // SAFETY: the caller's; the functions have these types since CUDA 11.1.
        unsafe {
            let library = Library::open(Some(path), RTLD_NOW | RTLD_LOCAL).map_err(|error| error.to_string())?;
            macro_rules! symbol {
                ($name:literal) => {
                    *library.get($name).map_err(|error| error.to_string())?
                };
            }
            Ok(Self {
                version: symbol!(b"nvrtcVersion\0"),
                create: symbol!(b"nvrtcCreateProgram\0"),
                compile: symbol!(b"nvrtcCompileProgram\0"),
                destroy: symbol!(b"nvrtcDestroyProgram\0"),
                log_size: symbol!(b"nvrtcGetProgramLogSize\0"),
                log: symbol!(b"nvrtcGetProgramLog\0"),
                cubin_size: symbol!(b"nvrtcGetCUBINSize\0"),
                cubin: symbol!(b"nvrtcGetCUBIN\0"),
                _libraries: {
                    libraries.push(library);
                    libraries
                },
            })
        }
    }
}

unsafe fn read(
    program: Program,
    size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    get: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
) -> Result<Vec<u8>> {
    let mut bytes = 0;
    // SAFETY: the caller's; the buffer has the size that the compiler asked for.
    unsafe {
        let sized = size(program, &raw mut bytes);
        let mut buffer = vec![0u8; bytes];
        match (sized, get(program, buffer.as_mut_ptr().cast())) {
            (0, 0) => Ok(buffer),
            (a, b) => Err(Error::internal("nvrtc", format!("results {a} and {b}"))),
        }
    }
}

fn candidates() -> Vec<PathBuf> {
    match std::env::var_os(VARIABLE) {
        Some(path) => vec![path.into()],
        None => {
            let bare = NAMES.iter().map(PathBuf::from);
            let placed = FOLDERS.iter().flat_map(|folder| NAMES.iter().map(move |name| Path::new(folder).join(name)));
            bare.chain(placed).collect()
        }
    }
}

fn builtins_beside(library: &Path) -> Vec<PathBuf> {
    let Some(folder) = library.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Vec::new() };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_builtins = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libnvrtc-builtins.so"))
    };
    entries.filter(is_builtins).collect()
}

fn nvrtc() -> Result<&'static Nvrtc> {
    static NVRTC: OnceLock<Result<Nvrtc, String>> = OnceLock::new();
    NVRTC.get_or_init(Nvrtc::open).as_ref().map_err(|why| Error::DeviceUnavailable {
        what: "libnvrtc".into(),
        why: format!("it is needed to compile kernels ({VARIABLE} may name it): {why}"),
    })
}
