mod check;
mod precision;
mod tuner;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use half::bf16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::*;
use crate::checkpoint::{Dummy, ModelConfig, WeightSource};
use crate::engine::{Engine, LoadMode, Packing, Precision, WeightSpec};
use crate::error::{Result, Status};
use crate::models;
use crate::types::{DType, Op, e4m3};

const LLAMA: &str = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 97, "hidden_size": 64,
    "intermediate_size": 100, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "eos_token_id": 2}"#;
const UNTIED: &str = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 97, "hidden_size": 64,
    "intermediate_size": 100, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "attention_bias": true}"#;
const GPT2: &str = r#"{"architectures": ["GPT2LMHeadModel"], "vocab_size": 97, "n_embd": 64, "n_layer": 2, "n_head": 4,
    "n_positions": 128, "activation_function": "gelu_new"}"#;

/// A checkpoint folder with the weights of `Dummy` under seed 1.
struct Checkpoint {
    folder: tempfile::TempDir,
    weights: Dummy,
}

impl Checkpoint {
    fn new(config: &str, dtype: DType) -> Self {
        let parsed = ModelConfig::parse(config.as_bytes(), None).expect("parses");
        let wanted = models::wanted_tensors(&parsed).expect("known family");
        let weights = Dummy::new(wanted.clone(), 1);
        let tensors: HashMap<String, (Vec<usize>, Vec<u8>)> = wanted
            .into_iter()
            .map(|(name, shape)| {
                let values = all_of(&weights, &name);
                let bytes = match dtype {
                    DType::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
                    _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                };
                (name, (shape, bytes))
            })
            .collect();
        let stored = if dtype == DType::BF16 { Dtype::BF16 } else { Dtype::F32 };
        let views = tensors
            .iter()
            .map(|(name, (shape, bytes))| (name, TensorView::new(stored, shape.clone(), bytes).expect("fits")));
        let folder = tempfile::tempdir().expect("a directory");
        safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).expect("writes");
        std::fs::write(folder.path().join("config.json"), config).expect("writes");
        Self { folder, weights }
    }

    fn source(&self) -> Source {
        Source::Checkpoint(self.folder.path().to_path_buf())
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("out.engine")
    }

    fn build(&self, options: &BuildOptions) -> Engine {
        build(&self.source(), &self.output(), options, &mut |_, _| ControlFlow::Continue(())).expect("builds");
        open(&self.output())
    }
}

fn open(path: &Path) -> Engine {
    Engine::open(path, LoadMode::Map, &mut |_| ControlFlow::Continue(())).expect("opens")
}

fn all_of(source: &dyn WeightSource, name: &str) -> Vec<f32> {
    let shape = source.shape(name).expect("a tensor");
    let (rows, columns) = (shape[0], shape[1..].iter().product::<usize>());
    let mut values = vec![0.0; rows * columns];
    source.read(name, 0..rows, 0..columns, &mut values).expect("reads");
    values
}

/// The logical values of a packed weight, codes without their scales.
fn unpack(spec: &WeightSpec, bytes: &[u8]) -> Vec<f32> {
    let elements: Vec<f32> = match spec.dtype {
        DType::BF16 => bytes.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        DType::F16 => bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        DType::E4M3 => bytes.iter().map(|code| e4m3::decode(*code)).collect(),
        DType::I8 => bytes.iter().map(|code| f32::from(*code) - 128.0).collect(),
        _ => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    };
    let (Packing::Panels, [n, k]) = (spec.packing, &*spec.shape) else { return elements };
    let (padded, group) = (Packing::padded_columns(*k, spec.dtype).expect("small"), 4 / spec.dtype.bytes());
    let at = |row: usize, column: usize| {
        (row / 32 * padded + column / group * group) * 32 + row % 32 * group + column % group
    };
    (0..n * k).map(|index| elements[at(index / k, index % k)]).collect()
}

fn weight(engine: &Engine, step: &str, position: usize) -> (WeightSpec, Vec<f32>) {
    let plan = engine.plan();
    let step = plan.steps.iter().find(|candidate| candidate.fused.iter().any(|name| name == step)).expect("a step");
    let index = step.weights[position];
    (plan.weights[index].clone(), unpack(&plan.weights[index], engine.weight(index)))
}

