//! NVIDIA's matrix products (cuBLASLt), opened at run time: an optional tactic, and an oracle for our own kernels.

mod abi;
mod plan;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

use super::library::{Library, function_table};
use crate::error::{Error, Result};
use abi::{Algorithm, Candidate, Opaque};
pub(super) use plan::Plan;

/// Names the library by its full path, so that no other is tried; `none` hides it.
const VARIABLE: &str = "TRTLLM_CUBLASLT";
const NAMES: [&str; 2] = ["libcublasLt.so.13", "libcublasLt.so.12"];
/// The version that knows a scale for each row.
const FIRST_WITH_ROW_SCALES: usize = 12_09_00;

type Setter = unsafe extern "C" fn(Opaque, u32, *const c_void, usize) -> c_int;
type Destroyer = unsafe extern "C" fn(Opaque) -> c_int;

function_table! {
    /// The functions that are used. Their types are as here in versions 12 and 13.
    Cublas {
        get_version = c"cublasLtGetVersion"() -> usize;
        get_status_name = c"cublasLtGetStatusName"(c_int) -> *const c_char;
        create = c"cublasLtCreate"(*mut Opaque) -> c_int;
        destroy = c"cublasLtDestroy"(Opaque) -> c_int;
        create_product = c"cublasLtMatmulDescCreate"(*mut Opaque, c_int, c_int) -> c_int;
        set_product = c"cublasLtMatmulDescSetAttribute"(Opaque, u32, *const c_void, usize) -> c_int;
        destroy_product = c"cublasLtMatmulDescDestroy"(Opaque) -> c_int;
        create_layout = c"cublasLtMatrixLayoutCreate"(*mut Opaque, c_int, u64, u64, i64) -> c_int;
        set_layout = c"cublasLtMatrixLayoutSetAttribute"(Opaque, u32, *const c_void, usize) -> c_int;
        destroy_layout = c"cublasLtMatrixLayoutDestroy"(Opaque) -> c_int;
        create_preference = c"cublasLtMatmulPreferenceCreate"(*mut Opaque) -> c_int;
        set_preference = c"cublasLtMatmulPreferenceSetAttribute"(Opaque, u32, *const c_void, usize) -> c_int;
        destroy_preference = c"cublasLtMatmulPreferenceDestroy"(Opaque) -> c_int;
        get_heuristic = c"cublasLtMatmulAlgoGetHeuristic"(Opaque, Opaque, Opaque, Opaque, Opaque, Opaque, Opaque, c_int, *mut Candidate, *mut c_int) -> c_int;
        multiply = c"cublasLtMatmul"(Opaque, Opaque, *const f32, *const c_void, Opaque, *const c_void, Opaque, *const f32, *const c_void, Opaque, *mut c_void, Opaque, *const Algorithm, *mut c_void, usize, *mut c_void) -> c_int;
    }
}

/// The library, opened at the first use. Only success is remembered.
fn cublas() -> Result<&'static Cublas> {
    static CUBLAS: OnceLock<Cublas> = OnceLock::new();
    if let Some(cublas) = CUBLAS.get() {
        return Ok(cublas);
    }
    let library = Library::find(VARIABLE, &NAMES).map_err(missing)?;
    let opened = Cublas::of(library).map_err(|name| missing(format!("it lacks {name}")))?;
    Ok(CUBLAS.get_or_init(|| opened))
}

/// The library's version, as 130401 for 13.4.1.
///
/// # Errors
/// `DeviceUnavailable` when there is no library.
pub(super) fn version() -> Result<usize> {
    cublas().map(Cublas::version)
}

fn missing(why: String) -> Error {
    Error::DeviceUnavailable { what: "library libcublasLt".into(), why }
}

/// A call that the library refused or that failed.
#[derive(Debug)]
pub(super) struct Fault {
    code: c_int,
    /// The library's own name of the code.
    name: String,
    call: &'static str,
}

impl Fault {
    /// Whether the library has no such product, or this algorithm no such shape: nothing was put into the stream.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.code, abi::INVALID_VALUE | abi::ARCH_MISMATCH | abi::NOT_SUPPORTED)
    }

    /// The error about `what` on the device that `device` names.
    pub(super) fn error(self, what: &str, device: &str) -> Error {
        let why = format!("{} reported {} on {device}", self.call, self.name);
        let what = what.to_string();
        match self.code {
            abi::ALLOC_FAILED => Error::OutOfMemory { what, why },
            abi::NOT_INITIALIZED => Error::DeviceUnavailable { what, why },
            _ if self.is_refusal() => Error::Unsupported { what, why },
            _ => Error::Internal { what, why },
        }
    }
}

impl Cublas {
    fn check(&self, code: c_int, call: &'static str) -> Result<(), Fault> {
        if code == abi::SUCCESS {
            return Ok(());
        }
        // SAFETY: it gives a static string, or NULL, for every code.
        let name = unsafe { (self.get_status_name)(code) };
        let name = match name.is_null() {
            true => format!("status {code}"),
            // SAFETY: as above.
            false => unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned(),
        };
        Err(Fault { code, name, call })
    }

