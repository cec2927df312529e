use proptest::prelude::*;

use super::*;

const LLAMA_4: &str = r#"{
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 2048,
  "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
  "head_dim": 64, "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-05,
  "rope_theta": 500000.0, "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
  "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "tie_word_embeddings": true,
  "torch_dtype": "bfloat16", "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009],
  "attention_bias": false, "mlp_bias": false, "pretraining_tp": 1, "use_cache": true
}"#;

const LLAMA_5: &str = r#"{
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 2048,
  "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
  "head_dim": 64, "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-05,
  "rope_parameters": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "rope_theta": 500000.0,
  "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "tie_word_embeddings": true,
  "dtype": "bfloat16", "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "pad_token_id": null
}"#;

const GENERATION: &str = r#"{"bos_token_id": 128000, "do_sample": true, "eos_token_id": 128009, "temperature": 0.6,
  "top_p": 0.9, "top_k": 50, "max_length": 4096, "transformers_version": "4.45.0"}"#;

fn parse(json: &str) -> Result<ModelConfig> {
    ModelConfig::parse(json.as_bytes(), None)
}

/// A small Llama with `fields` added; later fields win.
fn llama(fields: &str) -> Result<ModelConfig> {
    parse(&format!(
        r#"{{"architectures": ["LlamaForCausalLM"], "vocab_size": 100, "hidden_size": 64, "num_attention_heads": 4,
        "num_hidden_layers": 2, {fields}}}"#
    ))
}

