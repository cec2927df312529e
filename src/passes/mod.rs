//! Rewrites of the graph, each found by its pattern alone: no pass knows a model, a name or a storage order.

mod attention;
mod dead_code;
mod flow;
mod gated_linear;
mod gather_early;
mod linear_activation;
mod qkv;
mod residual_norm;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::network::Graph;

/// One rewrite, applied wherever it matches.
struct Pass {
    name: &'static str,
    /// Returns how often it applied.
    rewrite: fn(&mut Graph) -> Result<usize>,
}

/// In the order in which they run. Dead code goes first, because a dead user of a value forbids most rewrites, and
/// last, because rewrites leave values and weights behind.
const PASSES: [Pass; 8] = [
    Pass { name: "dead_code", rewrite: dead_code::rewrite },
    Pass { name: "gather_early", rewrite: gather_early::rewrite },
    Pass { name: "qkv", rewrite: qkv::rewrite },
    Pass { name: "gated_linear", rewrite: gated_linear::rewrite },
    Pass { name: "linear_activation", rewrite: linear_activation::rewrite },
    Pass { name: "residual_norm", rewrite: residual_norm::rewrite },
    Pass { name: "attention", rewrite: attention::rewrite },
    Pass { name: "dead_code", rewrite: dead_code::rewrite },
];

/// Which passes run. The result computes the same whatever the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassSet {
    enabled: [bool; PASSES.len()],
}

impl PassSet {
    /// Every pass.
    #[must_use]
    pub fn all() -> Self {
        Self { enabled: [true; PASSES.len()] }
    }

    /// No pass.
    #[must_use]
    pub fn none() -> Self {
        Self { enabled: [false; PASSES.len()] }
    }

    /// The name of each pass, in the order in which they first run.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let first = |(index, pass): &(usize, &Pass)| PASSES[..*index].iter().all(|before| before.name != pass.name);
        PASSES.iter().enumerate().filter(first).map(|(_, pass)| pass.name)
    }

    /// The same choice with pass `name` on or off.
    ///
    /// # Errors
    /// `InvalidArgument` naming a pass that does not exist.
    pub fn with(mut self, name: &str, enabled: bool) -> Result<Self> {
        if Self::names().all(|known| known != name) {
            let known = Self::names().collect::<Vec<_>>().join(", ");
            return Err(Error::argument(name, format!("no such pass; there are {known}")));
        }
        for (pass, on) in PASSES.iter().zip(&mut self.enabled) {
            *on = if pass.name == name { enabled } else { *on };
        }
        Ok(self)
    }
}

impl Default for PassSet {
    fn default() -> Self {
        Self::all()
    }
}

/// What one run of a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PassReport {
    pub name: &'static str,
    /// Places where it applied.
    pub rewrites: usize,
    /// Nodes of the graph afterwards.
    pub nodes: usize,
}

/// Runs the enabled passes in order and verifies the graph before the first and after each.
///
/// # Errors
/// `InvalidNetwork` for a graph that is not well formed; `Internal` naming a pass that broke it.
pub fn run(graph: &mut Graph, enabled: PassSet) -> Result<Vec<PassReport>> {
    graph.verify()?;
    let mut reports = Vec::new();
    for (pass, _) in PASSES.iter().zip(enabled.enabled).filter(|(_, on)| *on) {
        let rewrites = (pass.rewrite)(graph)?;
        graph.verify().map_err(|e| Error::internal(format!("pass {}", pass.name), e.to_string()))?;
        reports.push(PassReport { name: pass.name, rewrites, nodes: graph.nodes.len() });
    }
    Ok(reports)
}

#[cfg(test)]
mod tests;
