//! What a fake device holds, and what it refuses.

use std::alloc::Layout;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::driver::{Address, Argument, DeviceInfo, Launch};
use super::super::matmul::{MatmulOperands, MatmulSpec};
use super::super::real::launch::MOST_ARGUMENTS;
use super::{Call, LABEL};
use crate::error::{Error, Result};

#[derive(Default)]
pub(super) struct State {
    pub(super) memory: BTreeMap<usize, Block>,
    pub(super) pinned: BTreeMap<usize, Block>,
    pub(super) modules: HashSet<u64>,
    pub(super) functions: HashMap<u64, Entry>,
    pub(super) matmuls: HashMap<u64, MatmulSpec>,
    pub(super) graphs: HashMap<u64, Vec<Enqueued>>,
    /// Whether it is timed, and the number of its last record.
    pub(super) events: HashMap<u64, (bool, Option<u64>)>,
    pub(super) records: u64,
    pub(super) last_id: u64,
    pub(super) capture: Option<Vec<Enqueued>>,
    /// All that ran.
    pub(super) stream: Vec<Enqueued>,
    pub(super) calls: HashMap<Call, usize>,
    /// At which count of calls they fail.
    pub(super) faults: HashSet<(Call, usize)>,
    pub(super) all_calls: usize,
    /// Which of all calls fails alone, and at which one the device is lost.
    pub(super) refuse_at: Option<usize>,
    pub(super) lose_at: Option<usize>,
    pub(super) lost: Option<Error>,
}

/// What a stream is given and a graph repeats.
#[derive(Clone)]
pub(super) enum Enqueued {
    Kernel(Launch),
    Matmul(MatmulLaunch),
}

/// One launch of a matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatmulLaunch {
    pub spec: MatmulSpec,
    pub operands: MatmulOperands,
    pub rows: u32,
}

pub(super) struct Entry {
    pub(super) module: u64,
    pub(super) name: String,
    pub(super) shared: u32,
}

impl State {
    pub(super) fn used_bytes(&self) -> usize {
        self.memory.values().map(|block| block.layout.size()).sum()
    }

    pub(super) fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn alive(&self) -> Result<()> {
        self.lost.clone().map_or(Ok(()), Err)
    }

    /// Counts a call that has an error of its own; whether it was told to fail with it.
    pub(super) fn enter(&mut self, call: Call, name: &str) -> Result<bool> {
        self.alive()?;
        self.all_calls += 1;
        if self.lose_at == Some(self.all_calls) {
            self.lose(name);
        }
        self.alive()?;
        let count = self.calls.entry(call).or_insert(0);
        *count += 1;
        let told = self.faults.remove(&(call, *count));
        Ok(told || self.refuse_at == Some(self.all_calls))
    }

    /// Counts any other call, after which the device may be lost.
    pub(super) fn reach(&mut self, call: Call, name: &str) -> Result<()> {
        let told = self.enter(call, name)?;
        if told && self.refuse_at == Some(self.all_calls) {
            return Err(Error::internal(name, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"));
        }
        if told {
            self.lose(name);
        }
        self.alive()
    }

    fn lose(&mut self, name: &str) {
        let why = format!("{name} reported CUDA_ERROR_ILLEGAL_ADDRESS");
        self.lost = Some(Error::DeviceLost { what: LABEL.into(), why });
    }

    pub(super) fn not_capturing(&self, call: &str) -> Result<()> {
        match self.capture {
            None => Ok(()),
            Some(_) => Err(Error::internal(call, "it is not allowed while launches are captured")),
        }
    }

    pub(super) fn allocated(&self, address: Address, bytes: usize) -> Result<()> {
        let lies_in = |blocks: &BTreeMap<usize, Block>| {
            let block = blocks.range(..=address as usize).next_back();
            block.is_some_and(|(start, block)| address as usize - start + bytes <= block.layout.size())
        };
        if lies_in(&self.memory) || lies_in(&self.pinned) {
            return Ok(());
        }
        Err(Error::internal("device address", format!("{bytes} bytes at {address:#x} are in no allocation")))
    }

    /// Records it in the graph that is captured, or runs it.
    pub(super) fn enqueue(&mut self, work: Enqueued, info: &DeviceInfo) -> Result<()> {
        self.check_enqueued(&work, info)?;
        self.capture.as_mut().unwrap_or(&mut self.stream).push(work);
        Ok(())
    }

    pub(super) fn check_enqueued(&self, work: &Enqueued, info: &DeviceInfo) -> Result<()> {
        match work {
            Enqueued::Kernel(launch) => self.check_launch(launch, info),
            Enqueued::Matmul(launch) => self.check_matmul(launch),
        }
    }

    fn check_matmul(&self, launch: &MatmulLaunch) -> Result<()> {
        let MatmulLaunch { spec, operands, rows } = launch;
        operands.check(spec, *rows)?;
        let used = operands.extents(spec, *rows).into_iter().filter(|extent| extent.bytes != 0);
        used.into_iter().try_for_each(|extent| self.allocated(extent.address, extent.bytes))
    }

    fn check_launch(&self, launch: &Launch, info: &DeviceInfo) -> Result<()> {
        let refuse = |why: String| Err(Error::internal("kernel launch", why));
        let Some(entry) = self.functions.get(&launch.function.0) else {
            return refuse("its function was never loaded or is unloaded".into());
        };
        let name = &entry.name;
        if launch.grid.contains(&0) || launch.grid[1..].iter().any(|n| *n > 65535) {
            return refuse(format!("{name} has grid {:?}", launch.grid));
        }
        if launch.block == 0 || launch.block > 1024 {
            return refuse(format!("{name} has blocks of {}", launch.block));
        }
        if launch.shared > entry.shared {
            return refuse(format!("{name} has {} bytes of shared memory of {}", launch.shared, entry.shared));
        }
        if launch.cluster > 1 && (!info.arch.is_hopper_or_later() || !launch.grid[0].is_multiple_of(launch.cluster)) {
            return refuse(format!("{name} has clusters of {} in a grid {:?}", launch.cluster, launch.grid));
        }
        if launch.arguments.len() > MOST_ARGUMENTS {
            return refuse(format!("{name} has {} arguments", launch.arguments.len()));
        }
        for argument in &launch.arguments {
            match argument {
                Argument::Address(address) if *address != 0 => self.allocated(*address, 1)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Host memory as aligned as a device's.
pub(super) struct Block {
    pub(super) pointer: *mut u8,
    pub(super) layout: Layout,
}

// SAFETY: a block is owned memory that only the driver's lock gives access to.
unsafe impl Send for Block {}

impl Block {
    pub(super) fn new(bytes: usize, fresh: u8) -> Self {
        let layout = Layout::from_size_align(bytes, 256).expect("tests ask for sizes that exist");
        // SAFETY: the size is not zero; the block is written as far as it goes.
        let pointer = unsafe {
            let pointer = std::alloc::alloc(layout);
            assert!(!pointer.is_null(), "the host has memory for a test");
            pointer.write_bytes(fresh, bytes);
            pointer
        };
        Self { pointer, layout }
    }

    pub(super) fn address(&self) -> usize {
        self.pointer as usize
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(self.pointer, self.layout) };
    }
}
