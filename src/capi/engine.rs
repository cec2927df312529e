//! An engine: a model compiled for this machine, one file with everything that a deployment needs. `trtllm_build` writes it.

use std::ffi::{CString, c_char, c_void};
use std::ops::ControlFlow;
use std::path::Path;
use std::ptr;
use std::sync::{Arc, OnceLock};

use super::argument::{TEXT, buffer, flag, name, output};
use super::handle::{self, Handle};
use super::panic::boundary;
use super::sampling::trtllm_sampling;
use super::sized::{self, Config, Growing};
use super::status::trtllm_status;
use crate::engine::{self, Engine, LoadMode, OpenOptions, Precision, Target};
use crate::error::{Error, Result};
use crate::sampling::SamplingParams;
use crate::text::{ChatTemplate, Tokenizer};
use crate::types::DType;

/// Is told how far a build or a load is: the name of the phase, and its done fraction from 0 to 1. Returning anything but 0
/// cancels: the call then fails with `TRTLLM_STATUS_CANCELLED` and leaves nothing behind.
///
/// Called on the thread that made the call. `phase` is borrowed and ends with the callback, which must not unwind.
pub type trtllm_progress_callback =
    Option<unsafe extern "C" fn(user_data: *mut c_void, phase: *const c_char, fraction: f64) -> i32>;

/// A loaded engine (handle).
pub struct trtllm_engine {
    _private: (),
}

impl Handle for trtllm_engine {
    type Object = Loaded;
    const KIND: u8 = 3;
    const NAME: &'static str = "trtllm_engine";
}

/// How weights come into memory.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum trtllm_load_mode {
    /// The file is mapped: fast, shared between processes; the file must not be changed while it is in use.
    Map = 0,
    /// The file is read into memory and may then be changed or removed.
    Read = 1,
}

/// How an engine stores its numbers: those of its linear layers, of its KV cache, or of its last layer.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum trtllm_precision {
    /// As the library chooses (only when building).
    Auto = 0,
    /// 32-bit floating point.
    F32 = 1,
    /// bfloat16.
    Bf16 = 2,
    /// 16-bit floating point of IEEE 754.
    F16 = 3,
    /// 8-bit floating point (e4m3) with scales.
    Fp8 = 4,
    /// 8-bit integers with a scale for each row of a weight; activations stay as they are. For the CPU.
    Int8 = 5,
    /// Weights as of INT8, and the input of every linear layer rounded to 8 bits with a scale for each token: the products are
    /// of integers, which is faster with many tokens. For the CPU.
    Int8W8a8 = 6,
}

/// The device class of an engine.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum trtllm_target {
    /// The host's processor.
    Cpu = 1,
    /// An NVIDIA GPU.
    Cuda = 2,
}

/// How an engine is loaded. Start from `TRTLLM_ENGINE_CONFIG_INIT`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_engine_config {
    /// Set by `TRTLLM_ENGINE_CONFIG_INIT`.
    pub struct_size: usize,
    /// May be NULL, which is the default.
    pub progress: trtllm_progress_callback,
    /// Passed to `progress`. Default NULL.
    pub user_data: *mut c_void,
    /// A `trtllm_load_mode`. Default MAP.
    pub load_mode: i32,
    /// 1: every weight is read and held against its checksum before the call returns; 0: weights are trusted, and a mapped
    /// engine loads in no time. Everything else in the file is always checked. Default 1.
    pub verify_weights: i32,
}

// SAFETY: three words and two half words; every bit pattern is valid.
unsafe impl Growing for trtllm_engine_config {
    const OLDEST_SIZE: usize = 32;
}
// SAFETY: begins with its size.
unsafe impl Config for trtllm_engine_config {}

const _: () = assert!(size_of::<trtllm_engine_config>() == 32);

impl Default for trtllm_engine_config {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            progress: None,
            user_data: ptr::null_mut(),
            load_mode: trtllm_load_mode::Map as i32,
            verify_weights: 1,
        }
    }
}

/// What is to know about a loaded engine. Pointers are borrowed from the engine and end when its handle is destroyed.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_engine_info {
    /// The checkpoint's architecture, e.g. `LlamaForCausalLM`.
    pub architecture: *const c_char,
    /// Tokens that end a generation.
    pub eos_tokens: *const u32,
    pub eos_token_count: usize,
    /// Bytes of all weights.
    pub weight_bytes: u64,
    /// Bytes of KV cache that one token needs.
    pub kv_bytes_per_token: u64,
    /// The token that begins a text; -1 when there is none.
    pub bos_token: i64,
    pub vocab_size: u32,
    pub hidden_size: u32,
    pub layers: u32,
    /// Most tokens of a request, prompt and output together.
    pub max_positions: u32,
    /// A `trtllm_precision`.
    pub precision: i32,
    /// A `trtllm_target`.
    pub target: i32,
    /// A `trtllm_precision` of the KV cache; AUTO when there is none.
    pub kv_precision: i32,
    /// A `trtllm_precision` of the last linear layer; AUTO when there is none.
    pub head_precision: i32,
}

