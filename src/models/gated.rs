//! The decoder of families with RMS norms, rotary positions, grouped-query attention and a gated feed-forward layer.
//! What such families differ in is a [`Design`]; what one model differs in from another of its family is its
//! configuration.

use super::block::Decoder;
use super::projections::{NO_BIASES, Projections, Role};
use super::{Tensors, frequencies};
use crate::checkpoint::{ModelConfig, RopeConfig};
use crate::error::{Error, Result};
use crate::network::{Graph, Recipe, ValueId};
use crate::types::{Op, RopeSpec};

/// What a family is made of.
pub(super) struct Design {
    pub name: &'static str,
    pub projections: Projections,
    /// Modules of a layer's norms.
    pub norms: Norms,
    /// Whether each head of q and k is normed before it rotates.
    pub head_norms: bool,
    pub gains: Gains,
    /// What embeddings are multiplied with.
    pub embedding_scale: f32,
}

/// Modules of the norms around the two parts of a layer.
#[derive(Clone, Copy)]
pub(super) struct Norms {
    pub attention: Around,
    pub mlp: Around,
}

/// Modules that norm what goes into a part, and what comes from it before it joins the residual stream.
#[derive(Clone, Copy)]
pub(super) struct Around {
    pub before: &'static str,
    pub after: Option<&'static str>,
}

impl Norms {
    /// A norm before each part.
    pub const BEFORE: Self = Self {
        attention: Around { before: "input_layernorm", after: None },
        mlp: Around { before: "post_attention_layernorm", after: None },
    };
}

/// What a checkpoint stores of a norm's gains.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Gains {
    Themselves,
    /// Their distance from 1.
    AboveOne,
}

impl Design {
    /// The plainest design, for a family of that name to change: that of Llama.
    pub fn plain(name: &'static str) -> Self {
        Self {
            name,
            projections: Projections::Separate(NO_BIASES),
            norms: Norms::BEFORE,
            head_norms: false,
            gains: Gains::Themselves,
            embedding_scale: 1.0,
        }
    }

    /// The graph of a model of this design.
    pub fn build(self, config: &ModelConfig, tensors: &Tensors) -> Result<Graph> {
        let mut gated = Gated { decoder: Decoder::new(self.name, config, tensors), design: self };
        let angles = gated.angles()?;
        let shape = [config.vocab_size, config.hidden_size];
        let table = tensors.weight(&mut gated.decoder.graph, "embed_tokens.weight", &shape)?;
        let (ids, embedding) = (gated.decoder.ids, Op::Embedding { scale: gated.design.embedding_scale });
        let mut hidden = gated.decoder.graph.apply(embedding, &[ids], &[table], "hidden")?;
        for (layer, window) in config.windows.iter().enumerate() {
            hidden = gated.layer(layer, hidden, angles.of(*window))?;
        }
        let rows = gated.decoder.gather(hidden)?;
        let normed = gated.norm(rows, "norm", "norm".into())?;
        gated.decoder.head(normed, table)
    }
}

/// By how much every position rotates, `(value, dimensions)`.
#[derive(Clone, Copy)]
struct Angles {
    global: (ValueId, usize),
    /// In layers with a window.
    local: (ValueId, usize),
}

impl Angles {
    fn of(&self, window: Option<usize>) -> (ValueId, usize) {
        if window.is_some() { self.local } else { self.global }
    }
}

struct Gated<'a> {
    decoder: Decoder<'a>,
    design: Design,
}

