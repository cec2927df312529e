//! What this backend needs of a CUDA driver, as a trait: the real one, and a fake whose faults tests choose.
//!
//! A driver stands for one device and one stream on it: copies, kernels, graphs and events are ordered as they are called.
//! Any call may report the fault of earlier asynchronous work as `DeviceLost`; nothing runs on that device afterwards.

use std::ffi::c_void;
use std::fmt;

use super::matmul::{MatmulOperands, MatmulSpec};
use crate::error::{Error, Result};

/// An address in device memory; 0 is none.
pub type Address = u64;

/// A compute capability, with the suffix under which all its instructions exist: `sm_90a`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Arch {
    pub major: u32,
    pub minor: u32,
}

impl Arch {
    /// As a number: 90 for 9.0.
    #[must_use]
    pub fn number(self) -> u32 {
        self.major * 10 + self.minor
    }

    /// Whether it has wgmma.
    #[must_use]
    pub fn has_wgmma(self) -> bool {
        self.major == 9
    }

    /// Whether dependent launches and bulk copies exist.
    #[must_use]
    pub fn is_hopper_or_later(self) -> bool {
        self.major >= 9
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}{}", self.number(), if self.major >= 9 { "a" } else { "" })
    }
}

impl std::str::FromStr for Arch {
    type Err = Error;

    /// `90`, `90a` or `sm_90a`.
    fn from_str(text: &str) -> Result<Self> {
        let digits = text.trim().trim_start_matches("sm_").trim_end_matches('a');
        match digits.parse::<u32>() {
            Ok(number @ 80..=129) => Ok(Self { major: number / 10, minor: number % 10 }),
            _ => Err(Error::argument("arch", format!("`{text}` is no compute capability from 80 to 129"))),
        }
    }
}

/// What is to know about a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    pub name: String,
    pub arch: Arch,
    pub multiprocessors: usize,
    /// Shared memory that one block may have.
    pub shared_bytes: usize,
    pub total_bytes: usize,
    /// The CUDA version that the driver knows, as 13000.
    pub driver_version: u32,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $($(#[$doc])* #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)] pub struct $name(pub u64);)*
    };
}

ids! {
    /// A loaded cubin.
    Module;
    /// An entry of a module.
    Function;
    /// An instantiated graph.
    Graph;
    /// A point in the stream.
    Event;
    /// A matrix product that the vendor's library computes.
    Matmul;
}

/// A tensor map as `cuTensorMapEncodeTiled` fills it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct TensorMap(pub [u8; 128]);

/// Element type of a tensor map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapElement {
    Byte,
    Half,
    Bf16,
}

/// A row-major matrix as the copy engine sees it, with 128-byte swizzle; reads beyond it give zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapSpec {
    pub element: MapElement,
    pub address: Address,
    pub rows: usize,
    pub columns: usize,
    pub row_bytes: usize,
    pub box_rows: usize,
    pub box_columns: usize,
}

/// One kernel argument.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Argument {
    U32(u32),
    F32(f32),
    Address(Address),
    Map(TensorMap),
}

impl Argument {
    /// Where the argument's bytes lie.
    #[must_use]
    pub fn pointer(&self) -> *const c_void {
        match self {
            Argument::U32(value) => (&raw const *value).cast(),
            Argument::F32(value) => (&raw const *value).cast(),
            Argument::Address(value) => (&raw const *value).cast(),
            Argument::Map(value) => (&raw const *value).cast(),
        }
    }
}

/// One launch of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    pub function: Function,
    pub grid: [u32; 3],
    pub block: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// Blocks of a cluster; 1 is none.
    pub cluster: u32,
    /// Programmatic dependent launch: it may start before the kernel before it has ended.
    pub dependent: bool,
    pub arguments: Vec<Argument>,
}

/// One device with one stream.
///
/// Pointers and addresses given to the copying calls must stay valid until the stream has passed them; a launch's arguments
/// must be what its kernel's contract says. That is what the `unsafe` methods leave to the caller.
pub trait Driver: Send + Sync {
    fn info(&self) -> &DeviceInfo;
    /// Device memory that is free now.
    fn free_bytes(&self) -> Result<usize>;

    /// Device memory, not initialised. `OutOfMemory` tells needed and free bytes; `what` names it there.
    fn allocate(&self, bytes: usize, what: &str) -> Result<Address>;
    /// Gives device memory back, after all work that is under way. 0 is fine.
    fn release(&self, address: Address);
    /// Page-locked host memory, zeroed.
    fn allocate_pinned(&self, bytes: usize, what: &str) -> Result<*mut u8>;
    fn release_pinned(&self, pointer: *mut u8);

    /// # Safety
    /// See the trait.
    unsafe fn upload(&self, to: Address, from: *const u8, bytes: usize) -> Result<()>;
    /// # Safety
    /// See the trait.
    unsafe fn download(&self, to: *mut u8, from: Address, bytes: usize) -> Result<()>;
    /// Sets every byte.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn fill(&self, to: Address, bytes: usize, byte: u8) -> Result<()>;

    fn load(&self, cubin: &[u8], what: &str) -> Result<Module>;
    fn unload(&self, module: Module);
    /// The entry of a module, allowed `shared` bytes of dynamic shared memory.
    fn function(&self, module: Module, entry: &str, shared: u32) -> Result<Function>;
    /// # Safety
    /// See the trait.
    unsafe fn launch(&self, launch: &Launch) -> Result<()>;
    fn tensor_map(&self, spec: &MapSpec) -> Result<TensorMap>;

    /// Prepares a matrix product of the vendor's library. `DeviceUnavailable` where there is no library, `Unsupported` where
    /// it or the device has no such product or fewer algorithms than the rank asks for. Not while launches are captured.
    fn matmul(&self, spec: &MatmulSpec) -> Result<Matmul>;
    /// Puts a product over the first `rows` rows into the stream, at most as many as it was prepared for. Where the chosen
    /// algorithm cannot do with fewer rows, the library's first choice for these does it. Bits may depend on both numbers.
    ///
    /// Captured, it must have been launched before: the library may load code at the first launch, which a capture forbids.
    ///
    /// # Safety
    /// Every operand has the extent that [`MatmulOperands`] tells. See the trait.
    unsafe fn launch_matmul(&self, matmul: Matmul, operands: &MatmulOperands, rows: u32) -> Result<()>;
    /// Graphs that hold its launches stay whole.
    fn release_matmul(&self, matmul: Matmul);

    /// From here to [`Driver::end_capture`] launches are recorded and do not run.
    fn begin_capture(&self) -> Result<()>;
    fn end_capture(&self) -> Result<Graph>;
    /// # Safety
    /// As every launch that was recorded.
    unsafe fn launch_graph(&self, graph: Graph) -> Result<()>;
    fn release_graph(&self, graph: Graph);

    /// A new event; `timed` ones can be subtracted.
    fn event(&self, timed: bool) -> Result<Event>;
    fn record(&self, event: Event) -> Result<()>;
    /// Blocks until the stream has passed the event's last record.
    fn wait(&self, event: Event) -> Result<()>;
    /// Milliseconds between two passed events.
    fn elapsed(&self, from: Event, to: Event) -> Result<f32>;
    fn release_event(&self, event: Event);
    /// Blocks until the stream is empty.
    fn synchronize(&self) -> Result<()>;
}
