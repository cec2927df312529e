//! What the candidates for one layer and row count took, for people.

use serde::Serialize;

use super::super::linear::{Layer, Tactic};

/// A layer's choice among tactics, with the times that speak for it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// Columns of the layer's output and of its input.
    n: usize,
    k: usize,
    /// Everything that tells the layer from others, as macros.
    layer: String,
    rows: usize,
    /// What runs without a measurement.
    default: Tactic,
    /// From the fastest on, as the engine's tactics have it.
    chosen: Vec<Tactic>,
    /// How many candidates were timed.
    candidates: usize,
    /// Of these the default and the fastest of each kind of kernel.
    times: Vec<Time>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Time {
    tactic: Tactic,
    microseconds: f32,
}

impl Measurement {
    pub(super) fn new(
        layer: &Layer<'_>,
        rows: usize,
        default: Tactic,
        chosen: &[Tactic],
        timed: &[(Tactic, f32)],
    ) -> Self {
        let [n, k] = layer.shape();
        let is_beaten = |(tactic, time): &(Tactic, f32)| {
            timed.iter().any(|other| other.0.is_of_kind(*tactic) && other.1.total_cmp(time).is_lt())
        };
        let is_told = |of: &&(Tactic, f32)| of.0 == default || chosen.contains(&of.0) || !is_beaten(of);
        let time = |&(tactic, microseconds): &(Tactic, f32)| Time { tactic, microseconds };
        Self {
            n,
            k,
            layer: layer.key().trim_start().into(),
            rows,
            default,
            chosen: chosen.to_vec(),
            candidates: timed.len(),
            times: timed.iter().filter(is_told).map(time).collect(),
        }
    }
}