// SAFETY: three words, three 64-bit numbers, eight half words.
unsafe impl Growing for trtllm_engine_info {
    const OLDEST_SIZE: usize = 72;
}

const _: () = assert!(size_of::<trtllm_engine_info>() == 80);

impl trtllm_engine_config {
    fn options(&self) -> Result<OpenOptions> {
        let mode = match self.load_mode {
            0 => LoadMode::Map,
            1 => LoadMode::Read,
            other => return Err(Error::argument("config.load_mode", format!("{other} is no trtllm_load_mode"))),
        };
        Ok(OpenOptions { mode, verify_weights: flag(self.verify_weights, "config.verify_weights")? })
    }
}

/// An engine with what its info points to. Tokenizer and template are made when they are first needed.
pub struct Loaded {
    engine: Arc<Engine>,
    architecture: CString,
    sampling: SamplingParams,
    tokenizer: OnceLock<Tokenizer>,
    template: OnceLock<ChatTemplate>,
}

impl Loaded {
    fn new(engine: Engine) -> Result<Self> {
        let architecture =
            CString::new(engine.plan().model.architecture.replace('\0', "")).expect("every NUL was removed");
        let sampling = match engine.generation_config() {
            Some(json) => SamplingParams::from_generation_config(json)?,
            None => SamplingParams::default(),
        };
        let (tokenizer, template) = (OnceLock::new(), OnceLock::new());
        Ok(Self { engine: Arc::new(engine), architecture, sampling, tokenizer, template })
    }

    /// The engine itself.
    pub(super) fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine)
    }

    /// The checkpoint's generation defaults.
    pub(super) fn sampling(&self) -> SamplingParams {
        self.sampling.clone()
    }

    /// The engine's tokenizer; `NotFound` when it has none.
    pub(super) fn tokenizer(&self) -> Result<&Tokenizer> {
        let load = || match self.engine.tokenizer_json() {
            Some(json) => Tokenizer::from_json(json, self.engine.tokenizer_config()),
            None => Err(Error::NotFound {
                what: "tokenizer".to_owned(),
                why: "the engine was built without one".to_owned(),
            }),
        };
        made(&self.tokenizer, load)
    }

    /// The engine's chat template; `NotFound` when it has none.
    pub(super) fn template(&self) -> Result<&ChatTemplate> {
        made(&self.template, || self.load_template())
    }

    fn load_template(&self) -> Result<ChatTemplate> {
        let tokenizer = self.tokenizer()?;
        let source = ChatTemplate::find(self.engine.tokenizer_config(), self.engine.chat_template())?;
        let missing =
            || Error::NotFound { what: "chat template".to_owned(), why: "the engine was built without one".to_owned() };
        ChatTemplate::new(&source.ok_or_else(missing)?, tokenizer.bos_token(), tokenizer.eos_token())
    }

    fn info(&self) -> trtllm_engine_info {
        let plan = self.engine.plan();
        let model = &plan.model;
        let own = match plan.precision {
            Precision::F32 => trtllm_precision::F32,
            Precision::Bf16 => trtllm_precision::Bf16,
            Precision::F16 => trtllm_precision::F16,
            Precision::Fp8 => trtllm_precision::Fp8,
            Precision::Int8 => trtllm_precision::Int8,
            Precision::Int8W8a8 => trtllm_precision::Int8W8a8,
        };
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        trtllm_engine_info {
            architecture: self.architecture.as_ptr(),
            eos_tokens: if model.eos_token_ids.is_empty() { ptr::null() } else { model.eos_token_ids.as_ptr() },
            eos_token_count: model.eos_token_ids.len(),
            weight_bytes: self.engine.weights_bytes() as u64,
            kv_bytes_per_token: plan.kv_groups.iter().map(|group| group.token_bytes() as u64).sum(),
            bos_token: model.bos_token_id.map_or(-1, i64::from),
            vocab_size: small(model.vocab_size),
            hidden_size: small(model.hidden_size),
            layers: small(model.layers),
            max_positions: small(model.max_positions),
            precision: own as i32,
            kv_precision: precision(plan.kv_groups.first().map(|group| group.dtype), own) as i32,
            head_precision: precision(plan.head().map(|weight| weight.dtype), own) as i32,
            target: match plan.target {
                Target::Cpu => trtllm_target::Cpu,
                Target::Cuda => trtllm_target::Cuda,
            } as i32,
        }
    }
}

/// What is in `place`, made there if it was not. A failure is not kept: memory may be there the next time.
fn made<T>(place: &OnceLock<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    match place.get() {
        Some(made) => Ok(made),
        None => make().map(|new| place.get_or_init(|| new)),
    }
}

/// The precision that stores elements of a type in an engine of precision `own`.
fn precision(dtype: Option<DType>, own: trtllm_precision) -> trtllm_precision {
    match dtype {
        Some(DType::F32) => trtllm_precision::F32,
        Some(DType::BF16) => trtllm_precision::Bf16,
        Some(DType::F16) => trtllm_precision::F16,
        Some(DType::E4M3) => trtllm_precision::Fp8,
        Some(DType::I8) => own,
        Some(DType::I32) | None => trtllm_precision::Auto,
    }
}

