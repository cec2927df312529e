//! What CUDA's error codes mean here: the device is lost, something is not there, or we called wrongly.

use cudarc::driver::sys::CUresult;

use crate::error::Error;

/// A failed driver call, by its code's number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault<'a> {
    pub code: u32,
    /// CUDA's own name of the code.
    pub name: &'a str,
    /// The call that reported it.
    pub call: &'a str,
}

impl Fault<'_> {
    /// The error for callers; `device` names the device to people.
    pub(super) fn error(self, device: &str) -> Error {
        let Fault { code, name, call } = self;
        if is_sticky(code) {
            return Error::DeviceLost { what: device.into(), why: format!("{call} reported {name}") };
        }
        let why = format!("{name} on {device}");
        match code {
            _ if code == CUresult::CUDA_ERROR_OUT_OF_MEMORY as u32 => Error::OutOfMemory { what: call.into(), why },
            _ if code == CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU as u32
                || code == CUresult::CUDA_ERROR_NOT_SUPPORTED as u32 =>
            {
                Error::Unsupported { what: call.into(), why }
            }
            _ if code == CUresult::CUDA_ERROR_INVALID_IMAGE as u32 => Error::Corrupt { what: call.into(), why },
            _ => Error::internal(call, why),
        }
    }
}

/// Whether the context answers every later call with the same error, so that only a new process can use the device.
pub(super) fn is_sticky(code: u32) -> bool {
    const STICKY: [CUresult; 17] = [
        CUresult::CUDA_ERROR_DEINITIALIZED,
        CUresult::CUDA_ERROR_ECC_UNCORRECTABLE,
        CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE,
        CUresult::CUDA_ERROR_CONTAINED,
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS,
        CUresult::CUDA_ERROR_LAUNCH_TIMEOUT,
        CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED,
        CUresult::CUDA_ERROR_ASSERT,
        CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR,
        CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION,
        CUresult::CUDA_ERROR_MISALIGNED_ADDRESS,
        CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE,
        CUresult::CUDA_ERROR_INVALID_PC,
        CUresult::CUDA_ERROR_LAUNCH_FAILED,
        CUresult::CUDA_ERROR_TENSOR_MEMORY_LEAK,
        CUresult::CUDA_ERROR_MPS_CLIENT_TERMINATED,
        // What the driver says when it does not know itself, as after a device fell off the bus.
        CUresult::CUDA_ERROR_UNKNOWN,
    ];
    STICKY.iter().any(|sticky| *sticky as u32 == code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;

    fn error(code: u32) -> Error {
        Fault { code, name: "CUDA_ERROR_X", call: "cuCall" }.error("cuda:3 (Card)")
    }

    #[test]
    fn sticky_codes_lose_the_device_and_name_it() {
        // Illegal address, timeout, misaligned address, launch failure, ECC, context destroyed.
        for code in [700, 702, 716, 719, 214, 709, 999] {
            let error = error(code);
            assert_eq!(error.status(), Status::DeviceLost);
            let text = error.to_string();
            assert!(
                text.contains("cuda:3 (Card)") && text.contains("CUDA_ERROR_X") && text.contains("cuCall"),
                "{text}"
            );
        }
    }

    #[test]
    fn other_codes_leave_the_device_usable() {
        assert_eq!(error(2).status(), Status::OutOfMemory);
        assert_eq!(error(209).status(), Status::Unsupported);
        assert_eq!(error(200).status(), Status::Corrupt);
        // Wrong value, wrong handle, capture broken, too many resources, and a code of a driver yet to come.
        for code in [1, 400, 901, 701, 987] {
            assert_eq!(error(code).status(), Status::Internal);
        }
    }
}
