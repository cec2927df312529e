//! What a GPU's fault leaves of a process, and kernels that are refused.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trtllm::backend::cuda::{
    Argument, Compiler, CudaTarget, Driver, KernelSpec, Launch, RealDriver, RuntimeCompiler, Selector, Tactics,
    pack_cubins,
};
use trtllm::builder::{BuildOptions, Source};
use trtllm::engine::{Engine, EngineWriter, Limits, LoadMode, Precision, SectionKind, Target};
use trtllm::executor::{Executor, ExecutorConfig, FinishReason, Input, Request, RequestId, Response};
use trtllm::runtime::{DeviceOptions, Forward, OpenDevice};
use trtllm::sampling::SamplingParams;
use trtllm::{Result, Status};

use crate::common::{engine_of, logits_of, rerun, tests_path};
use crate::{gpu, some_tokens};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

fn tiny(target: Target) -> Arc<Engine> {
    let options = BuildOptions { target, precision: Some(Precision::Bf16), tune: false, ..BuildOptions::default() };
    engine_of(&Source::Checkpoint(tests_path("models/tiny")), &options)
}

/// The kernel of rotary angles, of 32 threads: it reads positions and writes angles wherever it is told.
pub fn angles(driver: &dyn Driver) -> (KernelSpec, Vec<u8>) {
    let spec = KernelSpec::new("rowwise/angles.cu", "angles").define("COLUMNS", 64).define("ANGLE_SCALE", "1.0f");
    let cubin = RuntimeCompiler.compile(&spec, driver.info().arch).expect("NVRTC compiles it");
    (spec, cubin)
}

/// A launch of that kernel on `driver`, with all operands at one address.
pub fn launch_of_angles(driver: &dyn Driver, address: u64) -> Launch {
    let (spec, cubin) = angles(driver);
    let module = driver.load(&cubin, "angles").expect("the kernel loads");
    let function = driver.function(module, spec.entry, 0).expect("it has its entry");
    let operands = [Argument::Address(address); 3].into_iter();
    let arguments = operands.chain([Argument::U32(1)]).collect();
    Launch { function, grid: [1; 3], block: 32, shared: 0, cluster: 1, dependent: false, arguments }
}

/// An illegal access ends CUDA for the whole process, so it happens in a process of its own: this test again.
#[test]
fn an_illegal_access_ends_every_request_and_nothing_else() {
    const VARIABLE: &str = "TRTLLM_TEST_TRAMPLE_EXECUTOR";
    if std::env::var_os(VARIABLE).is_some() {
        return trample();
    }
    if !gpu() {
        return;
    }
    let name = "faults::an_illegal_access_ends_every_request_and_nothing_else";
    let output = rerun(name, VARIABLE, OsStr::new("1")).output().expect("the program starts again");
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("the process lives"), "{}\n{errors}", output.status);
}

fn trample() {
    let config = ExecutorConfig { max_batch_size: 4, threads: 2, prefix_reuse: false, ..ExecutorConfig::default() };
    let cpu = Executor::load(tiny(Target::Cpu), config.clone()).expect("the CPU engine loads");
    let cuda = Executor::load(tiny(Target::Cuda), config).expect("the CUDA engine loads");
    // The same context as the engine's, another stream.
    let driver = RealDriver::open(0).expect("the device opens again");
    let trampling = launch_of_angles(&*driver, 16);
    answers(&cuda);

    // Four that run, three that wait for a place.
    let ids = [1, 30, 200, 5, 60, 7, 8].map(|prompt| cuda.submit(request(prompt, 700)).expect("there is room"));
    let first = cuda.await_responses(Some(ids[0]), PATIENCE, 1).expect("the first one begins");
    assert!(!first[0].last);
    // SAFETY: none; the device's own protection is what is tested.
    unsafe { driver.launch(&trampling).expect("a launch is asynchronous") };
    let lost = driver.synchronize().expect_err("address 16 is nobody's");
    println!("{lost}");
    assert_eq!(lost.status(), Status::DeviceLost);

    let begun = Instant::now();
    for id in ids {
        let last = responses(&cuda, id).pop().expect("there is a last one");
        let error = last.error.expect("no request comes to another end");
        assert_eq!((last.finish, error.status()), (Some(FinishReason::Error), Status::DeviceLost), "{error}");
    }
    assert_eq!(cuda.health().expect_err("it is broken").status(), Status::DeviceLost);
    assert_eq!(cuda.submit(request(1, 1)).expect_err("it is broken").status(), Status::DeviceLost);
    cuda.shutdown().expect("it ends");
    drop((cuda, driver));
    println!("every request ended and everything was given back within {:?}", begun.elapsed());

    answers(&cpu);
    let again = Executor::load(tiny(Target::Cpu), ExecutorConfig { threads: 1, ..ExecutorConfig::default() });
    answers(&again.expect("a new CPU engine loads"));
    println!("opened again: {:?}", RealDriver::open(0).map(|_| ()));
    println!("the process lives");
}

