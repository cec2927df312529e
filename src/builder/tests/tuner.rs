//! The tuner on a device that runs nothing but checks every call.

use std::sync::Arc;

use super::*;
use crate::backend::cuda::fake::{Call, FakeCompiler, FakeDriver};
use crate::backend::cuda::{
    Arch, CubinStore, CudaTarget, Driver, Selector, StoredCubins, StoredPolicy, Tactics, Timings, TuneSummary, Tuner,
};
use crate::engine::{Limits, Plan, Target};
use crate::error::Error;

const MODEL: &str = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 1024, "hidden_size": 512,
    "intermediate_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": false}"#;

pub(super) fn plan_of(precision: Precision) -> Plan {
    let folder = tempfile::tempdir().expect("a directory");
    let config = folder.path().join("config.json");
    std::fs::write(&config, MODEL).expect("writes");
    let options = BuildOptions { target: Target::Cuda, precision: Some(precision), ..BuildOptions::default() };
    plan(&Source::Dummy { config, seed: 0 }, &options).expect("plans")
}

fn tune(driver: &Arc<FakeDriver>, plan: &Plan, timings: &mut Timings) -> Result<(TuneSummary, Tactics)> {
    let driver: Arc<dyn Driver> = driver.clone();
    let cubins =
        CubinStore::with_compiler(StoredCubins::default(), StoredPolicy::Refuse, None, FakeCompiler::present());
    let mut tactics = Tactics::default();
    let mut last = 0.0;
    let summary =
        Tuner { driver: &driver, cubins: &cubins, timings, threads: 2 }.tune(plan, &mut tactics, &mut |part| {
            assert!((last..=1.0).contains(&part));
            last = part;
            Ok(())
        });
    Ok((summary?, tactics))
}

#[test]
fn every_candidate_is_a_launch_that_a_device_takes() {
    for (number, precision) in [(90, Precision::Fp8), (80, Precision::F16)] {
        let driver = FakeDriver::with(Arch { major: number / 10, minor: number % 10 }, 2 << 30);
        let (summary, tactics) = tune(&driver, &plan_of(precision), &mut Timings::default()).expect("tunes");
        assert!(summary.measured > 50 && summary.refused == 0 && summary.remembered == 0, "{number}: {summary:?}");
        assert!(!tactics.is_empty());
        assert_eq!(driver.alive(), Default::default());
    }
}