/// The caller's progress callback as the core wants it.
///
/// # Safety
/// `callback` may be called with `user_data` while the result lives.
pub(super) unsafe fn progress(
    callback: trtllm_progress_callback,
    user_data: *mut c_void,
) -> impl FnMut(&str, f64) -> ControlFlow<()> {
    move |phase, fraction| {
        let Some(callback) = callback else { return ControlFlow::Continue(()) };
        let phase = CString::new(phase).expect("no phase has a NUL in its name");
        // SAFETY: as the caller promises.
        match unsafe { callback(user_data, phase.as_ptr(), fraction) } {
            0 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }
}

/// Writes the defaults of `TRTLLM_ENGINE_CONFIG_INIT` into `config`, for languages without macros.
///
/// `struct_size`: the size of the caller's `trtllm_engine_config`.
/// Ownership: borrows `config`. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_engine_config_init(
    struct_size: usize,
    config: *mut trtllm_engine_config,
) -> trtllm_status {
    // SAFETY: as the C contract says.
    boundary("trtllm_engine_config_init", || unsafe { sized::init(config, struct_size, "config") })
}

/// Loads the engine file `path`; NULL for `config` means the defaults.
///
/// Ownership: borrows its arguments; returns an owned handle. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_engine_load(
    path: *const c_char,
    config: *const trtllm_engine_config,
    engine: *mut *mut trtllm_engine,
) -> trtllm_status {
    boundary("trtllm_engine_load", || {
        // SAFETY: as the C contract says.
        let (path, config, place) =
            unsafe { (name(path, "path")?, sized::read(config, "config")?, output(engine, "engine")?) };
        let options = config.options()?;
        // SAFETY: as the C contract says.
        let mut progress = unsafe { progress(config.progress, config.user_data) };
        let mut report = |fraction: f32| progress("loading weights", f64::from(fraction));
        let loaded = Loaded::new(Engine::open_with(Path::new(path), options, &mut report)?)?;
        place.write(handle::insert(Arc::new(loaded))?);
        Ok(())
    })
}

/// Destroys an engine; NULL is fine. What was made from it keeps its weights until it is destroyed too.
///
/// Ownership: takes `engine`. Thread safety: safe, but no thread may go on using what its info points to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_engine_destroy(engine: *mut trtllm_engine) -> trtllm_status {
    boundary("trtllm_engine_destroy", || handle::remove(engine, "engine").map(drop))
}

/// Fills `info` with what is to know about the engine.
///
/// `info_size`: the size of the caller's `trtllm_engine_info`.
/// Ownership: what `info` points to is borrowed until the engine is destroyed. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_engine_get_info(
    engine: *const trtllm_engine,
    info_size: usize,
    info: *mut trtllm_engine_info,
) -> trtllm_status {
    boundary("trtllm_engine_get_info", || {
        let engine = handle::get(engine, "engine")?;
        // SAFETY: as the C contract says.
        unsafe { sized::write(&engine.info(), info_size, "info_size", info, "info") }
    })
}

/// Fills `sampling` with the generation defaults of the checkpoint (`generation_config.json`), to be changed and used.
///
/// `sampling_size`: the size of the caller's `trtllm_sampling`, which is also what its `struct_size` becomes.
/// Ownership: borrows `sampling`. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_engine_get_sampling(
    engine: *const trtllm_engine,
    sampling_size: usize,
    sampling: *mut trtllm_sampling,
) -> trtllm_status {
    boundary("trtllm_engine_get_sampling", || {
        let engine = handle::get(engine, "engine")?;
        let mut value = trtllm_sampling::from_params(&engine.sampling);
        value.struct_size = sampling_size;
        // SAFETY: as the C contract says.
        unsafe { sized::write(&value, sampling_size, "sampling_size", sampling, "sampling") }
    })
}

/// Describes a loaded engine as JSON: the model, every plan step with what was fused into it, its memory and precision, the
/// sections of the file, and how the engine was built: passes, kernels, tactics with their times.
///
/// Ownership: copies into `buffer`, see "Results of unknown size" in trtllm.h. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_engine_inspect(
    engine: *const trtllm_engine,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> trtllm_status {
    boundary("trtllm_engine_inspect", || {
        let engine = handle::get(engine, "engine")?;
        // SAFETY: as the C contract says.
        unsafe { self::buffer(buffer, capacity, length, TEXT) }?.write_text(&engine.engine.inspect_json())
    })
}

/// Describes an engine file as `trtllm_engine_inspect`, without loading its weights.
///
/// Ownership: borrows `path`; copies into `buffer`, see "Results of unknown size" in trtllm.h. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_engine_inspect_file(
    path: *const c_char,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> trtllm_status {
    boundary("trtllm_engine_inspect_file", || {
        // SAFETY: as the C contract says.
        let (path, place) = unsafe { (name(path, "path")?, self::buffer(buffer, capacity, length, TEXT)?) };
        place.write_text(&engine::inspect(Path::new(path))?)
    })
}