#[test]
fn every_family_builds_with_and_without_passes() {
    for (config, precision) in [
        (LLAMA, Precision::F32),
        (UNTIED, Precision::Bf16),
        (UNTIED, Precision::Fp8),
        (UNTIED, Precision::Int8),
        (LLAMA, Precision::Int8W8a8),
        (GPT2, Precision::F32),
        (GPT2, Precision::F16),
        (GPT2, Precision::Fp8),
    ] {
        let checkpoint = Checkpoint::new(config, DType::F32);
        let options = BuildOptions { precision: Some(precision), ..BuildOptions::default() };
        let fused = checkpoint.build(&options);
        let disabled_passes = crate::passes::PassSet::names().map(String::from).collect();
        let plain = checkpoint.build(&BuildOptions { disabled_passes, ..options });
        assert!(plain.plan().steps.len() > fused.plan().steps.len());
        assert_eq!(plain.plan().precision, precision);
        let appended = |engine: &Engine| {
            let writes = |op: &Op| matches!(op, Op::CacheAppend(_) | Op::FusedAttention { .. });
            engine.plan().steps.iter().filter(|step| writes(&step.op)).count()
        };
        assert_eq!((appended(&plain), appended(&fused)), (2, 2));
        assert!(fused.plan().steps.iter().all(|step| !matches!(step.op, Op::Slice { .. })));
    }
}

#[test]
fn packed_weights_hold_the_checkpoints_values() {
    let llama = Checkpoint::new(UNTIED, DType::F32);
    let engine = llama.build(&BuildOptions::default());
    assert_eq!(engine.plan().precision, Precision::F32);
    let tensor = |name: &str| all_of(&llama.weights, name);
    let qkv: Vec<f32> = ["q", "k", "v"]
        .into_iter()
        .flat_map(|p| tensor(&format!("model.layers.1.self_attn.{p}_proj.weight")))
        .collect();
    let (spec, values) = weight(&engine, "layers.1.q", 0);
    assert_eq!((spec.packing, spec.shape.as_slice(), values), (Packing::Panels, [128, 64].as_slice(), qkv));
    let bias: Vec<f32> =
        ["q", "k", "v"].into_iter().flat_map(|p| tensor(&format!("model.layers.1.self_attn.{p}_proj.bias"))).collect();
    let (spec, values) = weight(&engine, "layers.1.q", 1);
    assert_eq!((spec.packing, spec.dtype, values), (Packing::RowMajor, DType::F32, bias));
    assert_eq!(weight(&engine, "logits", 0).1, tensor("lm_head.weight"));

    let gpt2 = Checkpoint::new(GPT2, DType::F32);
    let engine = gpt2.build(&BuildOptions::default());
    let stored = all_of(&gpt2.weights, "transformer.h.0.attn.c_attn.weight");
    let transposed: Vec<f32> = (0..192 * 64).map(|index| stored[index % 64 * 192 + index / 64]).collect();
    let attention = engine.plan().weights.iter().position(|spec| spec.shape == [192, 64]).expect("fused qkv");
    assert_eq!(unpack(&engine.plan().weights[attention], engine.weight(attention)), transposed);
}

#[test]
fn a_half_precision_checkpoint_makes_a_bf16_engine_and_keeps_its_bits() {
    let checkpoint = Checkpoint::new(LLAMA, DType::BF16);
    let engine = checkpoint.build(&BuildOptions::default());
    assert_eq!(engine.plan().precision, Precision::Bf16);
    assert!(engine.plan().kv_groups.iter().all(|group| group.dtype == DType::BF16));
    let rounded: Vec<f32> = all_of(&checkpoint.weights, "model.embed_tokens.weight")
        .into_iter()
        .map(|v| bf16::from_f32(v).to_f32())
        .collect();
    let (spec, values) = weight(&engine, "logits", 0);
    assert_eq!((spec.dtype, values), (DType::BF16, rounded));
}

#[test]
fn a_tied_table_is_one_weight_in_panels_and_an_untied_one_is_row_major() {
    let tables = |engine: &Engine| -> Vec<Packing> {
        engine.plan().weights.iter().filter(|spec| spec.shape == [97, 64]).map(|spec| spec.packing).collect()
    };
    let options = BuildOptions::default();
    assert_eq!(tables(&Checkpoint::new(LLAMA, DType::F32).build(&options)), [Packing::Panels]);
    let mut untied = tables(&Checkpoint::new(UNTIED, DType::F32).build(&options));
    untied.sort_by_key(|packing| *packing as usize);
    assert_eq!(untied, [Packing::RowMajor, Packing::Panels]);
}

#[test]
fn a_dummy_engine_needs_a_config_alone() -> Result<()> {
    let folder = tempfile::tempdir().expect("a directory");
    let (config, output) = (folder.path().join("config.json"), folder.path().join("out.engine"));
    std::fs::write(&config, LLAMA).expect("writes");
    let source = Source::Dummy { config, seed: 3 };
    build(&source, &output, &BuildOptions::default(), &mut |_, _| ControlFlow::Continue(()))?;
    let engine = open(&output);
    assert!(engine.tokenizer_json().is_none());
    assert_eq!(engine.config(), Some(LLAMA.as_bytes()));
    let (_, gains) = weight(&engine, "norm", 0);
    assert!(gains.iter().all(|gain| (gain - 1.0).abs() < 0.2));
    Ok(())
}

