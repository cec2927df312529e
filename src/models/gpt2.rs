//! GPT-2: layer norms with biases, learned positions, one fused q/k/v tensor, matrices stored `[in, out]`.

use super::Tensors;
use super::block::{Affine, Decoder};
use crate::checkpoint::ModelConfig;
use crate::error::Result;
use crate::network::{Graph, Recipe, ValueId};
use crate::types::Op;

/// The graph of a GPT-2 model.
pub(super) fn build(config: &ModelConfig, tensors: &Tensors) -> Result<Graph> {
    let mut gpt2 = Gpt2 { decoder: Decoder::new("gpt2", config, tensors) };
    let graph = &mut gpt2.decoder.graph;
    let table = tensors.weight(graph, "wte.weight", &[config.vocab_size, config.hidden_size])?;
    let positions = tensors.weight(graph, "wpe.weight", &[config.max_positions, config.hidden_size])?;
    let words = graph.apply(Op::Embedding { scale: 1.0 }, &[gpt2.decoder.ids], &[table], "words")?;
    let places = graph.apply(Op::PositionEmbedding, &[gpt2.decoder.positions], &[positions], "places")?;
    let mut hidden = gpt2.decoder.add(words, places, "hidden".into())?;
    for layer in 0..config.layers {
        hidden = gpt2.layer(layer, hidden)?;
    }
    let rows = gpt2.decoder.gather(hidden)?;
    let normed = gpt2.norm(rows, "ln_f", "norm".into())?;
    gpt2.decoder.head(normed, table)
}

struct Gpt2<'a> {
    decoder: Decoder<'a>,
}

impl Gpt2<'_> {
    fn layer(&mut self, layer: usize, hidden: ValueId) -> Result<ValueId> {
        let name = |role: &str| format!("layers.{layer}.{role}");
        let normed = self.norm(hidden, &format!("h.{layer}.ln_1"), name("attention_norm"))?;
        let attended = self.attention(layer, normed)?;
        let hidden = self.decoder.add(hidden, attended, name("attention_sum"))?;
        let normed = self.norm(hidden, &format!("h.{layer}.ln_2"), name("mlp_norm"))?;
        let projected = self.mlp(layer, normed)?;
        self.decoder.add(hidden, projected, name("mlp_sum"))
    }

    fn attention(&mut self, layer: usize, x: ValueId) -> Result<ValueId> {
        let (hidden, name) = (self.decoder.config.hidden_size, |role: &str| format!("layers.{layer}.{role}"));
        let fused = Conv1d::read(self.decoder.tensors, &format!("h.{layer}.attn.c_attn"), [hidden, 3 * hidden])?;
        let q = self.project(x, &fused.outputs(0, hidden), name("q"))?;
        let k = self.project(x, &fused.outputs(hidden, hidden), name("k"))?;
        let v = self.project(x, &fused.outputs(2 * hidden, hidden), name("v"))?;
        let attended = self.decoder.attend(q, k, v, layer)?;
        let output = Conv1d::read(self.decoder.tensors, &format!("h.{layer}.attn.c_proj"), [hidden, hidden])?;
        self.project(attended, &output, name("o"))
    }

    fn mlp(&mut self, layer: usize, x: ValueId) -> Result<ValueId> {
        let (config, name) = (self.decoder.config, |role: &str| format!("layers.{layer}.{role}"));
        let (hidden, width) = (config.hidden_size, config.intermediate_size);
        let up = Conv1d::read(self.decoder.tensors, &format!("h.{layer}.mlp.c_fc"), [hidden, width])?;
        let up = self.project(x, &up, name("up"))?;
        let activate = Op::Activate { activation: config.activation };
        let active = self.decoder.graph.apply(activate, &[up], &[], name("activation"))?;
        let down = Conv1d::read(self.decoder.tensors, &format!("h.{layer}.mlp.c_proj"), [width, hidden])?;
        self.project(active, &down, name("down"))
    }

    fn project(&mut self, x: ValueId, conv: &Conv1d, name: String) -> Result<ValueId> {
        let graph = &mut self.decoder.graph;
        let weight = graph.weight(format!("{name}.weight"), &[conv.outputs, conv.inputs], conv.weight.clone());
        let bias = Some(graph.weight(format!("{name}.bias"), &[conv.outputs], conv.bias.clone()));
        self.decoder.linear(x, &Affine { weight, bias }, name)
    }

    fn norm(&mut self, x: ValueId, module: &str, name: String) -> Result<ValueId> {
        let (config, tensors, graph) = (self.decoder.config, self.decoder.tensors, &mut self.decoder.graph);
        let shape = [config.hidden_size];
        let gain = tensors.weight(graph, &format!("{module}.weight"), &shape)?;
        let bias = tensors.weight(graph, &format!("{module}.bias"), &shape)?;
        graph.apply(Op::LayerNorm { eps: config.norm_eps }, &[x], &[gain, bias], name)
    }
}

/// A linear layer whose checkpoint tensor is `[inputs, outputs]`.
struct Conv1d {
    weight: Recipe,
    bias: Recipe,
    inputs: usize,
    outputs: usize,
}

impl Conv1d {
    fn read(tensors: &Tensors, module: &str, [inputs, outputs]: [usize; 2]) -> Result<Self> {
        let weight = tensors.body(&format!("{module}.weight"), &[inputs, outputs])?.transposed();
        let bias = tensors.body(&format!("{module}.bias"), &[outputs])?;
        Ok(Self { weight, bias, inputs, outputs })
    }

    /// The part that computes outputs `start..start+count`.
    fn outputs(&self, start: usize, count: usize) -> Self {
        Self {
            weight: self.weight.clone().rows(start, count),
            bias: self.bias.clone().rows(start, count),
            inputs: self.inputs,
            outputs: count,
        }
    }
}