impl Gated<'_> {
    fn angles(&mut self) -> Result<Angles> {
        let config = self.decoder.config;
        let rope = config.rope.as_ref().ok_or_else(|| Error::internal("angles", "the configuration has no rope"))?;
        let global = self.angles_of(rope, "")?;
        let local = match &config.local_rope {
            Some(rope) => self.angles_of(rope, "local_")?,
            None => global,
        };
        Ok(Angles { global, local })
    }

    fn angles_of(&mut self, rope: &RopeConfig, prefix: &str) -> Result<(ValueId, usize)> {
        let frequencies = frequencies(rope, self.decoder.config.served_positions);
        let shape = [frequencies.inverse.len()];
        let (graph, positions) = (&mut self.decoder.graph, self.decoder.positions);
        let recipe = Recipe::Constant(frequencies.inverse);
        let weight = graph.weight(format!("{prefix}rope.inverse_frequencies"), &shape, recipe);
        let op = Op::RopeAngles { scale: frequencies.scale };
        Ok((graph.apply(op, &[positions], &[weight], format!("{prefix}angles"))?, rope.rotary_dim))
    }

    fn layer(&mut self, layer: usize, hidden: ValueId, angles: (ValueId, usize)) -> Result<ValueId> {
        let name = |role: &str| format!("layers.{layer}.{role}");
        let Norms { attention, mlp } = self.design.norms;

        let normed = self.norm(hidden, &name(attention.before), name("attention_norm"))?;
        let attended = self.attention(layer, normed, angles)?;
        let attended = self.norm_after(attended, attention.after.map(name), name("attended"))?;
        let hidden = self.decoder.add(hidden, attended, name("attention_sum"))?;

        let normed = self.norm(hidden, &name(mlp.before), name("mlp_norm"))?;
        let fed = self.mlp(layer, normed)?;
        let fed = self.norm_after(fed, mlp.after.map(name), name("fed"))?;
        self.decoder.add(hidden, fed, name("mlp_sum"))
    }

    fn attention(&mut self, layer: usize, x: ValueId, (angles, rotary_dim): (ValueId, usize)) -> Result<ValueId> {
        let (head_dim, name) = (self.decoder.config.head_dim, |role: &str| format!("layers.{layer}.{role}"));
        let mut q = self.project(layer, Role::Q, x)?;
        let mut k = self.project(layer, Role::K, x)?;
        let v = self.project(layer, Role::V, x)?;
        if self.design.head_norms {
            q = self.norm_by(q, &name("self_attn.q_norm"), head_dim, name("q_norm"))?;
            k = self.norm_by(k, &name("self_attn.k_norm"), head_dim, name("k_norm"))?;
        }
        let rope = Op::Rope(RopeSpec { head_dim, rotary_dim });
        let q = self.decoder.graph.apply(rope.clone(), &[q, angles], &[], name("q_rope"))?;
        let k = self.decoder.graph.apply(rope, &[k, angles], &[], name("k_rope"))?;
        let attended = self.decoder.attend(q, k, v, layer)?;
        self.project(layer, Role::O, attended)
    }

    fn mlp(&mut self, layer: usize, x: ValueId) -> Result<ValueId> {
        let name = |role: &str| format!("layers.{layer}.{role}");
        let activate = Op::Activate { activation: self.decoder.config.activation };
        let gate = self.project(layer, Role::Gate, x)?;
        let gate = self.decoder.graph.apply(activate, &[gate], &[], name("gate_activation"))?;
        let up = self.project(layer, Role::Up, x)?;
        let gated = self.decoder.graph.apply(Op::Mul, &[gate, up], &[], name("gated"))?;
        self.project(layer, Role::Down, gated)
    }

    fn project(&mut self, layer: usize, role: Role, x: ValueId) -> Result<ValueId> {
        let parameters = self.design.projections.read(&mut self.decoder, layer, role)?;
        self.decoder.linear(x, &parameters, format!("layers.{layer}.{}", role.name()))
    }

    fn norm(&mut self, x: ValueId, module: &str, name: String) -> Result<ValueId> {
        self.norm_by(x, module, self.decoder.config.hidden_size, name)
    }

    /// [`Gated::norm`] where there is such a module.
    fn norm_after(&mut self, x: ValueId, module: Option<String>, name: String) -> Result<ValueId> {
        match module {
            Some(module) => self.norm(x, &module, name),
            None => Ok(x),
        }
    }

    /// Norms each `part` columns of `x` with the gain of `module`.
    fn norm_by(&mut self, x: ValueId, module: &str, part: usize, name: String) -> Result<ValueId> {
        let (tensor, eps) = (format!("{module}.weight"), self.decoder.config.norm_eps);
        let stored = self.decoder.tensors.body(&tensor, &[part])?;
        let gain = match self.design.gains {
            Gains::Themselves => stored,
            Gains::AboveOne => stored.plus(1.0),
        };
        let gain = self.decoder.graph.weight(tensor, &[part], gain);
        self.decoder.graph.apply(Op::RmsNorm { eps }, &[x], &[gain], name)
    }
}
