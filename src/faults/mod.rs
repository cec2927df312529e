//! Tests of the whole path from a plan to an executor over a GPU that fails when they ask it to.

mod executor;
mod memory;
mod steps;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::backend::cuda::fake::{FakeCompiler, FakeDriver};
use crate::backend::cuda::{Arch, CudaDevice, CudaTarget, Selector, StoredPolicy, Tactics, pack_cubins};
use crate::builder::{self, BuildOptions, Source};
use crate::engine::{Engine, EngineWriter, LoadMode, Plan, Precision, SectionKind, Target};
use crate::error::{Error, Result};

const ARCH: Arch = Arch { major: 9, minor: 0 };

const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 97, "hidden_size": 128,
    "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "torch_dtype": "bfloat16"}"#;

/// The same small model for a device class. For CUDA its kernels are made up and its weights are zero: nobody runs them.
fn engine(target: Target) -> Arc<Engine> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (config, path) = (folder.path().join("config.json"), folder.path().join("model.engine"));
    std::fs::write(&config, CONFIG).expect("the folder takes it");
    let source = Source::Dummy { config, seed: 1 };
    let options = BuildOptions { target, precision: Some(Precision::Bf16), ..BuildOptions::default() };
    match target {
        Target::Cpu => builder::build(&source, &path, &options, &mut |_, _| ControlFlow::Continue(())),
        Target::Cuda => builder::plan(&source, &options).and_then(|plan| write(plan, &path)),
    }
    .expect("the engine is written");
    Arc::new(Engine::open(&path, LoadMode::Read, &mut |_| ControlFlow::Continue(())).expect("the engine opens"))
}

fn write(mut plan: Plan, path: &Path) -> Result<()> {
    let mut writer = EngineWriter::create(path)?;
    for weight in &mut plan.weights {
        writer.begin_weight(weight.packing)?;
        writer.write(&vec![0; weight.bytes as usize])?;
        let placement = writer.end_weight()?;
        (weight.offset, weight.checksum) = (placement.offset, placement.checksum);
    }
    let target = CudaTarget::typical(ARCH, plan.invariant);
    let specs = Selector { plan: &plan, target: &target, tactics: &Tactics::default() }.specialisations();
    let cubins = specs.into_iter().map(|spec| {
        let code = spec.describe(ARCH).into_bytes();
        (spec, ARCH, code.into())
    });
    let kernels = pack_cubins(&cubins.collect::<Vec<_>>(), (13, 0))?;
    writer.finish(&plan, &[(SectionKind::Config, CONFIG.as_bytes()), (SectionKind::Kernels, &kernels)])
}

/// A device of this driver, without a compiler.
fn device(driver: &Arc<FakeDriver>) -> CudaDevice {
    CudaDevice::on(driver.clone(), FakeCompiler::missing(), None, StoredPolicy::Use)
}
