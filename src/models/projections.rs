//! Where the gated decoder's linear layers have their parameters: in a tensor each, or in tensors that several share.

use std::ops::Range;

use super::block::{Affine, Decoder};
use crate::checkpoint::ModelConfig;
use crate::error::Result;

/// How a family stores its projections.
pub(super) enum Projections {
    /// A tensor for each.
    Separate(Biases),
    /// q, k and v are rows of one tensor, gate and up of another; there are no biases.
    Joint,
}

/// Which projections have biases.
#[derive(Clone, Copy)]
pub(super) struct Biases {
    pub qkv: bool,
    pub output: bool,
    pub mlp: bool,
}

pub(super) const NO_BIASES: Biases = Biases { qkv: false, output: false, mlp: false };

/// A projection of a layer.
#[derive(Clone, Copy)]
pub(super) enum Role {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Q => "q",
            Role::K => "k",
            Role::V => "v",
            Role::O => "o",
            Role::Gate => "gate",
            Role::Up => "up",
            Role::Down => "down",
        }
    }
}

impl Projections {
    /// The parameters of `role` in `layer`.
    ///
    /// # Errors
    /// As [`Tensors::body`](super::Tensors::body).
    pub fn read(&self, decoder: &mut Decoder, layer: usize, role: Role) -> Result<Affine> {
        let Place { module, shape, rows } = self.place(decoder.config, role);
        let (tensors, graph) = (decoder.tensors, &mut decoder.graph);
        let module = format!("layers.{layer}.{module}");
        let stored = tensors.body(&format!("{module}.weight"), &shape)?;
        let weight = match rows {
            None => graph.weight(format!("{module}.weight"), &shape, stored),
            Some(rows) => {
                let name = format!("layers.{layer}.{}.weight", role.name());
                graph.weight(name, &[rows.len(), shape[1]], stored.rows(rows.start, rows.len()))
            }
        };
        let bias = match self.has_bias(role) {
            true => Some(tensors.weight(graph, &format!("{module}.bias"), &shape[..1])?),
            false => None,
        };
        Ok(Affine { weight, bias })
    }

    fn has_bias(&self, role: Role) -> bool {
        match (self, role) {
            (Projections::Joint, _) => false,
            (Projections::Separate(biases), Role::Q | Role::K | Role::V) => biases.qkv,
            (Projections::Separate(biases), Role::O) => biases.output,
            (Projections::Separate(biases), Role::Gate | Role::Up | Role::Down) => biases.mlp,
        }
    }

    fn place(&self, config: &ModelConfig, role: Role) -> Place {
        let (hidden, width) = (config.hidden_size, config.intermediate_size);
        let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let all = queries + 2 * keys;
        let qkv = |rows| Place { module: "self_attn.qkv_proj", shape: [all, hidden], rows: Some(rows) };
        let gate_up = |rows| Place { module: "mlp.gate_up_proj", shape: [2 * width, hidden], rows: Some(rows) };
        let whole = |module, shape| Place { module, shape, rows: None };
        match (self, role) {
            (Projections::Joint, Role::Q) => qkv(0..queries),
            (Projections::Joint, Role::K) => qkv(queries..queries + keys),
            (Projections::Joint, Role::V) => qkv(queries + keys..all),
            (Projections::Joint, Role::Gate) => gate_up(0..width),
            (Projections::Joint, Role::Up) => gate_up(width..2 * width),
            (_, Role::Q) => whole("self_attn.q_proj", [queries, hidden]),
            (_, Role::K) => whole("self_attn.k_proj", [keys, hidden]),
            (_, Role::V) => whole("self_attn.v_proj", [keys, hidden]),
            (_, Role::O) => whole("self_attn.o_proj", [hidden, queries]),
            (_, Role::Gate) => whole("mlp.gate_proj", [width, hidden]),
            (_, Role::Up) => whole("mlp.up_proj", [width, hidden]),
            (_, Role::Down) => whole("mlp.down_proj", [hidden, width]),
        }
    }
}

/// The tensor of a projection's weight, and its part of that.
struct Place {
    module: &'static str,
    shape: [usize; 2],
    rows: Option<Range<usize>>,
}