    /// Version as major, minor and patch in two digits each: 130401.
    fn version(&self) -> usize {
        // SAFETY: it takes nothing and may be called at any time.
        unsafe { (self.get_version)() }
    }

    fn product(&'static self) -> Result<Object, Fault> {
        let mut raw = null_mut();
        // SAFETY: `raw` is a valid place.
        let code = unsafe { (self.create_product)(&raw mut raw, abi::COMPUTE_32F, abi::R_32F) };
        self.check(code, "cublasLtMatmulDescCreate")?;
        let (set, destroy) = (self.set_product, self.destroy_product);
        Ok(Object { cublas: self, raw, set, destroy, call: "cublasLtMatmulDescSetAttribute" })
    }

    /// A column-major matrix.
    fn layout(&'static self, kind: c_int, rows: usize, columns: usize, stride: usize) -> Result<Object, Fault> {
        let mut raw = null_mut();
        // SAFETY: `raw` is a valid place.
        let code = unsafe { (self.create_layout)(&raw mut raw, kind, rows as u64, columns as u64, stride as i64) };
        self.check(code, "cublasLtMatrixLayoutCreate")?;
        let (set, destroy) = (self.set_layout, self.destroy_layout);
        Ok(Object { cublas: self, raw, set, destroy, call: "cublasLtMatrixLayoutSetAttribute" })
    }

    fn preference(&'static self) -> Result<Object, Fault> {
        let mut raw = null_mut();
        // SAFETY: `raw` is a valid place.
        let code = unsafe { (self.create_preference)(&raw mut raw) };
        self.check(code, "cublasLtMatmulPreferenceCreate")?;
        let (set, destroy) = (self.set_preference, self.destroy_preference);
        Ok(Object { cublas: self, raw, set, destroy, call: "cublasLtMatmulPreferenceSetAttribute" })
    }
}

/// A descriptor of the library, in host memory.
struct Object {
    cublas: &'static Cublas,
    raw: Opaque,
    set: Setter,
    destroy: Destroyer,
    /// What the setter is called.
    call: &'static str,
}

impl Object {
    /// Sets an attribute. The library compares the size with the attribute's, so a wrong type is refused.
    fn set<T: Copy>(&self, attribute: u32, value: T) -> Result<(), Fault> {
        // SAFETY: the object is live, and the value has the size that is told.
        let code = unsafe { (self.set)(self.raw, attribute, (&raw const value).cast(), size_of::<T>()) };
        self.cublas.check(code, self.call)
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        unsafe { (self.destroy)(self.raw) };
    }
}

/// The library's state for one context. That context is current whenever this is made, used or dropped.
pub(super) struct Handle {
    cublas: &'static Cublas,
    raw: Opaque,
}

impl Handle {
    /// # Errors
    /// `DeviceUnavailable` when there is no library, or none that works with this driver; `device` names the device.
    pub(super) fn new(device: &str) -> Result<Self> {
        let cublas = cublas()?;
        let mut raw = null_mut();
        // SAFETY: `raw` is a valid place.
        let created = cublas.check(unsafe { (cublas.create)(&raw mut raw) }, "cublasLtCreate");
        created.map_err(|fault| fault.error(&format!("library libcublasLt {}", cublas.version()), device))?;
        Ok(Self { cublas, raw })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        unsafe { (self.cublas.destroy)(self.raw) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;

    #[test]
    fn faults_become_errors_that_name_shape_status_and_device() {
        let error = |code| {
            let fault = Fault { code, name: "CUBLAS_STATUS_X".into(), call: "cublasLtMatmul" };
            fault.error("bf16 product", "cuda:0 (Card)")
        };
        let text = error(15).to_string();
        let parts = ["bf16 product", "CUBLAS_STATUS_X", "cublasLtMatmul", "cuda:0 (Card)"];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        for (code, status) in [
            (1, Status::DeviceUnavailable),
            (3, Status::OutOfMemory),
            (7, Status::Unsupported),
            (8, Status::Unsupported),
            (15, Status::Unsupported),
            (13, Status::Internal),
            (14, Status::Internal),
            (99, Status::Internal),
        ] {
            assert_eq!(error(code).status(), status, "{code}");
        }
    }

    #[test]
    fn the_library_knows_its_version_and_the_names_of_codes() {
        let cublas = match cublas() {
            Ok(cublas) => cublas,
            Err(error) => return println!("skipped: {error}"),
        };
        assert!((12_00_00..20_00_00).contains(&cublas.version()), "{}", cublas.version());
        let names = [
            (abi::NOT_INITIALIZED, "CUBLAS_STATUS_NOT_INITIALIZED"),
            (abi::ALLOC_FAILED, "CUBLAS_STATUS_ALLOC_FAILED"),
            (abi::INVALID_VALUE, "CUBLAS_STATUS_INVALID_VALUE"),
            (abi::ARCH_MISMATCH, "CUBLAS_STATUS_ARCH_MISMATCH"),
            (abi::NOT_SUPPORTED, "CUBLAS_STATUS_NOT_SUPPORTED"),
        ];
        for (code, name) in names {
            assert_eq!(cublas.check(code, "x").unwrap_err().name, name);
        }
        assert!(cublas.check(abi::SUCCESS, "x").is_ok());
    }
}
