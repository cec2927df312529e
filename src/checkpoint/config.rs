//! `config.json` and `generation_config.json`, as transformers 4 and 5 write them, checked before anything is sized.

mod fields;
mod gated;
mod gemma2;
mod gemma3;
mod generation;
mod gpt2;
mod llama;
mod mistral;
mod phi3;
mod quantization;
mod qwen2;
mod qwen3;
mod rope;

use super::source::SCALE_BLOCK;
use crate::error::{Error, Result};
use crate::types::{Activation, DType};
use fields::Fields;

pub use generation::GenerationDefaults;
pub use rope::{LongRope, RopeConfig, RopeScaling, Yarn};

/// Largest `config.json` or `generation_config.json` that is read, in bytes.
pub const MAX_CONFIG_BYTES: usize = 4 << 20;

/// Upper bounds far beyond real models; they keep a wrong number from becoming an absurd allocation.
const MAX_LAYERS: u64 = 1024;
const MAX_HEADS: u64 = 1 << 14;
const MAX_HEAD_DIM: u64 = 1 << 13;
const MAX_WIDTH: u64 = 1 << 20;
const MAX_VOCAB: u64 = 1 << 24;
const MAX_POSITIONS: u64 = 1 << 27;

/// How attention scores are scaled, beside the learned parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionScale {
    /// Divide by the square root of this positive number, most often the head size.
    pub by_root_of: f64,
    /// Divide the scores of layer `i` by `i + 1`.
    pub by_layer: bool,
}

/// What a checkpoint's configuration says of the model, whatever its family calls it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// E.g. `LlamaForCausalLM`; one of [`ARCHITECTURES`].
    pub architecture: String,
    /// Element type the checkpoint was saved in, when it says so and it is one of ours.
    pub dtype: Option<DType>,
    pub vocab_size: usize,
    pub hidden_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    /// Divides `heads`.
    pub kv_heads: usize,
    pub head_dim: usize,
    /// By layer: tokens that attention sees, the querying one included; `None` is the whole context.
    pub windows: Vec<Option<usize>>,
    /// Most positions the model was made for.
    pub max_positions: usize,
    /// Positions that are in use, at most `max_positions` and as many unless someone asks for fewer: what a model has for
    /// short and for long contexts is chosen by this number alone, never by how long a request has become.
    pub served_positions: usize,
    pub activation: Activation,
    pub norm_eps: f32,
    /// The output head is the embedding table.
    pub tie_word_embeddings: bool,
    /// All four projections of attention have biases.
    pub attention_bias: bool,
    /// All projections of the feed-forward layers have biases.
    pub mlp_bias: bool,
    pub attention_scale: AttentionScale,
    /// Soft caps of attention scores and of logits; positive.
    pub attention_soft_cap: Option<f32>,
    pub logit_soft_cap: Option<f32>,
    /// `None` for families with learned positions.
    pub rope: Option<RopeConfig>,
    /// Of the layers with a window, where theirs is another one.
    pub local_rope: Option<RopeConfig>,
    /// Ids below `vocab_size` that end a generation; those of `generation_config.json` win over those of `config.json`.
    pub eos_token_ids: Vec<u32>,
    pub bos_token_id: Option<u32>,
    pub pad_token_id: Option<u32>,
    pub generation: GenerationDefaults,
}

type Reader = fn(&Fields) -> Result<ModelConfig>;

/// Readers by architecture and by the `model_type` that stands in when `architectures` is absent.
const FAMILIES: [(&str, &str, Reader); 8] = [
    ("LlamaForCausalLM", "llama", llama::read),
    ("Qwen2ForCausalLM", "qwen2", qwen2::read),
    ("Qwen3ForCausalLM", "qwen3", qwen3::read),
    ("MistralForCausalLM", "mistral", mistral::read),
    ("Phi3ForCausalLM", "phi3", phi3::read),
    ("Gemma2ForCausalLM", "gemma2", gemma2::read),
    ("Gemma3ForCausalLM", "gemma3_text", gemma3::read),
    ("GPT2LMHeadModel", "gpt2", gpt2::read),
];

/// Architectures that [`ModelConfig::parse`] reads.
pub const ARCHITECTURES: [&str; FAMILIES.len()] = {
    let mut names = [""; FAMILIES.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = FAMILIES[at].0;
        at += 1;
    }
    names
};

