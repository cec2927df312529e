//! Every specialisation that plans select compiles for every arch, without a GPU, and the hot ones are what they should be.
//!
//! Needs NVRTC (`TRTLLM_NVRTC` names it, or it is at its usual places) and, for the second test, nvdisasm (`TRTLLM_NVDISASM`).
//! `tests/run.sh` brings both; without them a test is skipped, and says so.

mod common;

use std::collections::BTreeSet;
use std::process::Command;

use common::quantized::{Models, Scheme};
use common::tests_path;
use trtllm::backend::cuda::{Arch, CubinStore, CudaTarget, KernelSpec, Selector, Tactics, nvrtc_version};
use trtllm::builder::{BuildOptions, Source, plan};
use trtllm::engine::{Granularity, Limits, Plan, Precision, Target};

const ARCHS: [u32; 6] = [80, 87, 89, 90, 100, 120];

fn arch(number: u32) -> Arch {
    Arch { major: number / 10, minor: number % 10 }
}

/// Heads of a tensor-core size with all that families add to a decoder.
const FAMILIES: [&str; 2] = [
    r#"{"architectures": ["Gemma2ForCausalLM"], "vocab_size": 640, "hidden_size": 512, "intermediate_size": 384, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 256, "torch_dtype": "bfloat16"}"#,
    r#"{"architectures": ["Qwen3ForCausalLM"], "vocab_size": 640, "hidden_size": 512, "intermediate_size": 384, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 128, "torch_dtype": "bfloat16"}"#,
];

/// The tiny model, a large one, GPT-2's operations, unfused ones, and other families.
fn plans() -> Vec<Plan> {
    let large = tests_path("../examples-cpp/bench/llama-3.1-8b.json");
    let sources = [
        (Source::Checkpoint(tests_path("models/tiny")), Precision::Bf16, false),
        (Source::Checkpoint(tests_path("models/tiny")), Precision::F16, true),
        (Source::Checkpoint(tests_path("golden/gpt2")), Precision::Bf16, false),
        (Source::Dummy { config: large.clone(), seed: 0 }, Precision::Bf16, false),
        (Source::Dummy { config: large, seed: 0 }, Precision::Fp8, false),
    ];
    let mut plans = Vec::new();
    for (source, precision, unfused) in sources {
        let disabled = ["qkv", "attention", "residual_norm", "gated_linear"].map(str::to_string);
        let options = BuildOptions {
            target: Target::Cuda,
            precision: Some(precision),
            kv_precision: (precision == Precision::Fp8).then_some(Precision::Fp8),
            disabled_passes: if unfused { disabled.to_vec() } else { vec![] },
            ..BuildOptions::default()
        };
        let plan = plan(&source, &options).expect("the plan is made");
        // The invariant mode's kernels are the same for every 16-bit precision.
        if precision == Precision::Bf16 {
            plans.push(Plan { invariant: true, ..plan.clone() });
        }
        plans.push(plan);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    Models::new(Scheme::Blocks, 1).write(folder.path(), true);
    let source = Source::Checkpoint(folder.path().to_path_buf());
    let options =
        BuildOptions { target: Target::Cuda, head_precision: Some(Precision::Fp8), ..BuildOptions::default() };
    plans.push(plan(&source, &options).expect("the plan is made"));
    for text in FAMILIES {
        let config = folder.path().join("family.json");
        std::fs::write(&config, text).expect("the folder takes it");
        let options = BuildOptions { target: Target::Cuda, ..BuildOptions::default() };
        plans.push(plan(&Source::Dummy { config, seed: 0 }, &options).expect("the plan is made"));
    }
    plans
}

fn has_blocks(plan: &Plan) -> bool {
    plan.weights.iter().any(|weight| weight.scale.is_some_and(|scale| scale.granularity == Granularity::Block))
}

/// What the plans that `choose` takes need.
fn specs(target: &CudaTarget, choose: impl Fn(&Plan) -> bool) -> BTreeSet<KernelSpec> {
    let of = |plan: &Plan| {
        let target = CudaTarget { invariant: plan.invariant, ..*target };
        let mut specs = Selector { plan, target: &target, tactics: &Tactics::default() }.specialisations();
        // Linear layers are the same in every family.
        let plain = matches!(plan.model.architecture.as_str(), "LlamaForCausalLM" | "GPT2LMHeadModel");
        specs.retain(|spec| plain || !spec.source.starts_with("linear/"));
        specs
    };
    plans().iter().filter(|plan| choose(plan)).flat_map(of).collect()
}

/// What a session needs is what the builder stored, whatever the session's limits and however many multiprocessors the
/// device has: else a deployment without NVRTC could not load its engine.
#[test]
fn sessions_of_any_size_find_their_kernels_in_the_engine() {
    for plan in plans() {
        for number in ARCHS {
            let typical = CudaTarget::typical(arch(number), plan.invariant);
            let tactics = Tactics::default();
            let stored = Selector { plan: &plan, target: &typical, tactics: &tactics }.specialisations();
            for present in [typical.present, 114, 7] {
                for (tokens, rows) in [(1, 1), (3, 3), (20, 9), (300, 300), (512, 16), (777, 64), (8192, 512)] {
                    let limits = Limits { tokens, logit_rows: rows, rows, kv_blocks: 64 };
                    let target = CudaTarget { present, ..typical };
                    let selector = Selector { plan: &plan, target: &target, tactics: &tactics };
                    let needed = selector.specialisations_within(&limits);
                    let missing =
                        needed.difference(&stored).map(|spec| spec.describe(typical.arch)).collect::<Vec<_>>();
                    assert!(missing.is_empty(), "{tokens} tokens, {rows} rows, {present} multiprocessors: {missing:?}");
                }
            }
        }
    }
}

fn compiler() -> bool {
    nvrtc_version().inspect_err(|error| println!("skipped: {error}")).is_ok()
}

#[test]
fn every_specialisation_compiles_for_every_arch() {
    if !compiler() {
        return;
    }
    for number in ARCHS {
        let target = CudaTarget::typical(arch(number), false);
        // Block scales are read by Hopper's kernel and by those of every arch, of which one stands for the others here.
        let chosen = |plan: &Plan| matches!(number, 80 | 90) || !has_blocks(plan);
        let specs = specs(&target, chosen).into_iter().collect::<Vec<_>>();
        let cubins = CubinStore::compiling().get_all(&specs, target.arch, 2).unwrap_or_else(|error| panic!("{error}"));
        println!(
            "{}: {} kernels, {} KiB",
            target.arch,
            specs.len(),
            cubins.iter().map(|cubin| cubin.len()).sum::<usize>() >> 10
        );
    }
}

/// Instructions that a hot kernel must have.
fn wanted(spec: &KernelSpec) -> Option<&'static [&'static str]> {
    match spec.source {
        "linear/gemv.cu" => Some(&["HMMA", "UBLKCP"]),
        "linear/sm90_gemm.cu" => Some(&["GMMA", "UTMALDG"]),
        "attention/decode.cu" => Some(&["HMMA"]),
        "attention/prefill_wgmma.cu" => Some(&["GMMA"]),
        _ => None,
    }
}

