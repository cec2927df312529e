//! What a tuner found: the fastest tactic of each linear layer, as a section of an engine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::driver::Arch;
use super::linear::Tactic;
use crate::error::{Error, Result};

/// By arch, layer and rows: tactics from the fastest on, of which the last can run everywhere. Advice: a session runs what is
/// in here where it would try it itself, else its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tactics {
    by_arch: BTreeMap<String, BTreeMap<String, BTreeMap<usize, Vec<Tactic>>>>,
}

impl Tactics {
    /// From the fastest on; none where nothing was measured.
    pub(super) fn get(&self, arch: Arch, layer: &str, rows: usize) -> &[Tactic] {
        let of_layer = self.by_arch.get(&arch.to_string()).and_then(|layers| layers.get(layer));
        of_layer.and_then(|rows_of| rows_of.get(&rows)).map_or(&[], Vec::as_slice)
    }

    pub(super) fn set(&mut self, arch: Arch, layer: String, rows: usize, fastest: Vec<Tactic>) {
        self.by_arch.entry(arch.to_string()).or_default().entry(layer).or_default().insert(rows, fastest);
    }

    /// Whether any tactic for `arch` needs the vendor's library of matrix products.
    pub(super) fn have_products(&self, arch: Arch) -> bool {
        let layers = self.by_arch.get(&arch.to_string()).into_iter().flat_map(BTreeMap::values);
        layers.flat_map(BTreeMap::values).flatten().any(|tactic| matches!(tactic, Tactic::Product(_)))
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