impl ModelConfig {
    /// Reads the bytes of `config.json` and, when there is one, of `generation_config.json`.
    ///
    /// # Errors
    /// `InvalidConfig` naming the field that is malformed or out of range; `Unsupported` naming an architecture,
    /// quantisation, rope type or option that this library does not have.
    pub fn parse(config: &[u8], generation: Option<&[u8]>) -> Result<Self> {
        let json = object("config.json", config)?;
        let fields = Fields::new("config.json", &json);
        quantization::check(&fields)?;
        let read = family(&fields)?;
        let mut parsed = read(&fields)?;
        if let Some(bytes) = generation {
            let json = object("generation_config.json", bytes)?;
            parsed.merge(generation::read(&Fields::new("generation_config.json", &json))?);
        }
        parsed.keep_known_tokens();
        Ok(parsed)
    }

    fn merge(&mut self, file: generation::File) {
        if !file.defaults.eos_token_ids.is_empty() {
            self.eos_token_ids.clone_from(&file.defaults.eos_token_ids);
        }
        self.bos_token_id = file.bos_token_id.or(self.bos_token_id);
        self.pad_token_id = file.pad_token_id.or(self.pad_token_id);
        self.generation = file.defaults;
    }

    /// An id outside the vocabulary can never be produced, so it says nothing.
    fn keep_known_tokens(&mut self) {
        let known = |id: &u32| (*id as usize) < self.vocab_size;
        self.eos_token_ids.retain(known);
        self.bos_token_id = self.bos_token_id.filter(known);
        self.pad_token_id = self.pad_token_id.filter(known);
        self.generation.eos_token_ids.clone_from(&self.eos_token_ids);
    }
}

fn object(file: &str, bytes: &[u8]) -> Result<serde_json::Map<String, serde_json::Value>> {
    if bytes.len() > MAX_CONFIG_BYTES {
        let why = format!("{} bytes; at most {MAX_CONFIG_BYTES} are read", bytes.len());
        return Err(Error::InvalidConfig { what: file.into(), why });
    }
    serde_json::from_slice(bytes).map_err(|e| Error::InvalidConfig { what: file.into(), why: e.to_string() })
}

fn family(fields: &Fields) -> Result<Reader> {
    let named = fields.texts("architectures")?.unwrap_or_default();
    let model_type = fields.text("model_type")?;
    let found = FAMILIES.iter().find(|(architecture, family, _)| match named.as_slice() {
        [] => model_type == Some(family),
        names => names.contains(architecture),
    });
    match (found, named.first().copied().or(model_type)) {
        (Some((_, _, reader)), _) => Ok(*reader),
        (None, None) => Err(fields.invalid("architectures", "is missing")),
        (None, Some(name)) => Err(Error::Unsupported {
            what: format!("architecture `{name}`"),
            why: format!("this build reads {}", ARCHITECTURES.join(", ")),
        }),
    }
}

/// The element type that `dtype` (transformers 5) or `torch_dtype` (4) names; others tell nothing we can use.
fn dtype(fields: &Fields) -> Result<Option<DType>> {
    let name = match fields.text("dtype")? {
        Some(name) => Some(name),
        None => fields.text("torch_dtype")?,
    };
    Ok(match name.map(|n| n.trim_start_matches("torch.")) {
        Some("float32") => Some(DType::F32),
        Some("float16") => Some(DType::F16),
        Some("bfloat16") => Some(DType::BF16),
        _ => None,
    })
}

/// The activation that `field` names, as transformers calls it.
fn activation(fields: &Fields, field: &str, default: Activation) -> Result<Activation> {
    Ok(match fields.text(field)? {
        None => default,
        Some("silu" | "swish") => Activation::Silu,
        Some("gelu" | "gelu_python") => Activation::Gelu,
        Some("gelu_new" | "gelu_fast" | "gelu_accurate" | "gelu_pytorch_tanh" | "gelu_python_tanh") => {
            Activation::GeluTanh
        }
        Some("relu") => Activation::Relu,
        Some(other) => {
            let what = format!("{field} `{other}`");
            return Err(Error::Unsupported { what, why: "silu, gelu, gelu_new and relu are there".into() });
        }
    })
}

#[cfg(test)]
mod tests;
