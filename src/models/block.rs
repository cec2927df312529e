//! What decoder families have in common: a graph under construction with its two inputs and the caches of its layers,
//! one group for each window.

use super::Tensors;
use crate::checkpoint::ModelConfig;
use crate::error::{Error, Result};
use crate::network::{CacheGroup, Graph, ValueId, WeightId};
use crate::types::{AttentionSpec, Op};

/// A decoder under construction.
pub(super) struct Decoder<'a> {
    pub graph: Graph,
    pub tensors: &'a Tensors<'a>,
    pub config: &'a ModelConfig,
    pub ids: ValueId,
    pub positions: ValueId,
}

/// A linear layer's parameters.
pub(super) struct Affine {
    pub weight: WeightId,
    pub bias: Option<WeightId>,
}

impl<'a> Decoder<'a> {
    pub fn new(name: &str, config: &'a ModelConfig, tensors: &'a Tensors<'a>) -> Self {
        let mut graph = Graph::new(name);
        let (ids, positions) = (graph.input("ids"), graph.input("positions"));
        for (layer, window) in config.windows.iter().enumerate() {
            match graph.caches.iter_mut().find(|group| group.window == *window) {
                Some(group) => group.layers.push(layer),
                None => graph.caches.push(CacheGroup {
                    layers: vec![layer],
                    kv_heads: config.kv_heads,
                    head_dim: config.head_dim,
                    window: *window,
                }),
            }
        }
        Self { graph, tensors, config, ids, positions }
    }

    pub fn linear(&mut self, x: ValueId, affine: &Affine, name: String) -> Result<ValueId> {
        let weights = [Some(affine.weight), affine.bias].into_iter().flatten().collect::<Vec<_>>();
        self.graph.apply(Op::Linear { bias: affine.bias.is_some(), activation: None }, &[x], &weights, name)
    }

    /// Appends k and v to layer `layer`'s cache and attends to it.
    pub fn attend(&mut self, q: ValueId, k: ValueId, v: ValueId, layer: usize) -> Result<ValueId> {
        let spec = self.attention(layer)?;
        let cache = self.graph.apply(Op::CacheAppend(spec), &[k, v], &[], format!("layers.{layer}.cache"))?;
        self.graph.apply(Op::Attention(spec), &[q, cache], &[], format!("layers.{layer}.attention"))
    }

    pub fn add(&mut self, x: ValueId, y: ValueId, name: String) -> Result<ValueId> {
        self.graph.apply(Op::Add, &[x, y], &[], name)
    }

    /// The rows whose logits are wanted: what follows is computed for them alone.
    pub fn gather(&mut self, x: ValueId) -> Result<ValueId> {
        self.graph.apply(Op::GatherRows, &[x], &[], "rows")
    }

    /// The output head: the embedding table when tied, else a tensor of its own; capped where the model caps its logits.
    pub fn head(mut self, x: ValueId, table: WeightId) -> Result<Graph> {
        let shape = [self.config.vocab_size, self.config.hidden_size];
        let weight = if self.config.tie_word_embeddings {
            table
        } else {
            let recipe = self.tensors.top("lm_head.weight", &shape)?;
            self.graph.weight("lm_head.weight", &shape, recipe)
        };
        let head = Affine { weight, bias: None };
        let logits = match self.config.logit_soft_cap {
            None => self.linear(x, &head, "logits".into())?,
            Some(cap) => {
                let uncapped = self.linear(x, &head, "uncapped_logits".into())?;
                self.graph.apply(Op::SoftCap { cap }, &[uncapped], &[], "logits")?
            }
        };
        self.graph.output("logits", logits);
        Ok(self.graph)
    }

    fn attention(&self, layer: usize) -> Result<AttentionSpec> {
        let config = self.config;
        let root = config.attention_scale.by_root_of.sqrt();
        let by_layer = if config.attention_scale.by_layer { (layer + 1) as f64 } else { 1.0 };
        let (group, place) = self.cache(layer).ok_or_else(|| Error::internal("attention", "a layer has no cache"))?;
        Ok(AttentionSpec {
            group,
            layer: place,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            scale: (1.0 / (root * by_layer)) as f32,
            soft_cap: config.attention_soft_cap,
        })
    }

    /// The cache group of `layer` and its place there.
    fn cache(&self, layer: usize) -> Option<(usize, usize)> {
        let groups = self.graph.caches.iter().enumerate();
        groups.filter_map(|(at, group)| Some((at, group.layers.iter().position(|l| *l == layer)?))).next()
    }
}
