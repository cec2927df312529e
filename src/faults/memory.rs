//! What loading takes, what it refuses, and where its kernels come from.

use super::*;
use crate::backend::cuda::fake::{Call, Counts};
use crate::backend::cuda::{GRAPH_NODE_BYTES, MODULE_BYTES};
use crate::engine::Limits;
use crate::error::Status;
use crate::executor::{Executor, ExecutorConfig};
use crate::runtime::OpenDevice;

const LIMITS: Limits = Limits { tokens: 40, logit_rows: 4, rows: 4, kv_blocks: 20 };

/// The two numbers of a message.
fn figures(text: &str) -> Vec<usize> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[test]
fn what_is_planned_is_what_is_taken_and_covers_all_that_is_allocated() {
    let (driver, engine) = (FakeDriver::new(), engine(Target::Cuda));
    let device = device(&driver);
    let program = device.load(&engine, LIMITS).unwrap();
    let cache = LIMITS.kv_blocks * engine.plan().kv_groups[0].block_bytes();
    assert_eq!(program.memory_bytes(), (device.fixed_bytes(&engine, &LIMITS).unwrap() + cache) as u64);
    let Counts { modules, graphs, .. } = driver.alive();
    assert!(modules > 10 && graphs == 4, "{modules} modules, {graphs} graphs");
    let beside = program.memory_bytes() as usize - driver.used_bytes() - driver.pinned_bytes();
    // A graph has a kernel for each layer's linear at least.
    assert!(
        beside > modules * MODULE_BYTES + graphs * 2 * 4 * GRAPH_NODE_BYTES,
        "{beside} bytes for kernels and graphs"
    );
}

#[test]
fn too_little_device_memory_is_told_with_needed_and_free_bytes_before_anything_is_taken() {
    let engine = engine(Target::Cuda);
    let needed = |driver: &Arc<FakeDriver>| device(driver).load(&engine, LIMITS).map(|_| ()).unwrap_err();
    let tight = FakeDriver::with(ARCH, 1 << 20);
    let error = needed(&tight);
    assert_eq!((error.status(), tight.calls(Call::Allocate)), (Status::OutOfMemory, 0));
    let [needed_bytes, free] = figures(&error.to_string())[..] else { panic!("{error}") };
    assert_eq!(free, 1 << 20);
    let error = needed(&FakeDriver::with(ARCH, needed_bytes - 1));
    assert_eq!(figures(&error.to_string()), [needed_bytes, needed_bytes - 1]);
    device(&FakeDriver::with(ARCH, needed_bytes)).load(&engine, LIMITS).unwrap();
}

fn start(driver: &Arc<FakeDriver>, engine: &Arc<Engine>, memory_budget: u64) -> Result<Executor> {
    let config = ExecutorConfig { max_batch_size: 2, max_batch_tokens: 16, memory_budget, ..ExecutorConfig::default() };
    Executor::load_on(OpenDevice::Cuda(device(driver)), engine.clone(), config)
}

#[test]
fn an_executor_tells_the_same() {
    let (tight, engine) = (FakeDriver::with(ARCH, 1 << 20), engine(Target::Cuda));
    let error = start(&tight, &engine, 0).map(|_| ()).unwrap_err();
    assert_eq!((error.status(), tight.alive()), (Status::OutOfMemory, Counts::default()));
    assert_eq!(figures(&error.to_string()).last(), Some(&(1 << 20)));
}

#[test]
fn a_budget_has_room_for_graphs_modules_and_pinned_memory_or_is_refused() {
    let engine = engine(Target::Cuda);
    let error = start(&FakeDriver::new(), &engine, 1).map(|_| ()).unwrap_err();
    assert_eq!(error.status(), Status::BudgetExceeded);
    let needed = figures(&error.to_string())[0] as u64;
    assert!(start(&FakeDriver::new(), &engine, needed - 1).is_err());
    let executor = start(&FakeDriver::new(), &engine, needed).unwrap();
    assert!(executor.stats().memory_bytes <= needed);
}

#[test]
fn refused_kernels_are_compiled_here_or_the_engine_does_not_load() {
    let engine = engine(Target::Cuda);
    let load = |policy, compiler: &Arc<FakeCompiler>| {
        let driver = FakeDriver::new();
        let program = CudaDevice::on(driver.clone(), compiler.clone(), None, policy).load(&engine, LIMITS);
        program.map(|_| driver.calls(Call::Load))
    };
    let compiler = FakeCompiler::present();
    let modules = load(StoredPolicy::Use, &compiler).unwrap();
    assert_eq!(compiler.compiled(), 0);
    assert_eq!(load(StoredPolicy::Refuse, &compiler), Ok(modules));
    assert_eq!(compiler.compiled(), modules);
    let missing = FakeCompiler::missing();
    let error = load(StoredPolicy::Refuse, &missing).unwrap_err();
    assert_eq!(error.status(), Status::DeviceUnavailable);
    assert!(error.to_string().contains("kernels for sm_90a are refused"), "{error}");
}
