//! Building an engine from a Hugging Face checkpoint: `config.json`, safetensors, tokenizer, chat template, generation config.

use std::ffi::{c_char, c_void};
use std::path::Path;
use std::ptr;

use super::argument::{flag, name, names};
use super::engine::{progress, trtllm_precision, trtllm_progress_callback, trtllm_target};
use super::panic::boundary;
use super::sized::{self, Config, Growing};
use super::status::trtllm_status;
use crate::backend::cuda::Arch;
use crate::builder::{BuildOptions, Source, build};
use crate::engine::{Precision, Target};
use crate::error::{Error, Result};

/// How an engine is built. Start from `TRTLLM_BUILD_CONFIG_INIT`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_build_config {
    /// Set by `TRTLLM_BUILD_CONFIG_INIT`.
    pub struct_size: usize,
    /// Names of compiler passes to leave out, for tests and comparisons. Default NULL.
    pub disabled_passes: *const *const c_char,
    pub disabled_pass_count: usize,
    /// May be NULL, which is the default.
    pub progress: trtllm_progress_callback,
    /// Passed to `progress`. Default NULL.
    pub user_data: *mut c_void,
    /// Key of the generator for `dummy_weights`. Default 0.
    pub seed: u64,
    /// Most tokens of a request, prompt and output together; 0: as the checkpoint says, which is the default.
    pub max_positions: u32,
    /// A `trtllm_precision`. AUTO keeps what the checkpoint stores, as far as the target has it. Default AUTO.
    pub precision: i32,
    /// 1: the checkpoint is the path of a lone `config.json`, and weights are random (normal, deviation 0.02): for
    /// measuring shapes. Default 0.
    pub dummy_weights: i32,
    /// A `trtllm_target`; 0 counts as CPU, which is the default.
    pub target: i32,
    /// A `trtllm_precision` for the KV cache: FP8, or that of the engine's 16-bit values (of F32 engines: F32), which AUTO
    /// stands for. Default AUTO.
    pub kv_precision: i32,
    /// A `trtllm_precision` for the last linear layer of FP8, INT8 and INT8_W8A8 engines: their own, or BF16, which AUTO
    /// stands for. Of other engines: their own. Default AUTO.
    pub head_precision: i32,
    /// Compute capabilities whose kernels a CUDA engine holds, e.g. `80;86;90a`; NULL: that of the first GPU here, or `90a`
    /// where there is none. Default NULL.
    pub archs: *const c_char,
    /// 1: on a GPU too, the bits of a request's tokens and logits depend on nothing but itself (a CPU always keeps that), at
    /// some cost in speed. Default 0.
    pub invariant: i32,
    /// 1: kernels are chosen by rule, 0: by measurement where the first GPU here is one of those that the engine is for. A
    /// measuring build takes some tens of seconds longer the first time; timings are kept in the folder that the variable
    /// TRTLLM_CACHE names, else in ~/.cache/trtllm. Default 0.
    pub default_tactics: i32,
}

// SAFETY: six words, a u64 and eight half words; every bit pattern is valid.
unsafe impl Growing for trtllm_build_config {
    const OLDEST_SIZE: usize = 64;
}
// SAFETY: begins with its size.
unsafe impl Config for trtllm_build_config {}

const _: () = assert!(size_of::<trtllm_build_config>() == 88);

impl Default for trtllm_build_config {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            disabled_passes: ptr::null(),
            disabled_pass_count: 0,
            progress: None,
            user_data: ptr::null_mut(),
            seed: 0,
            max_positions: 0,
            precision: trtllm_precision::Auto as i32,
            dummy_weights: 0,
            target: trtllm_target::Cpu as i32,
            kv_precision: trtllm_precision::Auto as i32,
            head_precision: trtllm_precision::Auto as i32,
            archs: ptr::null(),
            invariant: 0,
            default_tactics: 0,
        }
    }
}

