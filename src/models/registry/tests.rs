use std::collections::HashMap;

use super::*;
use crate::checkpoint::ARCHITECTURES;
use crate::network::Recipe;
use crate::types::Op;

type Shapes = HashMap<String, Vec<usize>>;

fn llama(extra: &str) -> ModelConfig {
    of_architecture("LlamaForCausalLM", extra)
}

fn gpt2(extra: &str) -> ModelConfig {
    let config = format!(
        r#"{{"architectures": ["GPT2LMHeadModel"], "vocab_size": 300, "n_embd": 64, "n_head": 4, "n_layer": 2,
        "n_positions": 32{extra}}}"#
    );
    ModelConfig::parse(config.as_bytes(), None).unwrap()
}

fn qwen2(extra: &str) -> ModelConfig {
    of_architecture("Qwen2ForCausalLM", extra)
}

fn mistral(extra: &str) -> ModelConfig {
    of_architecture("MistralForCausalLM", extra)
}

/// Every family, in the designs that have the most tensors.
fn all_families() -> Vec<(ModelConfig, &'static str)> {
    let bias = r#", "attention_bias": true"#;
    let gated = ["Qwen2ForCausalLM", "MistralForCausalLM", "Phi3ForCausalLM"].map(|name| of_architecture(name, ""));
    let biased = ["Qwen3ForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"].map(|name| of_architecture(name, bias));
    let all = gated.into_iter().chain(biased).chain([llama(r#", "attention_bias": true, "mlp_bias": true"#)]);
    all.map(|config| (config, "model.")).chain([(gpt2(""), "transformer.")]).collect()
}

/// Two layers of the shape that all but GPT-2 have.
fn of_architecture(architecture: &str, extra: &str) -> ModelConfig {
    let config = format!(
        r#"{{"architectures": ["{architecture}"], "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2{extra}}}"#
    );
    ModelConfig::parse(config.as_bytes(), None).unwrap()
}

fn shapes(config: &ModelConfig) -> Shapes {
    wanted_tensors(config).unwrap().into_iter().collect()
}

fn built(config: &ModelConfig, shapes: &Shapes) -> Result<Graph> {
    build(config, &|name: &str| shapes.get(name).cloned())
}

/// The refused tensor and why.
fn refusal(config: &ModelConfig, shapes: &Shapes) -> (String, String) {
    match built(config, shapes) {
        Err(Error::InvalidCheckpoint { what, why }) => (what, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_architecture_that_is_read_is_built() {
    assert_eq!(FAMILIES.map(|family| family.architecture), ARCHITECTURES);
    let unknown = ModelConfig { architecture: "MambaForCausalLM".into(), ..llama("") };
    let error = wanted_tensors(&unknown).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { what, .. } if what.contains("MambaForCausalLM")), "{error}");
}

#[test]
fn a_missing_or_misshapen_tensor_is_named() {
    for (config, _) in all_families() {
        let all = shapes(&config);
        for (name, shape) in &all {
            let mut damaged = all.clone();
            damaged.remove(name);
            let (what, why) = refusal(&config, &damaged);
            assert_eq!(what, format!("tensor `{name}`"));
            assert!(why.contains(&format!("{shape:?}")), "{why}");

            let wrong = shape.iter().map(|n| n + 1).collect::<Vec<_>>();
            damaged.insert(name.clone(), wrong.clone());
            let (what, why) = refusal(&config, &damaged);
            assert_eq!(what, format!("tensor `{name}`"));
            assert!(why.contains(&format!("{shape:?}")) && why.contains(&format!("{wrong:?}")), "{why}");
        }
    }
}

#[test]
fn the_body_needs_no_prefix() {
    for (config, prefix) in all_families() {
        let bare = shapes(&config).into_iter().map(|(name, shape)| (name.replacen(prefix, "", 1), shape)).collect();
        let graph = built(&config, &bare).unwrap();
        assert_eq!(graph.nodes, built(&config, &shapes(&config)).unwrap().nodes);
    }
}

#[test]
fn a_tied_head_is_the_table() {
    let tied = built(&gpt2(""), &shapes(&gpt2(""))).unwrap();
    let weights_of = |graph: &Graph, name: &str| graph.nodes.iter().find(|n| n.name == name).unwrap().weights.clone();
    assert_eq!(weights_of(&tied, "logits"), weights_of(&tied, "words"));

    let config = llama("");
    assert!(shapes(&config).contains_key("lm_head.weight"));
    let untied = built(&config, &shapes(&config)).unwrap();
    assert_ne!(weights_of(&untied, "logits"), weights_of(&untied, "hidden"));
}

#[test]
fn biases_are_there_when_the_configuration_says_so() {
    let biases = |config: &ModelConfig| {
        let graph = built(config, &shapes(config)).unwrap();
        graph.nodes.iter().filter(|node| matches!(node.op, Op::Linear { bias: true, .. })).count()
    };
    assert_eq!(biases(&llama("")), 0);
    assert_eq!(biases(&llama(r#", "attention_bias": true"#)), 2 * 4);
    assert_eq!(biases(&llama(r#", "mlp_bias": true"#)), 2 * 3);
    assert_eq!(biases(&qwen2("")), 2 * 3);
    assert_eq!(biases(&mistral(r#", "attention_bias": true, "mlp_bias": true"#)), 0);
    assert_eq!(biases(&gpt2("")), 2 * 6);
    for name in ["Qwen3ForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"] {
        assert_eq!(biases(&of_architecture(name, "")), 0);
        assert_eq!(biases(&of_architecture(name, r#", "attention_bias": true"#)), 2 * 4);
    }
    assert_eq!(biases(&of_architecture("Phi3ForCausalLM", r#", "attention_bias": true"#)), 0);
}

#[test]
fn layers_of_one_window_share_a_cache_group() {
    let groups = |config: &ModelConfig| {
        let graph = built(config, &shapes(config)).unwrap();
        let place = |op: &Op| if let Op::Attention(spec) = op { Some((spec.group, spec.layer)) } else { None };
        let places = graph.nodes.iter().filter_map(|node| place(&node.op)).collect::<Vec<_>>();
        (graph.caches.into_iter().map(|group| (group.layers, group.window)).collect::<Vec<_>>(), places)
    };
    assert_eq!(groups(&llama("")), (vec![(vec![0, 1], None)], vec![(0, 0), (0, 1)]));
    assert_eq!(groups(&mistral("")), (vec![(vec![0, 1], Some(4096))], vec![(0, 0), (0, 1)]));
    let second = qwen2(r#", "use_sliding_window": true, "sliding_window": 8, "max_window_layers": 1"#);
    assert_eq!(groups(&second), (vec![(vec![0], None), (vec![1], Some(8))], vec![(0, 0), (1, 0)]));
}

#[test]
fn scores_are_scaled_as_configured() {
    let scales = |config: &ModelConfig| {
        let graph = built(config, &shapes(config)).unwrap();
        let scale = |op: &Op| if let Op::Attention(spec) = op { Some(spec.scale) } else { None };
        graph.nodes.iter().filter_map(|node| scale(&node.op)).collect::<Vec<_>>()
    };
    assert_eq!(scales(&llama("")), [0.25, 0.25]);
    assert_eq!(scales(&gpt2(r#", "scale_attn_weights": false"#)), [1.0, 1.0]);
    assert_eq!(scales(&gpt2(r#", "scale_attn_by_inverse_layer_idx": true"#)), [0.25, 0.125]);
}

#[test]
fn q_k_and_v_are_rows_of_the_fused_tensor() {
    let config = gpt2("");
    let graph = built(&config, &shapes(&config)).unwrap();
    let k = graph.nodes.iter().find(|node| node.name == "layers.1.k").unwrap();
    let fused = Recipe::tensor("transformer.h.1.attn.c_attn.weight").transposed();
    assert_eq!(graph[k.weights[0]].recipe, fused.rows(64, 64));
    assert_eq!(graph[k.weights[1]].recipe, Recipe::tensor("transformer.h.1.attn.c_attn.bias").rows(64, 64));
}

#[test]
fn projections_are_rows_of_the_joint_tensors() {
    let config = of_architecture("Phi3ForCausalLM", "");
    let graph = built(&config, &shapes(&config)).unwrap();
    let recipe = |name: &str| graph[graph.nodes.iter().find(|n| n.name == name).unwrap().weights[0]].recipe.clone();
    let joint = |name: &str| Recipe::tensor(format!("model.layers.1.{name}.weight"));
    let (qkv, gate_up) = (joint("self_attn.qkv_proj"), joint("mlp.gate_up_proj"));
    let parts = ["q", "k", "v", "gate", "up"].map(|role| recipe(&format!("layers.1.{role}")));
    let [q, k, v] = [(0, 64), (64, 32), (96, 32)].map(|(start, rows)| qkv.clone().rows(start, rows));
    assert_eq!(parts, [q, k, v, gate_up.clone().rows(0, 96), gate_up.rows(96, 96)]);
}

#[test]
fn gains_above_one_are_gains_in_the_graph() {
    let config = of_architecture("Gemma3ForCausalLM", "");
    let graph = built(&config, &shapes(&config)).unwrap();
    let norms = graph.nodes.iter().filter(|node| matches!(node.op, Op::RmsNorm { .. })).collect::<Vec<_>>();
    // Two layers of six, and the last.
    assert_eq!(norms.len(), 2 * 6 + 1);
    let above_one = |recipe: &Recipe| matches!(recipe, Recipe::Plus { addend: 1.0, .. });
    assert!(norms.iter().all(|node| above_one(&graph[node.weights[0]].recipe)));
    let widths = |role: &str| norms.iter().find(|node| node.name == role).map(|node| graph[node.weights[0]].shape[0]);
    assert_eq!(["layers.0.q_norm", "layers.0.attention_norm", "norm"].map(widths), [256, 64, 64].map(Some));
}

#[test]
fn a_layer_that_slides_rotates_by_its_own_angles() {
    let config = of_architecture("Gemma3ForCausalLM", r#", "sliding_window_pattern": 2"#);
    let graph = built(&config, &shapes(&config)).unwrap();
    let angles = |name: &str| {
        let rope = graph.nodes.iter().find(|node| node.name == name).unwrap();
        graph[rope.inputs[1]].name.clone()
    };
    assert_eq!(["layers.0.q_rope", "layers.1.k_rope"].map(angles), ["local_angles", "angles"]);
}
