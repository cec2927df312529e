//! Finds the CUDA driver and a device in it, without the panics that the bindings have for a missing library.

use std::ffi::{CStr, c_char, c_int};
use std::sync::OnceLock;

use cudarc::driver::sys::{self, CUdevice, CUdevice_attribute, CUresult};

use super::super::driver::{Arch, DeviceInfo};
use super::super::library::Library;
use super::fault::Fault;
use crate::error::{Error, Result};

/// Older drivers lack functions that the bindings would panic for.
const OLDEST_DRIVER: c_int = 12000;
const OLDEST_ARCH: Arch = Arch { major: 8, minor: 0 };

/// What people call a device by its index.
pub(super) fn label(index: usize) -> String {
    format!("cuda:{index}")
}

/// CUDA's own name of a result. The driver must have been found.
pub(super) fn name_of(result: CUresult) -> String {
    let mut name: *const c_char = std::ptr::null();
    // SAFETY: cuGetErrorName writes a static string or NULL.
    unsafe {
        sys::cuGetErrorName(result, &raw mut name);
        match name.is_null() {
            true => format!("CUDA error {}", result as u32),
            false => CStr::from_ptr(name).to_string_lossy().into_owned(),
        }
    }
}

/// The device with this index and what is known about it.
///
/// # Errors
/// `DeviceUnavailable` naming what is missing: the driver, a newer driver, the device, a newer device.
pub(super) fn device(index: usize) -> Result<(CUdevice, DeviceInfo)> {
    let device = label(index);
    let driver_version = driver().map_err(|why| unavailable(&device, why))?;
    let (count, mut handle) = (device_count(&device)?, 0);
    if index >= count {
        let plural = if count == 1 { "" } else { "s" };
        return Err(unavailable(
            &device,
            format!("there is no device {index}, this machine has {count} CUDA device{plural}"),
        ));
    }
    // SAFETY: the driver is initialised and `handle` is a valid place.
    check(&device, "cuDeviceGet", unsafe { sys::cuDeviceGet(&raw mut handle, index as c_int) })?;
    let info = describe(&device, handle, driver_version)?;
    if info.arch < OLDEST_ARCH {
        let Arch { major, minor } = info.arch;
        let why = format!("{} has compute capability {major}.{minor}, at least 8.0 is needed", info.name);
        return Err(unavailable(&device, why));
    }
    Ok((handle, info))
}

fn unavailable(what: &str, why: impl Into<String>) -> Error {
    Error::DeviceUnavailable { what: what.into(), why: why.into() }
}

/// The version of the driver, opened and initialised; else what is missing. Only success is remembered.
fn driver() -> Result<u32, String> {
    static VERSION: OnceLock<u32> = OnceLock::new();
    if let Some(version) = VERSION.get() {
        return Ok(*version);
    }
    let version = initialise()?;
    Ok(*VERSION.get_or_init(|| version))
}

fn initialise() -> Result<u32, String> {
    Library::open("libcuda.so.1")
        .map_err(|why| format!("libcuda.so.1 was not found: is an NVIDIA driver installed? ({why})"))?;
    let mut version = 0;
    // SAFETY: the library is there, so the bindings find it under one of their names; both functions are in every version.
    let (asked, initialised) = unsafe { (sys::cuDriverGetVersion(&raw mut version), sys::cuInit(0)) };
    if asked == CUresult::CUDA_SUCCESS && version < OLDEST_DRIVER {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        return Err(format!(
            "the NVIDIA driver knows CUDA {major}.{minor}, at least 12.0 is needed: update the driver"
        ));
    }
    match initialised {
        CUresult::CUDA_SUCCESS => Ok(version as u32),
        CUresult::CUDA_ERROR_NO_DEVICE => Err("the NVIDIA driver finds no device".into()),
        other => Err(format!("the NVIDIA driver cannot be initialised: {}", name_of(other))),
    }
}

fn device_count(device: &str) -> Result<usize> {
    let mut count = 0;
    // SAFETY: the driver is initialised and `count` is a valid place.
    check(device, "cuDeviceGetCount", unsafe { sys::cuDeviceGetCount(&raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

fn describe(device: &str, handle: CUdevice, driver_version: u32) -> Result<DeviceInfo> {
    use CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN as SHARED,
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as MULTIPROCESSORS,
    };
    let attribute = |attribute| -> Result<u32> {
        let mut value = 0;
        // SAFETY: `handle` is a device of the initialised driver, `value` a valid place.
        let result = unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, handle) };
        check(device, "cuDeviceGetAttribute", result)?;
        Ok(u32::try_from(value).unwrap_or(0))
    };
    let mut name = [0_u8; 256];
    // SAFETY: `name` has the length that is told.
    let result = unsafe { sys::cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as c_int, handle) };
    check(device, "cuDeviceGetName", result)?;
    let mut total_bytes = 0;
    // SAFETY: as above.
    check(device, "cuDeviceTotalMem", unsafe { sys::cuDeviceTotalMem_v2(&raw mut total_bytes, handle) })?;
    Ok(DeviceInfo {
        name: CStr::from_bytes_until_nul(&name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        arch: Arch { major: attribute(MAJOR)?, minor: attribute(MINOR)? },
        multiprocessors: attribute(MULTIPROCESSORS)? as usize,
        shared_bytes: attribute(SHARED)? as usize,
        total_bytes,
        driver_version,
    })
}

fn check(device: &str, call: &str, result: CUresult) -> Result<()> {
    match result {
        CUresult::CUDA_SUCCESS => Ok(()),
        other => Err(Fault { code: other as u32, name: &name_of(other), call }.error(device)),
    }
}
