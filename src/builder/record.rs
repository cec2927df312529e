//! The record of a build: what an engine tells about how it was made. Nothing runs by it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::backend::cuda::TuneSummary;
use crate::error::{Error, Result};
use crate::passes::PassReport;

/// A section of the engine, once it is JSON.
#[derive(Debug, Serialize)]
pub(super) struct Record {
    /// Version of the library that built it.
    library: &'static str,
    /// Nodes of the graph before the passes.
    nodes: usize,
    passes: Vec<PassReport>,
    /// Of a CUDA engine.
    kernels: Option<KernelRecord>,
}

/// The CUDA part of a build.
#[derive(Debug, Serialize)]
pub(super) struct KernelRecord {
    /// Version of NVRTC.
    pub(super) compiler: String,
    /// What was compiled for each arch.
    pub(super) archs: BTreeMap<String, Compiled>,
    /// Where tactics were measured.
    pub(super) tuning: Option<Tuning>,
}

/// Compiled kernels of one arch.
#[derive(Debug, Serialize)]
pub(super) struct Compiled {
    pub(super) kernels: usize,
    pub(super) bytes: usize,
}

/// Measurements on one device.
#[derive(Debug, Serialize)]
pub(super) struct Tuning {
    pub(super) device: String,
    pub(super) arch: String,
    #[serde(flatten)]
    pub(super) summary: TuneSummary,
}

impl Record {
    /// Of a graph that had so many nodes before its passes.
    pub(super) fn new(nodes: usize, passes: Vec<PassReport>, kernels: Option<KernelRecord>) -> Self {
        Self { library: env!("CARGO_PKG_VERSION"), nodes, passes, kernels }
    }

    /// # Errors
    /// `Internal`, never seen.
    pub(super) fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::internal("record of the build", error.to_string()))
    }
}
