//! What the driver itself takes of the device, against what the library plans for it. These measure the whole device and
//! run alone: `--ignored --test-threads 1`.

use std::sync::Arc;

use trtllm::backend::cuda::{Driver, GRAPH_NODE_BYTES, MODULE_BYTES, RealDriver};
use trtllm::builder::{BuildOptions, Source};
use trtllm::engine::{Precision, Target};
use trtllm::executor::{Executor, ExecutorConfig};

use crate::common::engine_of;
use crate::faults::{angles, launch_of_angles};
use crate::gpu;

/// What a driver rounds and keeps for itself, whatever it is asked for.
const ROUNDING: usize = 16 << 20;

fn free(driver: &Arc<dyn Driver>) -> usize {
    driver.free_bytes().expect("the device answers")
}

#[test]
#[ignore = "measures the whole device"]
fn graphs_and_modules_take_no_more_than_is_planned() {
    const GRAPHS: usize = 20;
    const NODES: usize = 500;
    const MODULES: usize = 300;
    let Some(driver) = gpu().then(|| RealDriver::open(0).expect("it was there just now")) else { return };
    let address = driver.allocate(4096, "angles").expect("there is room");
    let launch = launch_of_angles(&*driver, address);
    let before = free(&driver);
    for _ in 0..GRAPHS {
        driver.begin_capture().expect("captures");
        // SAFETY: the kernel reads and writes less than the allocation; it is only recorded.
        (0..NODES).for_each(|_| unsafe { driver.launch(&launch).expect("is recorded") });
        driver.end_capture().expect("a graph");
    }
    driver.synchronize().expect("the device answers");
    let graphs = before.saturating_sub(free(&driver));

    let (_, cubin) = angles(&*driver);
    let before = free(&driver);
    for _ in 0..MODULES {
        let module = driver.load(&cubin, "angles").expect("loads");
        driver.function(module, "angles", 0).expect("it has its entry");
    }
    let modules = before.saturating_sub(free(&driver));
    println!("a graph's kernel takes {} bytes, {GRAPH_NODE_BYTES} are planned", graphs / (GRAPHS * NODES));
    let planned = cubin.len() + MODULE_BYTES;
    println!("a module of {} bytes takes {} bytes, {planned} are planned", cubin.len(), modules / MODULES);
    assert!(graphs <= GRAPHS * NODES * GRAPH_NODE_BYTES + ROUNDING, "{graphs} bytes for graphs");
    assert!(modules <= MODULES * planned + ROUNDING, "{modules} bytes for modules");
}

#[test]
#[ignore = "measures the whole device"]
fn an_executor_takes_no_more_than_it_says_and_gives_it_back() {
    let Some(driver) = gpu().then(|| RealDriver::open(0).expect("it was there just now")) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("config.json");
    let config = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 1000, "hidden_size": 256, "intermediate_size": 512,
        "num_hidden_layers": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
        "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "torch_dtype": "bfloat16"}"#;
    std::fs::write(&path, config).expect("the folder takes it");
    let options =
        BuildOptions { target: Target::Cuda, precision: Some(Precision::Bf16), tune: false, ..BuildOptions::default() };
    let engine = engine_of(&Source::Dummy { config: path, seed: 1 }, &options);
    let config = ExecutorConfig { max_batch_size: 256, kv_tokens: 4096, ..ExecutorConfig::default() };
    let before = free(&driver);
    let begin = std::time::Instant::now();
    let executor = Executor::load(engine, config).expect("loads");
    let (taken, said) = (before.saturating_sub(free(&driver)), executor.stats().memory_bytes as usize);
    println!("loaded in {:?}: {taken} bytes of the device were taken, {said} told", begin.elapsed());
    assert!(taken <= said + ROUNDING, "{taken} bytes were taken, {said} told");
    drop(executor);
    let kept = before.saturating_sub(free(&driver));
    assert!(kept <= ROUNDING, "{kept} bytes were kept");
}
