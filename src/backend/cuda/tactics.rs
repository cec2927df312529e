//! What a tuner found: the fastest tactic of each linear layer, as a section of an engine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::driver::Arch;
use super::linear::Tactic;
use crate::error::{Error, Result};

/// By arch, layer and rows. Advice: a session runs what is in here where it would try it itself, else its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tactics {
    by_arch: BTreeMap<String, BTreeMap<String, BTreeMap<usize, Tactic>>>,
}

impl Tactics {
    pub(super) fn get(&self, arch: Arch, layer: &str, rows: usize) -> Option<Tactic> {
        self.by_arch.get(&arch.to_string())?.get(layer)?.get(&rows).copied()
    }

    pub(super) fn set(&mut self, arch: Arch, layer: String, rows: usize, tactic: Tactic) {
        self.by_arch.entry(arch.to_string()).or_default().entry(layer).or_default().insert(rows, tactic);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_arch.is_empty()
    }

    /// The section of an engine.
    ///
    /// # Errors
    /// `Internal`, never seen.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::internal(WHAT, error.to_string()))
    }

    /// What [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// `Corrupt` when it is something else.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(|error| Error::Corrupt { what: WHAT.into(), why: error.to_string() })
    }
}

const WHAT: &str = "the engine's section of tactics";