#[test]
fn the_fastest_is_taken_and_only_what_the_library_would_try() {
    let (driver, plan) = (FakeDriver::with(Arch { major: 9, minor: 0 }, 2 << 30), plan_of(Precision::Bf16));
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut timings = Timings::open(file.path().into());
    let (first, by_default) = tune(&driver, &plan, &mut timings).expect("tunes");
    timings.save();

    let target = CudaTarget::typical(Arch { major: 9, minor: 0 }, false);
    let specs = |tactics: &Tactics| Selector { plan: &plan, target: &target, tactics }.specialisations();
    // The fake's clock gives all the same time, which leaves every default.
    assert_eq!(specs(&by_default), specs(&Tactics::default()));

    let mut json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(file.path()).expect("reads")).expect("JSON");
    for time in json["microseconds"].as_object_mut().expect("an object").values_mut().step_by(2) {
        *time = serde_json::json!(0.001);
    }
    std::fs::write(file.path(), json.to_string()).expect("writes");
    let (second, tuned) = tune(&driver, &plan, &mut Timings::open(file.path().into())).expect("tunes");
    assert_eq!((second.measured, second.remembered), (0, first.measured));
    assert_ne!(specs(&tuned), specs(&by_default));

    // Sessions of any size find these kernels among those that a build stores.
    for (tokens, rows) in [(1, 1), (20, 9), (300, 300), (777, 64), (8192, 512)] {
        let limits = Limits { tokens, logit_rows: rows, rows, kv_blocks: 64 };
        let selector = Selector { plan: &plan, target: &CudaTarget { present: 7, ..target }, tactics: &tuned };
        assert!(selector.specialisations_within(&limits).is_subset(&specs(&tuned)), "{tokens} tokens, {rows} rows");
    }

    // The times that speak for each choice are told.
    let told = serde_json::to_value(&second.measurements).expect("JSON");
    let told = told.as_array().expect("an array");
    assert!(!told.is_empty());
    for layer in told {
        let time = |tactic: &serde_json::Value| {
            let times = layer["times"].as_array().expect("an array");
            let time = times.iter().find(|time| time["tactic"] == *tactic).expect("its time is told");
            time["microseconds"].as_f64().expect("a number")
        };
        let (chosen, default) = (time(&layer["chosen"][0]), time(&layer["default"]));
        assert!(0.0 < chosen && chosen <= default, "{layer}");
        assert!(layer["candidates"].as_u64() >= layer["times"].as_array().map(|times| times.len() as u64), "{layer}");
    }
    assert!(told.iter().any(|layer| layer["chosen"][0] != layer["default"]));
    assert_eq!(told[0]["layer"].as_str().map(|macros| macros.contains("N=")), Some(true));

    let json = tuned.to_json().expect("writes");
    assert_eq!(Tactics::from_json(&json).expect("reads"), tuned);
    assert_eq!(Tactics::from_json(b"{\"sm_90a\": 1}").unwrap_err().status(), Status::Corrupt);
    // What the library would not try itself it does not follow.
    let json = String::from_utf8(json).expect("text");
    let wrong = json.replace("\"bm\":", "\"bm\":1").replace("\"chunk\":", "\"chunk\":1");
    assert_ne!(json, wrong);
    assert_eq!(specs(&Tactics::from_json(wrong.as_bytes()).expect("reads")), specs(&Tactics::default()));
}

#[test]
fn a_tuning_ends_with_what_goes_wrong() {
    let plan = plan_of(Precision::Bf16);
    let driver = FakeDriver::new();
    driver.fail(Call::Launch, 20);
    assert_eq!(tune(&driver, &plan, &mut Timings::default()).unwrap_err().status(), Status::DeviceLost);
    let small = FakeDriver::with(Arch { major: 9, minor: 0 }, 1 << 20);
    let (summary, tactics) = tune(&small, &plan, &mut Timings::default()).expect("a full device is no fault");
    assert!(summary.measured == 0 && summary.skipped > 50 && tactics.is_empty(), "{summary:?}");
    assert_eq!(small.alive(), Default::default());

    let driver: Arc<dyn Driver> = FakeDriver::new();
    let cubins =
        CubinStore::with_compiler(StoredCubins::default(), StoredPolicy::Refuse, None, FakeCompiler::present());
    let mut timings = Timings::default();
    let cancel = &mut |part| match part {
        0.0..0.8 => Ok(()),
        _ => Err(Error::Cancelled { what: "build".into(), why: "enough".into() }),
    };
    let mut tuner = Tuner { driver: &driver, cubins: &cubins, timings: &mut timings, threads: 2 };
    assert_eq!(tuner.tune(&plan, &mut Tactics::default(), cancel).unwrap_err().status(), Status::Cancelled);
}

/// Codes of activations are read by the warpgroup kernel alone, however few rows there are.
#[test]
fn on_hopper_every_aligned_layer_of_an_fp8_engine_has_a_kernel_for_its_operands() {
    let plan = plan_of(Precision::Fp8);
    let target = CudaTarget::typical(Arch { major: 9, minor: 0 }, false);
    let specs = Selector { plan: &plan, target: &target, tactics: &Tactics::default() }.specialisations();
    let sources: std::collections::BTreeSet<_> = specs.iter().map(|spec| spec.source).collect();
    assert!(sources.contains("linear/sm90_gemm.cu") && sources.contains("linear/gemv.cu"), "{sources:?}");
    assert!(!sources.contains("linear/mma_gemm.cu") && !sources.contains("linear/generic.cu"), "{sources:?}");
}
