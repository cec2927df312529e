//! A compiler whose machine code is the name of what was asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::cubins::Compiler;
use super::super::driver::Arch;
use super::super::kernel::KernelSpec;
use crate::error::{Error, Result};

pub struct FakeCompiler {
    /// `None`: there is no compiler on this machine.
    version: Option<(u32, u32)>,
    compiled: AtomicUsize,
}

impl FakeCompiler {
    pub fn new(version: Option<(u32, u32)>) -> Arc<Self> {
        Arc::new(Self { version, compiled: AtomicUsize::new(0) })
    }

    /// Of a toolkit that is there.
    pub fn present() -> Arc<Self> {
        Self::new(Some((13, 0)))
    }

    pub fn missing() -> Arc<Self> {
        Self::new(None)
    }

    /// Kernels compiled so far.
    pub fn compiled(&self) -> usize {
        self.compiled.load(Ordering::Relaxed)
    }
}

impl Compiler for FakeCompiler {
    fn version(&self) -> Result<(u32, u32)> {
        self.version.ok_or_else(|| Error::DeviceUnavailable { what: "compiler".into(), why: "not here".into() })
    }

    fn compile(&self, spec: &KernelSpec, arch: Arch) -> Result<Vec<u8>> {
        self.compiled.fetch_add(1, Ordering::Relaxed);
        Ok(spec.describe(arch).into())
    }
}