impl trtllm_build_config {
    fn source(&self, checkpoint: &Path) -> Result<Source> {
        let path = checkpoint.to_owned();
        Ok(match flag(self.dummy_weights, "config.dummy_weights")? {
            true => Source::Dummy { config: path, seed: self.seed },
            false => Source::Checkpoint(path),
        })
    }

    /// The builder's options.
    ///
    /// # Safety
    /// `disabled_passes` is valid for its count, and its elements are strings; `archs` is NULL or a string.
    unsafe fn options(&self) -> Result<BuildOptions> {
        Ok(BuildOptions {
            target: match self.target {
                0 | 1 => Target::Cpu,
                2 => Target::Cuda,
                other => return Err(Error::argument("config.target", format!("{other} is no trtllm_target"))),
            },
            precision: precision(self.precision, "config.precision")?,
            kv_precision: precision(self.kv_precision, "config.kv_precision")?,
            head_precision: precision(self.head_precision, "config.head_precision")?,
            invariant: flag(self.invariant, "config.invariant")?,
            tune: !flag(self.default_tactics, "config.default_tactics")?,
            // SAFETY: as the caller promises.
            archs: unsafe { archs(self.archs) }?,
            // SAFETY: as the caller promises.
            disabled_passes: unsafe {
                names(self.disabled_passes, self.disabled_pass_count, "config.disabled_passes")
            }?,
            max_positions: (self.max_positions > 0).then_some(self.max_positions as usize),
        })
    }
}

/// The compute capabilities of a list with semicolons.
///
/// # Safety
/// `list` is NULL or a string.
unsafe fn archs(list: *const c_char) -> Result<Vec<Arch>> {
    if list.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: as the caller promises.
    let list = unsafe { name(list, "config.archs") }?;
    list.split(';').map(|arch| arch.parse::<Arch>().map_err(|error| error.within("config.archs"))).collect()
}

/// A `trtllm_precision`; `None` is AUTO.
fn precision(value: i32, what: &str) -> Result<Option<Precision>> {
    Ok(match value {
        0 => None,
        1 => Some(Precision::F32),
        2 => Some(Precision::Bf16),
        3 => Some(Precision::F16),
        4 => Some(Precision::Fp8),
        5 => Some(Precision::Int8),
        6 => Some(Precision::Int8W8a8),
        other => return Err(Error::argument(what, format!("{other} is no trtllm_precision"))),
    })
}

/// Writes the defaults of `TRTLLM_BUILD_CONFIG_INIT` into `config`, for languages without macros.
///
/// `struct_size`: the size of the caller's `trtllm_build_config`.
/// Ownership: borrows `config`. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_build_config_init(
    struct_size: usize,
    config: *mut trtllm_build_config,
) -> trtllm_status {
    // SAFETY: as the C contract says.
    boundary("trtllm_build_config_init", || unsafe { sized::init(config, struct_size, "config") })
}

/// Builds the engine file `engine_path` from the folder `checkpoint_path`.
///
/// The file appears, or replaces an older one, only when it is complete; a failed, cancelled or killed build leaves what was
/// there. `config` may be NULL for the defaults. Blocks until the engine is built; `config->progress` is told how far it is.
/// Ownership: borrows its arguments. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_build(
    checkpoint_path: *const c_char,
    engine_path: *const c_char,
    config: *const trtllm_build_config,
) -> trtllm_status {
    boundary("trtllm_build", || {
        // SAFETY: as the C contract says.
        let (checkpoint, output, config) = unsafe {
            let paths = (name(checkpoint_path, "checkpoint_path")?, name(engine_path, "engine_path")?);
            (Path::new(paths.0), Path::new(paths.1), sized::read(config, "config")?)
        };
        // SAFETY: as the C contract says.
        let (options, mut progress) = unsafe { (config.options()?, progress(config.progress, config.user_data)) };
        build(&config.source(checkpoint)?, output, &options, &mut |phase, fraction| {
            progress(&phase.to_string(), f64::from(fraction))
        })
    })
}
