//! Printed networks of each family, as built and after all passes, against `tests/golden/`.
//! `BLESS=1 cargo test --release --test networks` writes the files anew; read the difference before committing it.
#![cfg(feature = "compiler")]

use std::collections::HashMap;
use std::path::Path;

use trtllm::checkpoint::ModelConfig;
use trtllm::models::{build, wanted_tensors};
use trtllm::network::Graph;
use trtllm::passes::{PassSet, run};

const LLAMA: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "vocab_size": 300, "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "rope_theta": 10000.0,
    "max_position_embeddings": 512, "tie_word_embeddings": true, "rms_norm_eps": 1e-5
}"#;

const LLAMA_BIASED: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "vocab_size": 300, "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 32, "attention_bias": true, "mlp_bias": true,
    "rope_parameters": {"rope_type": "yarn", "rope_theta": 5e5, "factor": 4.0, "original_max_position_embeddings": 128},
    "max_position_embeddings": 512
}"#;

const QWEN2: &str = r#"{
    "architectures": ["Qwen2ForCausalLM"], "vocab_size": 300, "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": true,
    "use_sliding_window": true, "sliding_window": 64, "max_window_layers": 1, "max_position_embeddings": 512
}"#;

const MISTRAL: &str = r#"{
    "architectures": ["MistralForCausalLM"], "vocab_size": 300, "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 64,
    "max_position_embeddings": 512
}"#;

const QWEN3: &str = r#"{
    "architectures": ["Qwen3ForCausalLM"], "vocab_size": 300, "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 128,
    "max_position_embeddings": 512
}"#;

const PHI3: &str = r#"{
    "architectures": ["Phi3ForCausalLM"], "vocab_size": 300, "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "partial_rotary_factor": 0.75,
    "sliding_window": 64, "max_position_embeddings": 512
}"#;

const GEMMA2: &str = r#"{
    "architectures": ["Gemma2ForCausalLM"], "vocab_size": 300, "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "sliding_window": 64,
    "query_pre_attn_scalar": 64, "max_position_embeddings": 512
}"#;

const GEMMA3: &str = r#"{
    "architectures": ["Gemma3ForCausalLM"], "vocab_size": 300, "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "sliding_window": 64,
    "sliding_window_pattern": 2, "query_pre_attn_scalar": 64, "max_position_embeddings": 512
}"#;

const GPT2: &str = r#"{
    "architectures": ["GPT2LMHeadModel"], "vocab_size": 300, "n_embd": 128, "n_head": 2, "n_layer": 1,
    "n_positions": 64
}"#;

fn network(config: &str) -> Graph {
    let config = ModelConfig::parse(config.as_bytes(), None).unwrap();
    let shapes: HashMap<_, _> = wanted_tensors(&config).unwrap().into_iter().collect();
    build(&config, &|name: &str| shapes.get(name).cloned()).unwrap()
}

fn matches_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert!(golden == text, "{name} differs from what is printed now:\n{text}");
}

#[test]
fn families_print_as_expected() {
    let families = [
        ("llama", LLAMA),
        ("llama_biased", LLAMA_BIASED),
        ("qwen2", QWEN2),
        ("qwen3", QWEN3),
        ("mistral", MISTRAL),
        ("phi3", PHI3),
        ("gemma2", GEMMA2),
        ("gemma3", GEMMA3),
        ("gpt2", GPT2),
    ];
    for (name, config) in families {
        let mut graph = network(config);
        matches_golden(&format!("{name}.txt"), &graph.text());
        run(&mut graph, PassSet::all()).unwrap();
        matches_golden(&format!("{name}.fused.txt"), &graph.text());
    }
}

#[test]
fn drawings_are_as_expected() {
    for (name, config) in [("gpt2", GPT2), ("llama_biased", LLAMA_BIASED)] {
        let mut graph = network(config);
        matches_golden(&format!("{name}.dot"), &graph.dot());
        run(&mut graph, PassSet::all()).unwrap();
        matches_golden(&format!("{name}.fused.dot"), &graph.dot());
    }
}
