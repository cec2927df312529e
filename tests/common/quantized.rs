//! A small model with random codes and known scales, as quantised Hugging Face checkpoints and as plain f32.

use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use trtllm::builder::BuildOptions;
use trtllm::engine::{Engine, Granularity};
use trtllm::types::{bf16, e4m3};

use super::{Random, engine_with};

pub const HIDDEN: usize = 256;
pub const KV: usize = 128;
pub const FEED_FORWARD: usize = 384;
pub const VOCABULARY: usize = 200;
pub const LAYERS: usize = 2;

/// How a fixture's linear weights are scaled, and how the checkpoint says so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scheme {
    /// DeepSeek's: `weight_scale_inv` of 128 x 128 blocks.
    Blocks,
    /// compressed-tensors with one bf16 scale per tensor.
    Tensor,
    /// compressed-tensors with one bf16 scale per row, `[N, 1]`.
    Channels,
    /// fbgemm: one f32 scale per row.
    Rows,
}

impl Scheme {
    pub const ALL: [Scheme; 4] = [Scheme::Blocks, Scheme::Tensor, Scheme::Channels, Scheme::Rows];

    pub fn config(self) -> &'static str {
        match self {
            Scheme::Blocks => {
                r#"{"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}"#
            }
            Scheme::Tensor => {
                r#"{"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"],
                "config_groups": {"group_0": {"targets": ["Linear"], "weights":
                    {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": true}}}}"#
            }
            Scheme::Channels => {
                r#"{"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"],
                "config_groups": {"group_0": {"targets": ["Linear"], "weights":
                    {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": true}}}}"#
            }
            Scheme::Rows => r#"{"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["lm_head"]}"#,
        }
    }

    fn scale_shape(self, rows: usize, columns: usize) -> Vec<usize> {
        match self {
            Scheme::Blocks => vec![rows.div_ceil(128), columns.div_ceil(128)],
            Scheme::Tensor => vec![],
            Scheme::Channels => vec![rows, 1],
            Scheme::Rows => vec![rows],
        }
    }

    /// Which scale an element has.
    fn scale_of(self, row: usize, column: usize, columns: usize) -> usize {
        match self {
            Scheme::Blocks => row / 128 * columns.div_ceil(128) + column / 128,
            Scheme::Tensor => 0,
            Scheme::Channels | Scheme::Rows => row,
        }
    }

    pub fn granularity(self) -> Granularity {
        if self == Scheme::Blocks { Granularity::Block } else { Granularity::Row }
    }
}

/// A tensor of a safetensors file.
pub struct Stored {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Stored {
    fn view(&self) -> TensorView<'_> {
        TensorView::new(self.dtype, self.shape.clone(), &self.bytes).expect("the bytes fit the shape")
    }
}

/// The same model quantised and as plain f32.
pub struct Models {
    scheme: Scheme,
    random: Random,
    pub quantized: Vec<Stored>,
    pub plain: Vec<Stored>,
}

impl Models {
    pub fn new(scheme: Scheme, seed: u64) -> Self {
        let mut models = Self { scheme, random: Random(seed), quantized: Vec::new(), plain: Vec::new() };
        models.add_plain("model.embed_tokens.weight", &[VOCABULARY, HIDDEN], 1.0);
        models.add_plain("lm_head.weight", &[VOCABULARY, HIDDEN], 0.1);
        models.add_plain("model.norm.weight", &[HIDDEN], 1.0);
        for layer in 0..LAYERS {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            models.add_plain(&name("input_layernorm"), &[HIDDEN], 1.0);
            models.add_plain(&name("post_attention_layernorm"), &[HIDDEN], 1.0);
            for (part, rows, columns) in [
                ("self_attn.q_proj", HIDDEN, HIDDEN),
                ("self_attn.k_proj", KV, HIDDEN),
                ("self_attn.v_proj", KV, HIDDEN),
                ("self_attn.o_proj", HIDDEN, HIDDEN),
                ("mlp.gate_proj", FEED_FORWARD, HIDDEN),
                ("mlp.up_proj", FEED_FORWARD, HIDDEN),
                ("mlp.down_proj", HIDDEN, FEED_FORWARD),
            ] {
                models.add_quantized(&name(part), rows, columns);
            }
        }
        models
    }

    fn uniform(&mut self) -> f32 {
        (self.random.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// A tensor that bf16 holds exactly, stored so by the quantised checkpoint.
    fn add_plain(&mut self, name: &str, shape: &[usize], size: f32) {
        let count = shape.iter().product();
        let values: Vec<u16> = (0..count).map(|_| bf16::encode(self.uniform() * size)).collect();
        let halves = values.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let words = values.iter().flat_map(|bits| bf16::decode(*bits).to_le_bytes()).collect();
        self.quantized.push(Stored { name: name.into(), dtype: Dtype::BF16, shape: shape.to_vec(), bytes: halves });
        self.plain.push(Stored { name: name.into(), dtype: Dtype::F32, shape: shape.to_vec(), bytes: words });
    }

    fn add_quantized(&mut self, name: &str, rows: usize, columns: usize) {
        let codes: Vec<u8> = (0..rows * columns).map(|_| e4m3::encode(self.uniform() * 448.0)).collect();
        let scale_shape = self.scheme.scale_shape(rows, columns);
        let count: usize = scale_shape.iter().product();
        let scales: Vec<f32> =
            (0..count).map(|_| bf16::decode(bf16::encode((self.uniform() + 2.0) / 8000.0))).collect();
        let value = |(index, code): (usize, &u8)| {
            e4m3::decode(*code) * scales[self.scheme.scale_of(index / columns, index % columns, columns)]
        };
        let values = codes.iter().enumerate().map(value).flat_map(f32::to_le_bytes).collect();
        let shape = vec![rows, columns];
        self.plain.push(Stored { name: name.into(), dtype: Dtype::F32, shape: shape.clone(), bytes: values });
        self.quantized.push(Stored { name: name.into(), dtype: Dtype::F8_E4M3, shape, bytes: codes });
        let (suffix, dtype, bytes) = match self.scheme {
            Scheme::Blocks => ("_scale_inv", Dtype::F32, scales.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Scheme::Rows => ("_scale", Dtype::F32, scales.iter().flat_map(|x| x.to_le_bytes()).collect()),
            _ => ("_scale", Dtype::BF16, scales.iter().flat_map(|x| bf16::encode(*x).to_le_bytes()).collect()),
        };
        self.quantized.push(Stored { name: format!("{name}{suffix}"), dtype, shape: scale_shape, bytes });
    }

    pub fn write(&self, folder: &Path, quantized: bool) {
        let (tensors, quantization) = match quantized {
            true => (&self.quantized, self.scheme.config()),
            false => (&self.plain, "null"),
        };
        let views = tensors.iter().map(|stored| (stored.name.as_str(), stored.view()));
        safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).expect("writes");
        let config = format!(
            r#"{{"architectures": ["LlamaForCausalLM"], "vocab_size": {VOCABULARY}, "hidden_size": {HIDDEN},
            "intermediate_size": {FEED_FORWARD}, "num_hidden_layers": {LAYERS}, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
            "tie_word_embeddings": false, "quantization_config": {quantization}}}"#
        );
        std::fs::write(folder.join("config.json"), config).expect("writes");
    }

    pub fn engine(&self, quantized: bool, options: &BuildOptions) -> Arc<Engine> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        self.write(folder.path(), quantized);
        engine_with(folder.path(), options)
    }
}