fn gpt2(fields: &str) -> Result<ModelConfig> {
    parse(&format!(r#"{{"architectures": ["GPT2LMHeadModel"], {fields}}}"#))
}

/// A small model of `architecture` with 4 layers and `fields` added.
fn gated(architecture: &str, fields: &str) -> Result<ModelConfig> {
    parse(&format!(r#"{{"architectures": ["{architecture}"], "num_hidden_layers": 4{fields}}}"#))
}

fn qwen2(fields: &str) -> Result<ModelConfig> {
    gated("Qwen2ForCausalLM", fields)
}

fn mistral(fields: &str) -> Result<ModelConfig> {
    gated("MistralForCausalLM", fields)
}

fn rope(fields: &str) -> Result<RopeScaling> {
    llama(&format!(r#""max_position_embeddings": 4096, "rope_parameters": {{{fields}}}"#))
        .map(|config| config.rope.unwrap().scaling)
}

/// What an error names.
fn culprit<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Err(Error::InvalidConfig { what, .. } | Error::Unsupported { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_versions_of_the_format_say_the_same() {
    let (four, five) = (parse(LLAMA_4).unwrap(), parse(LLAMA_5).unwrap());
    assert_eq!(four, five);
    assert_eq!((four.layers, four.heads, four.kv_heads, four.head_dim), (16, 32, 8, 64));
    assert_eq!((four.dtype, four.max_positions, four.tie_word_embeddings), (Some(DType::BF16), 131_072, true));
    let rope = four.rope.unwrap();
    assert_eq!(rope.theta, 500_000.0);
    assert_eq!(
        rope.scaling,
        RopeScaling::Llama3 { factor: 32.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_positions: 8192 }
    );
    assert_eq!(four.eos_token_ids, [128_001, 128_008, 128_009]);
    assert_eq!((four.bos_token_id, four.pad_token_id), (Some(128_000), None));
}

#[test]
fn generation_config_wins_for_the_end_of_text() {
    let config = ModelConfig::parse(LLAMA_4.as_bytes(), Some(GENERATION.as_bytes())).unwrap();
    assert_eq!(config.eos_token_ids, [128_009]);
    let generation = config.generation;
    assert!(generation.do_sample);
    assert_eq!((generation.temperature, generation.top_p, generation.top_k), (Some(0.6), Some(0.9), Some(50)));
    assert_eq!((generation.max_length, generation.max_new_tokens), (Some(4096), None));
    assert_eq!(generation.eos_token_ids, [128_009]);

    let silent = ModelConfig::parse(LLAMA_4.as_bytes(), Some(b"{}")).unwrap();
    assert_eq!(silent.eos_token_ids, [128_001, 128_008, 128_009]);
    assert_eq!(silent.bos_token_id, Some(128_000));
}

#[test]
fn defaults_are_those_of_the_family() {
    let llama = llama(r#""pad_token_id": -1"#).unwrap();
    assert_eq!((llama.kv_heads, llama.head_dim, llama.intermediate_size), (4, 16, 11_008));
    assert_eq!((llama.tie_word_embeddings, llama.norm_eps, llama.activation), (false, 1e-6, Activation::Silu));
    assert_eq!((llama.eos_token_ids, llama.bos_token_id, llama.pad_token_id), (vec![2], Some(1), None));
    assert_eq!(llama.rope, Some(RopeConfig { theta: 10_000.0, rotary_dim: 16, scaling: RopeScaling::Default }));

    let gpt2 = gpt2(r#""n_inner": null, "eos_token_id": null"#).unwrap();
    assert_eq!((gpt2.hidden_size, gpt2.intermediate_size, gpt2.head_dim), (768, 3072, 64));
    assert_eq!((gpt2.tie_word_embeddings, gpt2.activation), (true, Activation::GeluTanh));
    assert_eq!((gpt2.eos_token_ids, gpt2.bos_token_id, gpt2.rope), (vec![], Some(50_256), None));
}

#[test]
fn families_of_one_shape_have_their_own_defaults() {
    let qwen2 = qwen2("").unwrap();
    assert_eq!((qwen2.vocab_size, qwen2.intermediate_size, qwen2.max_positions), (151_936, 22_016, 32_768));
    assert_eq!((qwen2.kv_heads, qwen2.bos_token_id, qwen2.eos_token_ids), (32, None, vec![]));
    let mistral = mistral("").unwrap();
    assert_eq!((mistral.vocab_size, mistral.intermediate_size, mistral.max_positions), (32_000, 14_336, 131_072));
    assert_eq!((mistral.kv_heads, mistral.bos_token_id, mistral.eos_token_ids), (8, Some(1), vec![2]));
    assert_eq!(self::mistral(r#", "num_key_value_heads": null"#).unwrap().kv_heads, 32);
}

#[test]
fn windows_are_those_of_the_family() {
    const SLIDE: &str = r#", "use_sliding_window": true, "sliding_window": 9, "max_window_layers": 3"#;
    let types = |kinds: [&str; 4]| format!(r#", "layer_types": {kinds:?}"#);
    let (full, slides) = ("full_attention", "sliding_attention");
    let table = [
        (llama(r#""vocab_size": 100"#), vec![None; 2]),
        (qwen2(""), vec![None; 4]),
        (qwen2(r#", "sliding_window": 9, "max_window_layers": 0"#), vec![None; 4]),
        (qwen2(r#", "use_sliding_window": true"#), vec![None; 4]),
        (qwen2(r#", "use_sliding_window": true, "max_window_layers": 0"#), vec![Some(4096); 4]),
        (qwen2(r#", "use_sliding_window": true, "sliding_window": null, "max_window_layers": 0"#), vec![None; 4]),
        (qwen2(SLIDE), vec![None, None, None, Some(9)]),
        (qwen2(&(SLIDE.to_string() + &types([slides, full, slides, full]))), vec![Some(9), None, Some(9), None]),
        (mistral(""), vec![Some(4096); 4]),
        (mistral(r#", "sliding_window": null"#), vec![None; 4]),
        (mistral(r#", "sliding_window": 9"#), vec![Some(9); 4]),
        (mistral(&types([slides; 4])), vec![Some(4096); 4]),
    ];
    for (at, (config, windows)) in table.into_iter().enumerate() {
        assert_eq!(config.unwrap().windows, windows, "line {at}");
    }
    let refused = [
        (qwen2(&types([slides; 4])), "layer type `sliding_attention`"),
        (
            qwen2(&(SLIDE.to_string() + &types([full, full, full, "chunked_attention"]))),
            "layer type `chunked_attention`",
        ),
        (mistral(&types([slides, full, slides, full])), "layer_types"),
        (mistral(r#", "sliding_window": 0"#), "config.json `sliding_window`"),
        (qwen2(r#", "max_window_layers": -1"#), "config.json `max_window_layers`"),
    ];
    for (config, wanted) in refused {
        assert_eq!(culprit(config), wanted);
    }
}

fn phi3(fields: &str) -> Result<ModelConfig> {
    gated("Phi3ForCausalLM", &format!(r#", "hidden_size": 64, "num_attention_heads": 4{fields}"#))
}

fn gemma2(fields: &str) -> Result<ModelConfig> {
    gated("Gemma2ForCausalLM", fields)
}

fn gemma3(fields: &str) -> Result<ModelConfig> {
    gated("Gemma3ForCausalLM", fields)
}

#[test]
fn heads_have_the_width_that_their_family_says() {
    let widths = |config: ModelConfig| (config.head_dim, config.attention_scale.by_root_of);
    assert_eq!(widths(qwen2(r#", "head_dim": 16"#).unwrap()), (16, 16.0));
    assert_eq!(widths(gated("Qwen3ForCausalLM", "").unwrap()), (128, 128.0));
    assert_eq!(widths(gemma2("").unwrap()), (256, 256.0));
    assert_eq!(widths(gemma3(r#", "head_dim": 64, "query_pre_attn_scalar": 168"#).unwrap()), (64, 168.0));
}

#[test]
fn layers_slide_in_the_pattern_of_their_family() {
    let slides = |config: Result<ModelConfig>| config.unwrap().windows.iter().map(Option::is_some).collect::<Vec<_>>();
    assert_eq!(slides(gemma2("")), [true, false, true, false]);
    assert_eq!(slides(gemma2(r#", "sliding_window_pattern": 3"#)), [true, false, true, false]);
    assert_eq!(slides(gemma3("")), [true; 4]);
    assert_eq!(slides(gemma3(r#", "sliding_window_pattern": 3"#)), [true, true, false, true]);
    assert_eq!(slides(phi3("")), [false; 4]);
    assert_eq!(slides(phi3(r#", "sliding_window": null"#)), [false; 4]);
    assert_eq!(phi3(r#", "sliding_window": 2047"#).unwrap().windows, [Some(2047); 4]);
    let types = r#", "layer_types": ["full_attention", "sliding_attention", "full_attention", "full_attention"]"#;
    assert_eq!(slides(gemma3(types)), [false, true, false, false]);
    assert_eq!(culprit(gemma2(r#", "sliding_window": null"#)), "config.json `sliding_window`");
}

#[test]
fn caps_are_the_familys_where_a_file_is_silent_and_none_where_it_says_null() {
    let caps =
        |config: Result<ModelConfig>| config.map(|config| (config.attention_soft_cap, config.logit_soft_cap)).unwrap();
    assert_eq!(caps(gemma2("")), (Some(50.0), Some(30.0)));
    assert_eq!(caps(gemma2(r#", "attn_logit_softcapping": null, "final_logit_softcapping": 7.5"#)), (None, Some(7.5)));
    assert_eq!(caps(gemma3("")), (None, None));
    assert_eq!(caps(gemma3(r#", "final_logit_softcapping": 20"#)), (None, Some(20.0)));
    assert_eq!(culprit(gemma2(r#", "final_logit_softcapping": 0"#)), "config.json `final_logit_softcapping`");
}

#[test]
fn layers_that_slide_may_have_a_rope_of_their_own() {
    let four =
        r#", "rope_theta": 2e6, "rope_local_base_freq": 5e3, "rope_scaling": {"rope_type": "linear", "factor": 8}"#;
    let five = r#", "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8, "rope_theta": 2e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 5e3}}"#;
    let four = gemma3(four).unwrap();
    assert_eq!(four, gemma3(five).unwrap());
    let of = |theta, scaling| Some(RopeConfig { theta, rotary_dim: 256, scaling });
    assert_eq!(four.rope, of(2e6, RopeScaling::Linear { factor: 8.0 }));
    assert_eq!(four.local_rope, of(5e3, RopeScaling::Default));
    let silent = gemma3(r#", "rope_parameters": {"sliding_attention": null}"#).unwrap();
    assert_eq!(silent.rope, of(1e6, RopeScaling::Default));
    assert_eq!(silent.local_rope, of(1e4, RopeScaling::Default));
    assert_eq!(gemma2("").unwrap().local_rope, None);
}

const FACTORS: &str = r#""short_factor": [1, 1.5, 2, 3], "long_factor": [1, 2, 4, 8]"#;

#[test]
fn a_long_rope_has_its_stretches_under_every_name() {
    let half = r#", "partial_rotary_factor": 0.5, "original_max_position_embeddings": 1024"#;
    let named = |name: &str| {
        phi3(&format!(r#"{half}, "rope_scaling": {{"type": "{name}", {FACTORS}}}"#)).unwrap().rope.unwrap()
    };
    let rope = named("longrope");
    assert_eq!(rope.rotary_dim, 8);
    let RopeScaling::Long(long) = &rope.scaling else { panic!("{rope:?}") };
    assert_eq!((long.short.as_slice(), long.long.as_slice()), (&[1.0, 1.5, 2.0, 3.0][..], &[1.0, 2.0, 4.0, 8.0][..]));
    assert_eq!(long.original_max_positions, 1024);
    // 4096 positions by default: four times the pretraining's.
    assert!((long.attention_factor - (1.0 + 4f64.ln() / 1024f64.ln()).sqrt()).abs() < 1e-12);
    assert_eq!([named("su"), named("yarn")], [rope.clone(), rope]);
    let inside = phi3(r#", "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}"#).unwrap();
    assert_eq!(inside.rope, Some(RopeConfig { theta: 10_000.0, rotary_dim: 4, scaling: RopeScaling::Default }));
}

#[test]
fn a_long_rope_that_does_not_fit_is_refused() {
    let refused =
        |fields: &str| culprit(phi3(&format!(r#", "partial_rotary_factor": 0.5, "rope_scaling": {{{fields}}}"#)));
    assert_eq!(refused(r#""type": "longrope""#), "config.json rope_scaling `short_factor`");
    for long in ["[1, 2, 3]", "[1, 2, 3, 0]", "[1, 2, 3, \"4\"]", "4", "[1, 2, 3, 4, 5]"] {
        let fields = format!(r#""type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": {long}"#);
        assert_eq!(refused(&fields), "config.json rope_scaling `long_factor`");
    }
    assert_eq!(
        refused(&format!(r#""type": "longrope", {FACTORS}, "attention_factor": -1"#)),
        "config.json rope_scaling `attention_factor`"
    );
    assert_eq!(refused(r#""type": "linear", "factor": 2"#), "rope type `linear`");
    assert_eq!(culprit(phi3(r#", "partial_rotary_factor": 0.2"#)), "config.json `partial_rotary_factor`");
    assert_eq!(culprit(phi3(r#", "partial_rotary_factor": 0.01"#)), "config.json `partial_rotary_factor`");
}

#[test]
fn what_a_family_would_compute_otherwise_is_refused() {
    for (config, wanted) in [
        (gemma2(r#", "use_bidirectional_attention": true"#), "use_bidirectional_attention"),
        (gemma3(r#", "use_bidirectional_attention": true"#), "use_bidirectional_attention"),
        (gemma3(r#", "attn_logit_softcapping": 50"#), "attn_logit_softcapping"),
        (gemma2(r#", "query_pre_attn_scalar": 0"#), "config.json `query_pre_attn_scalar`"),
        (gated("Gemma3ForConditionalGeneration", ""), "architecture `Gemma3ForConditionalGeneration`"),
    ] {
        assert_eq!(culprit(config), wanted);
    }
}

#[test]
fn the_model_type_stands_in_for_the_architecture() {
    assert_eq!(parse(r#"{"model_type": "gpt2"}"#).unwrap().architecture, "GPT2LMHeadModel");
    assert_eq!(culprit(parse("{}")), "config.json `architectures`");
}

#[test]
fn ids_outside_the_vocabulary_say_nothing() {
    let config = llama(r#""eos_token_id": [99, 100, 50256], "bos_token_id": 100"#).unwrap();
    assert_eq!((config.eos_token_ids, config.bos_token_id), (vec![99], None));
}

#[test]
fn activations_have_several_names() {
    let named = |name: &str| llama(&format!(r#""hidden_act": "{name}""#)).map(|config| config.activation);
    assert_eq!(named("swish").unwrap(), Activation::Silu);
    assert_eq!(named("gelu").unwrap(), Activation::Gelu);
    assert_eq!(named("gelu_pytorch_tanh").unwrap(), Activation::GeluTanh);
    assert_eq!(named("relu").unwrap(), Activation::Relu);
    assert_eq!(culprit(named("quick_gelu")), "hidden_act `quick_gelu`");
}

#[test]
fn what_is_not_there_is_named() {
    let table = [
        (parse(r#"{"architectures": ["MambaForCausalLM"]}"#).map(drop), "architecture `MambaForCausalLM`"),
        (parse(r#"{"architectures": [], "model_type": "t5"}"#).map(drop), "architecture `t5`"),
        (llama(r#""quantization_config": {"quant_method": "gptq"}"#).map(drop), "quantization_config `gptq`"),
        (
            llama(r#""layer_types": ["full_attention", "sliding_attention"]"#).map(drop),
            "layer type `sliding_attention`",
        ),
        (rope(r#""rope_type": "longrope", "factor": 2"#).map(drop), "rope type `longrope`"),
        (rope(r#""type": "dynamic", "factor": 2"#).map(drop), "rope type `dynamic`"),
        (rope(r#""partial_rotary_factor": 0.5"#).map(drop), "partial_rotary_factor 0.5"),
        (llama(r#""partial_rotary_factor": 0.5"#).map(drop), "partial_rotary_factor 0.5"),
        (gpt2(r#""add_cross_attention": true"#).map(drop), "add_cross_attention"),
    ];
    for (result, wanted) in table {
        assert!(matches!(&result, Err(Error::Unsupported { what, .. }) if what == wanted), "{wanted}: {result:?}");
    }
}

#[test]
fn every_number_has_its_range() {
    let table = [
        ("num_attention_heads", "0"),
        ("num_attention_heads", "-4"),
        ("num_attention_heads", "5"),
        ("num_attention_heads", "4.0"),
        ("num_attention_heads", "\"4\""),
        ("num_key_value_heads", "3"),
        ("num_key_value_heads", "8"),
        ("num_hidden_layers", "0"),
        ("num_hidden_layers", "1000000000"),
        ("num_hidden_layers", "1e400"),
        ("hidden_size", "1048577"),
        ("hidden_size", "18446744073709551616"),
        ("intermediate_size", "0"),
        ("vocab_size", "16777217"),
        ("vocab_size", "[1]"),
        ("max_position_embeddings", "134217729"),
        ("head_dim", "7"),
        ("head_dim", "8194"),
        ("rms_norm_eps", "-1e-5"),
        ("rms_norm_eps", "1"),
        ("rope_theta", "0"),
        ("rope_theta", "1"),
        ("tie_word_embeddings", "1"),
        ("layer_types", "[\"full_attention\"]"),
        ("layer_types", "[1, 2]"),
        ("eos_token_id", "-1"),
        ("eos_token_id", "4294967296"),
        ("eos_token_id", "[[1]]"),
        ("bos_token_id", "[1, 2]"),
        ("rope_scaling", "\"linear\""),
        ("hidden_act", "3"),
        ("quantization_config", "7"),
    ];
    for (field, value) in table {
        let what = culprit(llama(&format!(r#""{field}": {value}"#)));
        let named = what.contains(&format!("`{field}`"));
        // A number that no f64 holds is refused where the file is read.
        assert!(named || (value == "1e400" && what == "config.json"), "{field} = {value} blames {what}");
    }
}

#[test]
fn the_largest_numbers_pass() {
    let config = llama(
        r#""vocab_size": 16777216, "hidden_size": 1048576, "num_hidden_layers": 1024, "head_dim": 8192,
        "max_position_embeddings": 134217728"#,
    );
    assert_eq!(config.unwrap().head_dim, 8192);
}

#[test]
fn rope_parameters_have_their_ranges() {
    let table = [
        (r#""rope_type": "linear""#, "factor"),
        (r#""rope_type": "linear", "factor": 0"#, "factor"),
        (r#""rope_type": "linear", "factor": 1e-300"#, "factor"),
        (r#""rope_type": "linear", "factor": "Infinity""#, "factor"),
        (r#""rope_type": "llama3", "factor": 8"#, "low_freq_factor"),
        (r#""rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4"#, "high_freq_factor"),
        (r#""rope_type": "yarn", "factor": 8, "beta_fast": 1, "beta_slow": 2"#, "beta_fast"),
        (r#""rope_type": "yarn", "factor": 8, "attention_factor": -1"#, "attention_factor"),
        (r#""rope_type": "yarn", "factor": 8, "truncate": 1"#, "truncate"),
        (
            r#""rope_type": "yarn", "factor": 8, "original_max_position_embeddings": 0"#,
            "original_max_position_embeddings",
        ),
        (r#""rope_type": 3"#, "rope_type"),
    ];
    for (fields, wanted) in table {
        assert_eq!(culprit(rope(fields)), format!("config.json rope_parameters `{wanted}`"));
    }
    for literal in ["NaN", "Infinity", "-Infinity"] {
        assert_eq!(culprit(rope(&format!(r#""rope_type": "linear", "factor": {literal}"#))), "config.json");
    }
}

#[test]
fn yarn_fills_in_what_is_left_out() {
    let RopeScaling::Yarn(yarn) = rope(r#""rope_type": "yarn", "original_max_position_embeddings": 1024"#).unwrap()
    else {
        panic!();
    };
    assert_eq!((yarn.factor, yarn.beta_fast, yarn.beta_slow, yarn.truncate), (4.0, 32.0, 1.0, true));
    assert!((yarn.attention_factor - (0.1 * 4f64.ln() + 1.0)).abs() < 1e-12);
}

#[test]
fn an_empty_scaling_is_none() {
    let config = llama(r#""rope_scaling": {}, "rope_theta": 20000"#).unwrap();
    assert_eq!(config.rope, Some(RopeConfig { theta: 20_000.0, rotary_dim: 16, scaling: RopeScaling::Default }));
    assert_eq!(config.rope, llama(r#""rope_scaling": null, "rope_theta": 20000"#).unwrap().rope);
}

#[test]
fn generation_values_have_their_ranges() {
    for (field, value) in [
        ("temperature", "-1"),
        ("top_p", "1.5"),
        ("min_p", "-0.1"),
        ("top_k", "-1"),
        ("repetition_penalty", "0"),
        ("max_new_tokens", "0"),
        ("do_sample", "\"yes\""),
    ] {
        let file = format!(r#"{{"{field}": {value}}}"#);
        let what = culprit(ModelConfig::parse(LLAMA_4.as_bytes(), Some(file.as_bytes())));
        assert_eq!(what, format!("generation_config.json `{field}`"));
    }
}

#[test]
fn a_file_is_read_up_to_its_limit() {
    let mut padded = LLAMA_4.as_bytes().to_vec();
    padded.resize(MAX_CONFIG_BYTES, b' ');
    ModelConfig::parse(&padded, None).unwrap();
    padded.push(b' ');
    assert_eq!(culprit(ModelConfig::parse(&padded, None)), "config.json");
    for nonsense in [&b""[..], b"[]", b"{", b"\xff\xfe", b"null"] {
        assert_eq!(culprit(ModelConfig::parse(nonsense, None)), "config.json");
    }
    let deep = [b"{\"a\":".repeat(100_000), b"1".to_vec()].concat();
    assert_eq!(culprit(ModelConfig::parse(&deep, None)), "config.json");
}

/// A typed refusal or a config within its ranges; never a panic.
fn sound(result: Result<ModelConfig>) -> bool {
    match result {
        Ok(config) => config.heads.is_multiple_of(config.kv_heads) && config.head_dim > 0 && config.layers <= 1024,
        Err(Error::InvalidConfig { .. } | Error::Unsupported { .. }) => true,
        Err(_) => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_bytes_are_read_or_refused(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let mut bytes = LLAMA_5.as_bytes().to_vec();
        for (at, byte) in edits {
            *at.get_mut(&mut bytes) = byte;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        prop_assert!(sound(ModelConfig::parse(&bytes, Some(&bytes))));
        prop_assert!(sound(ModelConfig::parse(LLAMA_4.as_bytes(), Some(&bytes))));
    }

    #[test]
    fn mutated_values_are_read_or_refused(
        field in any::<prop::sample::Index>(),
        inside in any::<bool>(),
        value in prop::sample::select(vec![
            "null", "0", "-1", "1", "3", "1e308", "1e-300", "9223372036854775808", "true", "\"\"", "\"yarn\"", "[]",
            "{}", "[0, 1]", "1048576", "0.5",
        ]),
    ) {
        let mut json: serde_json::Value = serde_json::from_str(LLAMA_5).unwrap();
        let object = if inside { &mut json["rope_parameters"] } else { &mut json };
        let entries = object.as_object_mut().unwrap();
        let name = entries.keys().nth(field.index(entries.len())).unwrap().clone();
        entries.insert(name, serde_json::from_str(value).unwrap());
        prop_assert!(sound(parse(&json.to_string())));
    }
}
