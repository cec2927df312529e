//! What families of rotary decoders share: RMS norms, rotary positions, grouped-query attention, a gated feed-forward layer.

use super::block::{Affine, Decoder};
use super::{Tensors, frequencies};
use crate::checkpoint::ModelConfig;
use crate::error::{Error, Result};
use crate::network::{Graph, Recipe, ValueId};
use crate::types::{Op, RopeSpec};

/// Which projections have biases.
pub(super) struct Biases {
    pub qkv: bool,
    pub output: bool,
    pub mlp: bool,
}

/// The graph of such a model, named `name`.
pub(super) fn build(name: &str, config: &ModelConfig, tensors: &Tensors, biases: Biases) -> Result<Graph> {
    let mut gated = Gated { decoder: Decoder::new(name, config, tensors), biases };
    let angles = gated.angles()?;
    let shape = [config.vocab_size, config.hidden_size];
    let table = tensors.weight(&mut gated.decoder.graph, "embed_tokens.weight", &shape)?;
    let ids = gated.decoder.ids;
    let mut hidden = gated.decoder.graph.apply(Op::Embedding { scale: 1.0 }, &[ids], &[table], "hidden")?;
    for layer in 0..config.layers {
        hidden = gated.layer(layer, hidden, angles)?;
    }
    let rows = gated.decoder.gather(hidden)?;
    let normed = gated.norm(rows, "norm.weight", "norm".into())?;
    gated.decoder.head(normed, table)
}

struct Gated<'a> {
    decoder: Decoder<'a>,
    biases: Biases,
}

impl Gated<'_> {
    fn angles(&mut self) -> Result<ValueId> {
        let config = self.decoder.config;
        let rope = config.rope.ok_or_else(|| Error::internal("rope angles", "the configuration has no rope"))?;
        let frequencies = frequencies(&rope, config.head_dim);
        let shape = [frequencies.inverse.len()];
        let recipe = Recipe::Constant(frequencies.inverse);
        let weight = self.decoder.graph.weight("rope.inverse_frequencies", &shape, recipe);
        let positions = self.decoder.positions;
        self.decoder.graph.apply(Op::RopeAngles { scale: frequencies.scale }, &[positions], &[weight], "angles")
    }

    fn layer(&mut self, layer: usize, hidden: ValueId, angles: ValueId) -> Result<ValueId> {
        let name = |role: &str| format!("layers.{layer}.{role}");
        let normed = self.norm(hidden, &name("input_layernorm.weight"), name("attention_norm"))?;
        let attended = self.attention(layer, normed, angles)?;
        let hidden = self.decoder.add(hidden, attended, name("attention_sum"))?;
        let normed = self.norm(hidden, &name("post_attention_layernorm.weight"), name("mlp_norm"))?;
        let down = self.mlp(layer, normed)?;
        self.decoder.add(hidden, down, name("mlp_sum"))
    }

    fn attention(&mut self, layer: usize, x: ValueId, angles: ValueId) -> Result<ValueId> {
        let (config, name) = (self.decoder.config, |role: &str| format!("layers.{layer}.{role}"));
        let (hidden, bias) = (config.hidden_size, self.biases.qkv);
        let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let q = self.project(x, &name("self_attn.q_proj"), [queries, hidden], bias, name("q"))?;
        let k = self.project(x, &name("self_attn.k_proj"), [keys, hidden], bias, name("k"))?;
        let v = self.project(x, &name("self_attn.v_proj"), [keys, hidden], bias, name("v"))?;
        let rope = Op::Rope(RopeSpec { head_dim: config.head_dim, rotary_dim: config.head_dim });
        let q = self.decoder.graph.apply(rope.clone(), &[q, angles], &[], name("q_rope"))?;
        let k = self.decoder.graph.apply(rope, &[k, angles], &[], name("k_rope"))?;
        let attended = self.decoder.attend(q, k, v, layer)?;
        self.project(attended, &name("self_attn.o_proj"), [hidden, queries], self.biases.output, name("o"))
    }

    fn mlp(&mut self, layer: usize, x: ValueId) -> Result<ValueId> {
        let (config, name) = (self.decoder.config, |role: &str| format!("layers.{layer}.{role}"));
        let (hidden, width, bias) = (config.hidden_size, config.intermediate_size, self.biases.mlp);
        let activate = Op::Activate { activation: config.activation };
        let gate = self.project(x, &name("mlp.gate_proj"), [width, hidden], bias, name("gate"))?;
        let gate = self.decoder.graph.apply(activate, &[gate], &[], name("gate_activation"))?;
        let up = self.project(x, &name("mlp.up_proj"), [width, hidden], bias, name("up"))?;
        let gated = self.decoder.graph.apply(Op::Mul, &[gate, up], &[], name("gated"))?;
        self.project(gated, &name("mlp.down_proj"), [hidden, width], bias, name("down"))
    }

    /// `x W^T (+ b)` with the parameters of module `module`.
    fn project(&mut self, x: ValueId, module: &str, shape: [usize; 2], bias: bool, name: String) -> Result<ValueId> {
        let (tensors, graph) = (self.decoder.tensors, &mut self.decoder.graph);
        let weight = tensors.weight(graph, &format!("{module}.weight"), &shape)?;
        let bias = if bias { Some(tensors.weight(graph, &format!("{module}.bias"), &shape[..1])?) } else { None };
        self.decoder.linear(x, &Affine { weight, bias }, name)
    }

    fn norm(&mut self, x: ValueId, tensor: &str, name: String) -> Result<ValueId> {
        let config = self.decoder.config;
        let gain = self.decoder.tensors.weight(&mut self.decoder.graph, tensor, &[config.hidden_size])?;
        self.decoder.graph.apply(Op::RmsNorm { eps: config.norm_eps }, &[x], &[gain], name)
    }
}
