//! Architecture string to family.

use std::cell::RefCell;

use super::{TensorIndex, Tensors, gemma2, gemma3, gpt2, llama, mistral, phi3, qwen2, qwen3};
use crate::checkpoint::ModelConfig;
use crate::error::{Error, Result};
use crate::network::Graph;

struct Family {
    architecture: &'static str,
    /// Prefix under which a checkpoint may store the model's body, and a tensor that tells whether it does.
    prefix: &'static str,
    probe: &'static str,
    build: fn(&ModelConfig, &Tensors) -> Result<Graph>,
}

/// A family whose body is stored under `model.`.
const fn gated(architecture: &'static str, build: fn(&ModelConfig, &Tensors) -> Result<Graph>) -> Family {
    Family { architecture, prefix: "model.", probe: "embed_tokens.weight", build }
}

const FAMILIES: [Family; 8] = [
    gated("LlamaForCausalLM", llama::build),
    gated("Qwen2ForCausalLM", qwen2::build),
    gated("Qwen3ForCausalLM", qwen3::build),
    gated("MistralForCausalLM", mistral::build),
    gated("Phi3ForCausalLM", phi3::build),
    gated("Gemma2ForCausalLM", gemma2::build),
    gated("Gemma3ForCausalLM", gemma3::build),
    Family { architecture: "GPT2LMHeadModel", prefix: "transformer.", probe: "wte.weight", build: gpt2::build },
];

/// The verified graph of a model: inputs `ids` and `positions`, output `logits[logit_rows, vocab_size]`.
///
/// # Errors
/// `Unsupported` naming an architecture without a family; `InvalidCheckpoint` naming a tensor that is missing or
/// misshapen.
pub fn build(config: &ModelConfig, tensors: &dyn TensorIndex) -> Result<Graph> {
    let family = family(&config.architecture)?;
    let graph = (family.build)(config, &Tensors::of(tensors, family.prefix, family.probe))?;
    graph.verify()?;
    Ok(graph)
}

/// Names and shapes of all checkpoint tensors that [`build`] would ask for: what a made-up checkpoint has to hold.
///
/// # Errors
/// `Unsupported` naming an architecture without a family.
pub fn wanted_tensors(config: &ModelConfig) -> Result<Vec<(String, Vec<usize>)>> {
    let family = family(&config.architecture)?;
    let wanted = RefCell::new(Vec::new());
    (family.build)(config, &Tensors::noting(&wanted, family.prefix))?;
    Ok(wanted.into_inner())
}

fn family(architecture: &str) -> Result<&'static Family> {
    FAMILIES.iter().find(|family| family.architecture == architecture).ok_or_else(|| Error::Unsupported {
        what: format!("architecture `{architecture}`"),
        why: format!("this build has {}", FAMILIES.map(|family| family.architecture).join(", ")),
    })
}

#[cfg(test)]
mod tests;