#[test]
fn hot_kernels_use_the_chip_and_spill_nothing() {
    let Some(disassembler) = std::env::var_os("TRTLLM_NVDISASM") else {
        return println!("skipped: TRTLLM_NVDISASM does not name nvdisasm");
    };
    if !compiler() {
        return;
    }
    let target = CudaTarget::typical(arch(90), false);
    // Disassembling takes as long as compiling: large shapes stand for small ones.
    let chosen = |plan: &Plan| plan.model.hidden_size >= 4096 || has_blocks(plan);
    let hot = specs(&target, chosen).into_iter().filter(|spec| wanted(spec).is_some()).collect::<Vec<_>>();
    let cubins = CubinStore::compiling().get_all(&hot, target.arch, 2).unwrap_or_else(|error| panic!("{error}"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut sources = BTreeSet::new();
    for (spec, cubin) in hot.iter().zip(cubins) {
        let path = folder.path().join("kernel.cubin");
        std::fs::write(&path, cubin).expect("the folder takes it");
        let output = Command::new(&disassembler).arg("-c").arg(&path).output().expect("nvdisasm runs");
        let text = String::from_utf8_lossy(&output.stdout);
        for instruction in wanted(spec).unwrap_or_default() {
            assert!(text.contains(instruction), "{} has no {instruction}", spec.describe(target.arch));
        }
        for spill in [" LDL", " STL"] {
            assert!(!text.contains(spill), "{} has{spill}", spec.describe(target.arch));
        }
        sources.insert(spec.source);
    }
    println!("{} cubins of {sources:?}", hot.len());
}
