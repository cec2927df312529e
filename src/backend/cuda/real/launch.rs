//! Single driver calls with more to them than their arguments: a launch with attributes, the image of a module.

use std::ffi::c_void;
use std::ptr::null_mut;

use cudarc::driver::sys::{self, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue, CUresult, CUstream};

use super::super::driver::{Arch, Launch};
use crate::error::{Error, Result};

/// The most arguments of a kernel: their pointers lie on the stack, so that a launch allocates nothing.
pub(in super::super) const MOST_ARGUMENTS: usize = 32;

/// Puts a launch into the stream. A dependent launch is an ordinary one where the device knows no other.
///
/// # Errors
/// `Internal` for more than [`MOST_ARGUMENTS`]; CUDA's own come as the result.
///
/// # Safety
/// The context is current; function and arguments are live and fit together.
pub(super) unsafe fn launch(launch: &Launch, stream: CUstream, arch: Arch) -> Result<CUresult> {
    let mut pointers = [null_mut::<c_void>(); MOST_ARGUMENTS];
    if launch.arguments.len() > MOST_ARGUMENTS {
        let why = format!("{} arguments are more than {MOST_ARGUMENTS}", launch.arguments.len());
        return Err(Error::internal("kernel launch", why));
    }
    for (pointer, argument) in pointers.iter_mut().zip(&launch.arguments) {
        *pointer = argument.pointer().cast_mut();
    }
    let mut attributes = [cluster(launch.cluster), dependent()];
    let (first, count) = match (launch.cluster > 1, launch.dependent && arch.is_hopper_or_later()) {
        (true, true) => (0, 2),
        (true, false) => (0, 1),
        (false, true) => (1, 1),
        (false, false) => (0, 0),
    };
    let [x, y, z] = launch.grid;
    let config = sys::CUlaunchConfig {
        gridDimX: x,
        gridDimY: y,
        gridDimZ: z,
        blockDimX: launch.block,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: launch.shared,
        hStream: stream,
        attrs: attributes[first..].as_mut_ptr(),
        numAttrs: count,
    };
    let function = launch.function.0 as sys::CUfunction;
    // SAFETY: the configuration points to `count` attributes, and each pointer to its argument, which the call copies.
    Ok(unsafe { sys::cuLaunchKernelEx(&raw const config, function, pointers.as_mut_ptr(), null_mut()) })
}

fn cluster(blocks: u32) -> CUlaunchAttribute {
    let mut value = CUlaunchAttributeValue { pad: [0; 64] };
    value.clusterDim = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: blocks, y: 1, z: 1 };
    CUlaunchAttribute { id: CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, pad: [0; 4], value }
}

fn dependent() -> CUlaunchAttribute {
    let mut value = CUlaunchAttributeValue { pad: [0; 64] };
    value.programmaticStreamSerializationAllowed = 1;
    CUlaunchAttribute {
        id: CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value,
    }
}

/// A cubin at an aligned place, as the driver wants it, after a look at whether it is whole: the driver is told no size
/// and trusts the headers.
pub(super) fn image(cubin: &[u8], what: &str) -> Result<Vec<u64>> {
    if !is_whole_elf(cubin) {
        return Err(Error::Corrupt { what: what.into(), why: "it is no whole cubin".into() });
    }
    let mut image = vec![0_u64; cubin.len().div_ceil(8)];
    for (word, bytes) in image.iter_mut().zip(cubin.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(whole);
    }
    Ok(image)
}

/// Whether a 64-bit ELF file reaches as far as its tables of sections and segments and all of these say.
fn is_whole_elf(bytes: &[u8]) -> bool {
    let u64_at = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    let u16_at = |at: usize| bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes);
    let within = |offset: u64, size: u64| offset.checked_add(size).is_some_and(|end| end <= bytes.len() as u64);
    // Places of a table's offset, entry size and entry count, and in an entry of what it covers: offset and size.
    let reaches = |[offset, size, count]: [usize; 3], covers: [usize; 2], is_empty: &dyn Fn(usize) -> bool| {
        let (table, size, count) = (u64_at(offset)?, usize::from(u16_at(size)?), usize::from(u16_at(count)?));
        let entries = (0..count).map(|index| usize::try_from(table).ok()?.checked_add(index * size));
        let covered = |entry: Option<usize>| {
            let [offset, length] = covers.map(|at| u64_at(entry?.checked_add(at)?));
            Some(is_empty(entry?) || within(offset?, length?))
        };
        Some(within(table, (size * count) as u64) && entries.map(covered).all(|whole| whole == Some(true)))
    };
    // A section of this type takes no room in the file.
    let is_nobits = |entry: usize| bytes.get(entry + 4..entry + 8) == Some(&8_u32.to_le_bytes());
    bytes.starts_with(b"\x7fELF\x02\x01")
        && u16_at(0x3c) != Some(0)
        && reaches([0x20, 0x36, 0x38], [0x08, 0x20], &|_| false) == Some(true)
        && reaches([0x28, 0x3a, 0x3c], [0x18, 0x20], &is_nobits) == Some(true)
}

/// The error with what it was about; the loss of a device is about the device alone.
pub(super) fn naming(error: Error, what: &str) -> Error {
    match error {
        Error::DeviceLost { .. } => error,
        other => other.within(what),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::driver::{Argument, Function};
    use super::*;
    use crate::error::Status;

    #[test]
    fn too_many_arguments_are_refused_before_the_driver_is_called() {
        let arguments = vec![Argument::U32(0); MOST_ARGUMENTS + 1];
        let launch = Launch {
            function: Function(0),
            grid: [1; 3],
            block: 1,
            shared: 0,
            cluster: 1,
            dependent: false,
            arguments,
        };
        // SAFETY: it returns before anything is called.
        let result = unsafe { super::launch(&launch, null_mut(), Arch { major: 9, minor: 0 }) };
        assert_eq!(result.unwrap_err().status(), Status::Internal);
    }

    #[test]
    fn only_a_whole_elf_becomes_an_image() {
        let mut elf = vec![0_u8; 64 + 2 * 64 + 3];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[0x28] = 64;
        elf[0x3a] = 64;
        elf[0x3c] = 2;
        let image = image(&elf, "k").unwrap();
        assert_eq!(image.len(), 25);
        assert_eq!(image[0].to_ne_bytes()[..6], elf[..6]);
        for length in 0..64 + 2 * 64 {
            assert_eq!(super::image(&elf[..length], "k").unwrap_err().status(), Status::Corrupt, "{length} bytes");
        }
    }

    #[test]
    fn a_loss_is_about_the_device_alone() {
        let lost = Error::DeviceLost { what: "cuda:0".into(), why: "x".into() };
        assert_eq!(naming(lost.clone(), "gemv"), lost);
        assert_eq!(naming(Error::internal("call", "x"), "gemv"), Error::internal("gemv: call", "x"));
    }
}