#[test]
fn the_folders_files_travel_in_the_engine() {
    let checkpoint = Checkpoint::new(LLAMA, DType::F32);
    for file in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        std::fs::write(checkpoint.folder.path().join(file), format!("content of {file}")).expect("writes");
    }
    std::fs::write(checkpoint.folder.path().join("generation_config.json"), r#"{"eos_token_id": [5, 6]}"#)
        .expect("writes");
    let engine = checkpoint.build(&BuildOptions { max_positions: Some(100), ..BuildOptions::default() });
    assert_eq!(engine.tokenizer_json(), Some(b"content of tokenizer.json".as_slice()));
    assert_eq!(engine.tokenizer_config(), Some(b"content of tokenizer_config.json".as_slice()));
    assert_eq!(engine.chat_template(), Some(b"content of chat_template.jinja".as_slice()));
    assert_eq!(engine.generation_config(), Some(br#"{"eos_token_id": [5, 6]}"#.as_slice()));
    assert_eq!(
        (engine.plan().model.eos_token_ids.as_slice(), engine.plan().model.max_positions),
        ([5, 6].as_slice(), 100)
    );
}

#[test]
fn an_engine_tells_which_passes_made_it() {
    let checkpoint = Checkpoint::new(LLAMA, DType::F32);
    let options = BuildOptions { disabled_passes: vec!["qkv".into()], ..BuildOptions::default() };
    let engine = checkpoint.build(&options);
    let json: serde_json::Value = serde_json::from_str(&engine.inspect_json()).expect("JSON");
    let build = &json["build"];
    assert_eq!(build["library"], env!("CARGO_PKG_VERSION"));
    assert_eq!(build["kernels"], serde_json::Value::Null);
    let passes = build["passes"].as_array().expect("an array");
    let pass = |name: &str| passes.iter().find(|pass| pass["name"] == name);
    assert_eq!(pass("qkv"), None);
    let layers = engine.plan().model.layers;
    let attention = pass("attention").expect("ran");
    assert_eq!(attention["rewrites"], layers);
    // Two ropes, the append and the attention of each layer become one node.
    let before = passes.iter().take_while(|pass| *pass != attention).last().expect("a pass before it");
    let nodes = |pass: &serde_json::Value| pass["nodes"].as_u64().expect("a number");
    assert_eq!(nodes(before) - nodes(attention), 3 * layers as u64);
    assert!(build["nodes"].as_u64().expect("a number") >= nodes(&passes[0]));
    let steps = engine.plan().steps.len() as u64;
    assert_eq!(nodes(passes.last().expect("passes")), steps, "without qkv there are no slices");
}

#[test]
fn a_cancelled_build_leaves_the_old_file_and_nothing_else() {
    let checkpoint = Checkpoint::new(LLAMA, DType::F32);
    let source = checkpoint.source();
    let mut calls = Vec::new();
    build(&source, &checkpoint.output(), &BuildOptions::default(), &mut |phase, fraction| {
        calls.push((phase, fraction));
        ControlFlow::Continue(())
    })
    .expect("builds");
    assert!(calls.windows(2).all(|pair| pair[0].0 as usize <= pair[1].0 as usize));
    assert_eq!(calls.last(), Some(&(Phase::Write, 1.0)));
    std::fs::write(checkpoint.output(), "old").expect("writes");
    for stop in 0..calls.len() - 1 {
        let mut call = 0;
        let result = build(&source, &checkpoint.output(), &BuildOptions::default(), &mut |_, _| {
            call += 1;
            if call == stop + 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(result.expect_err("cancelled").status(), Status::Cancelled);
        assert_eq!(std::fs::read(checkpoint.output()).expect("is there"), b"old");
        assert_eq!(std::fs::read_dir(checkpoint.folder.path()).expect("lists").count(), 3, "no temporary file");
    }
}

#[test]
fn impossible_options_are_named() {
    let checkpoint = Checkpoint::new(LLAMA, DType::F32);
    let wrong = |options: BuildOptions| {
        build(&checkpoint.source(), &checkpoint.output(), &options, &mut |_, _| ControlFlow::Continue(()))
            .expect_err("refused")
    };
    let error = wrong(BuildOptions { disabled_passes: vec!["nonsense".into()], ..BuildOptions::default() });
    assert_eq!(error.status(), Status::InvalidArgument);
    assert!(error.to_string().contains("nonsense"));
    for max_positions in [0, 129] {
        let error = wrong(BuildOptions { max_positions: Some(max_positions), ..BuildOptions::default() });
        assert!(error.to_string().contains("max_positions"), "{error}");
    }
    assert!(!checkpoint.output().exists());
}