fn request(prompt: usize, max_tokens: u32) -> Request {
    let sampling = SamplingParams { max_tokens, ignore_eos: true, ..SamplingParams::default() };
    Request { sampling, ..Request::new(Input::Tokens(vec![9; prompt])) }
}

/// All responses of a request up to its last.
fn responses(executor: &Executor, id: RequestId) -> Vec<Response> {
    let mut all = Vec::new();
    while !all.last().is_some_and(|response: &Response| response.last) {
        all.extend(executor.await_responses(Some(id), PATIENCE, 64).expect("the request ends"));
    }
    all
}

fn answers(executor: &Executor) {
    let all = responses(executor, executor.submit(request(20, 8)).expect("it takes requests"));
    assert_eq!(all.last().and_then(|response| response.finish), Some(FinishReason::Length));
    assert_eq!(all.iter().map(|response| response.tokens.len()).sum::<usize>(), 8);
    executor.health().expect("it is well");
}

/// The engine with other bytes in place of each stored cubin.
fn with_cubins(engine: &Engine, target: &CudaTarget, cubin: &[u8], path: &Path) -> Arc<Engine> {
    let mut plan = engine.plan().clone();
    let mut writer = EngineWriter::create(path).expect("the folder takes it");
    for (index, weight) in plan.weights.iter_mut().enumerate() {
        writer.begin_weight(weight.packing).and_then(|()| writer.write(engine.weight(index))).expect("it is written");
        weight.offset = writer.end_weight().expect("it was begun").offset;
    }
    let specs = Selector { plan: &plan, target, tactics: &Tactics::default() }.specialisations();
    let cubins: Vec<_> = specs.into_iter().map(|spec| (spec, target.arch, cubin.into())).collect();
    let kernels = pack_cubins(&cubins, (13, 0)).expect("the library knows them all");
    let config = engine.config().expect("every engine has one");
    writer
        .finish(&plan, &[(SectionKind::Config, config), (SectionKind::Kernels, &kernels)])
        .expect("the engine is written");
    Arc::new(Engine::open(path, LoadMode::Read, &mut |_| ControlFlow::Continue(())).expect("the engine opens"))
}

fn load(engine: &Arc<Engine>, refuse_stored_kernels: bool) -> Result<Box<dyn Forward>> {
    let options = DeviceOptions { refuse_stored_kernels, ..DeviceOptions::default() };
    let limits = Limits { tokens: 64, logit_rows: 64, rows: 1, kv_blocks: 4 };
    OpenDevice::new(Target::Cuda, &options)?.load(Arc::clone(engine), limits)
}

#[test]
fn machine_code_in_an_engine_does_not_run_where_it_is_refused() {
    let Some(driver) = gpu().then(|| RealDriver::open(0).expect("it was there just now")) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sound = tiny(Target::Cuda);
    let target = CudaTarget::of(driver.info(), false);
    let strange = with_cubins(&sound, &target, b"whatever somebody put there", &folder.path().join("strange.engine"));
    assert_eq!(load(&strange, false).map(|_| ()).expect_err("it is no cubin").status(), Status::Corrupt);
    let tokens = some_tokens(64, 1000, 5);
    let logits = |engine, refuse| logits_of(&mut *load(engine, refuse).expect("it loads"), 1, &tokens, &[64]);
    assert_eq!(logits(&strange, true), logits(&sound, false));
}
