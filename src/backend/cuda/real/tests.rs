//! On a machine with a device and a compiler these run on it; elsewhere they say what is missing.

use std::process::Command;

use super::super::driver::{Arch, Argument, Function, Graph, Launch, MapElement, MapSpec, Module};
use super::super::kernel::KernelSpec;
use super::super::nvrtc;
use super::*;
use crate::error::Status;

/// Adds to every element, waits for a while, or writes where nobody may.
const TEXT: &str = r#"
    #include "common/ptx.cuh"
    extern "C" __global__ void add(u32 *x, u32 count, u32 value) {
        pdl_wait();
        pdl_launch();
        u32 at = blockIdx.x * blockDim.x + threadIdx.x;
        if (at < count) x[at] += value;
    }
    extern "C" __global__ void sleep(u32 microseconds) {
        for (u32 i = 0; i < microseconds; i++) __nanosleep(1000);
    }
    extern "C" __global__ void trample() { *(volatile u32 *)16 = 1; }
    struct alignas(64) Map { u64 words[16]; };
    extern "C" __global__ void first_word(const __grid_constant__ Map map, u64 *out) { *out = map.words[0]; }
"#;

/// A device with the kernels above; `None` with the reason printed where there is none.
fn device() -> Option<(Arc<dyn Driver>, Module)> {
    let ready = || {
        let driver = RealDriver::open(0)?;
        let cubin = nvrtc::compile_text(TEXT, &KernelSpec::new("test.cu", "add"), driver.info().arch)?;
        let module = driver.load(&cubin, "test kernels")?;
        Ok::<_, Error>((driver, module))
    };
    ready().inspect_err(|error| println!("skipped: {error}")).ok()
}

fn launch(function: Function, blocks: u32, arguments: Vec<Argument>) -> Launch {
    Launch { function, grid: [blocks, 1, 1], block: 128, shared: 0, cluster: 1, dependent: true, arguments }
}

/// Owned device memory of so many zeros.
fn zeros(driver: &dyn Driver, words: usize) -> Address {
    let address = driver.allocate(words * 4, "zeros").unwrap();
    // SAFETY: the memory is live until the test releases it.
    unsafe { driver.fill(address, words * 4, 0).unwrap() };
    address
}

fn words(driver: &dyn Driver, address: Address, count: usize) -> Vec<u32> {
    let mut back = vec![0_u32; count];
    // SAFETY: both sides have `count` words and live until the stream was waited for.
    unsafe { driver.download(back.as_mut_ptr().cast(), address, count * 4).unwrap() };
    driver.synchronize().unwrap();
    back
}

#[test]
fn without_a_driver_the_error_says_what_is_missing() {
    let Err(error) = RealDriver::open(1000) else { panic!("no machine has a thousand devices") };
    assert_eq!(error.status(), Status::DeviceUnavailable);
    let text = error.to_string();
    let missing = ["libcuda.so.1 was not found", "finds no device", "there is no device 1000", "cannot be initialised"];
    assert!(text.contains("cuda:1000") && missing.iter().any(|part| text.contains(part)), "{text}");
}

#[test]
fn launches_graphs_and_copies_follow_each_other() {
    let Some((driver, module)) = device() else { return };
    let add = driver.function(module, "add", 0).unwrap();
    let x = zeros(&*driver, 1000);
    let arguments = vec![Argument::Address(x), Argument::U32(1000), Argument::U32(3)];
    let plain = Launch { dependent: false, ..launch(add, 8, arguments.clone()) };
    let clustered =
        Launch { cluster: if driver.info().arch.is_hopper_or_later() { 2 } else { 1 }, ..launch(add, 8, arguments) };
    // SAFETY: `x` has the elements that the kernel is told of.
    let graph = unsafe {
        driver.launch(&plain).unwrap();
        driver.launch(&clustered).unwrap();
        driver.begin_capture().unwrap();
        (0..10).for_each(|_| driver.launch(&clustered).unwrap());
        driver.end_capture().unwrap()
    };
    assert_eq!(words(&*driver, x, 1000), vec![6; 1000]);
    // SAFETY: as above.
    unsafe { (0..5).for_each(|_| driver.launch_graph(graph).unwrap()) };
    assert_eq!(words(&*driver, x, 1000), vec![6 + 5 * 30; 1000]);
    driver.release_graph(graph);
    driver.release(x);
}

#[test]
fn waits_end_soon_after_the_event_whatever_its_length() {
    let Some((driver, module)) = device() else { return };
    let sleep = driver.function(module, "sleep", 0).unwrap();
    let (start, end) = (driver.event(true).unwrap(), driver.event(true).unwrap());
    for microseconds in [10, 1000, 30_000] {
        let late = (0..5).map(|_| {
            driver.record(start).unwrap();
            // SAFETY: the kernel touches no memory.
            unsafe { driver.launch(&launch(sleep, 1, vec![Argument::U32(microseconds)])).unwrap() };
            driver.record(end).unwrap();
            let begun = Instant::now();
            driver.wait(end).unwrap();
            begun.elapsed().as_secs_f32() * 1e3 - driver.elapsed(start, end).unwrap()
        });
        let late = late.fold(f32::MAX, f32::min);
        println!("asked for {microseconds} us: woken {:.0} us late", late * 1e3);
        assert!(late < 1.0, "{late} ms late");
    }
}

#[test]
fn memory_is_given_back_also_in_the_middle_of_a_capture() {
    let Some((driver, _)) = device() else { return };
    let amount = 256 << 20;
    let before = driver.free_bytes().unwrap();
    let first = driver.allocate(amount, "first").unwrap();
    let pinned = driver.allocate_pinned(1 << 20, "pinned").unwrap();
    driver.begin_capture().unwrap();
    driver.release(first);
    driver.release_pinned(pinned);
    driver.release_graph(driver.end_capture().unwrap());
    assert!(driver.free_bytes().unwrap() + (32 << 20) > before);
    // What nobody releases, the driver does.
    driver.allocate(amount, "second").unwrap();
    drop(driver);
    let again = RealDriver::open(0).unwrap();
    assert!(again.free_bytes().unwrap() + (128 << 20) > before);
    let error = again.allocate(1 << 50, "a petabyte").unwrap_err();
    assert_eq!(error.status(), Status::OutOfMemory);
    let text = error.to_string();
    assert!(
        text.contains("a petabyte") && text.contains(&(1_usize << 50).to_string()) && text.contains("free"),
        "{text}"
    );
    assert!(again.allocate(64, "after the error").is_ok());
}

#[test]
fn several_threads_use_one_driver() {
    let Some((driver, module)) = device() else { return };
    let add = driver.function(module, "add", 0).unwrap();
    let x = zeros(&*driver, 100);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let launch = launch(add, 1, vec![Argument::Address(x), Argument::U32(100), Argument::U32(1)]);
                for _ in 0..100 {
                    // SAFETY: `x` has 100 elements; launches of one stream do not overlap on it.
                    unsafe { driver.launch(&Launch { dependent: false, ..launch.clone() }).unwrap() };
                }
                let event = driver.event(false).unwrap();
                driver.record(event).unwrap();
                driver.wait(event).unwrap();
                driver.release_event(event);
            });
        }
    });
    assert_eq!(words(&*driver, x, 100), vec![400; 100]);
}

#[test]
fn tensor_maps_reach_the_kernel_where_the_device_has_them() {
    let Some((driver, module)) = device() else { return };
    if !driver.info().arch.is_hopper_or_later() {
        return println!("skipped: no bulk tensor copies on {}", driver.info().arch);
    }
    let x = zeros(&*driver, 64 * 64);
    let spec = MapSpec {
        element: MapElement::Bf16,
        address: x,
        rows: 64,
        columns: 128,
        row_bytes: 256,
        box_rows: 64,
        box_columns: 64,
    };
    let map = driver.tensor_map(&spec).unwrap();
    let first_word = driver.function(module, "first_word", 0).unwrap();
    // SAFETY: the kernel writes two words of `x`.
    let launch = Launch { block: 1, ..launch(first_word, 1, vec![Argument::Map(map), Argument::Address(x)]) };
    unsafe { driver.launch(&launch).unwrap() };
    let expected: Vec<u32> = map.0[..8].chunks(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(words(&*driver, x, 2), expected);
    let error = driver.tensor_map(&MapSpec { row_bytes: 250, ..spec }).unwrap_err();
    assert!(error.to_string().contains("row_bytes: 250"), "{error}");
}

#[test]
fn wrong_cubins_and_entries_are_errors_and_the_device_lives() {
    let Some((driver, module)) = device() else { return };
    assert_eq!(driver.load(b"no cubin", "x").unwrap_err().status(), Status::Corrupt);
    let other = if driver.info().arch.major == 9 { Arch { major: 8, minor: 0 } } else { Arch { major: 9, minor: 0 } };
    let cubin = nvrtc::compile_text(TEXT, &KernelSpec::new("test.cu", "add"), other).unwrap();
    assert_eq!(driver.load(&cubin, "x").unwrap_err().status(), Status::Unsupported);
    assert_eq!(driver.function(module, "none", 0).unwrap_err().status(), Status::Internal);
    assert_eq!(driver.function(module, "add", 1 << 30).unwrap_err().status(), Status::Unsupported);
    let add = driver.function(module, "add", 0).unwrap();
    // SAFETY: blocks of this size exist on no device, so nothing is launched.
    let error = unsafe { driver.launch(&Launch { block: 4096, ..launch(add, 1, vec![Argument::U32(0); 3]) }) };
    assert!(error.unwrap_err().to_string().contains("add"));
    driver.synchronize().unwrap();
}

/// An illegal access ends CUDA for the whole process, so it happens in a process of its own: this test again.
#[test]
fn an_illegal_access_loses_the_device_and_not_the_process() {
    const VARIABLE: &str = "TRTLLM_TEST_TRAMPLE";
    if std::env::var_os(VARIABLE).is_some() {
        return trample();
    }
    if device().is_none() {
        return;
    }
    let name = "backend::cuda::real::tests::an_illegal_access_loses_the_device_and_not_the_process";
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args([name, "--exact", "--nocapture"]).env(VARIABLE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    assert!(
        output.status.success() && text.contains("the process lives"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn trample() {
    let (driver, module) = device().expect("the parent had one");
    let kernel = driver.function(module, "trample", 0).unwrap();
    let (address, event) = (zeros(&*driver, 16), driver.event(false).unwrap());
    // SAFETY: none; the device's own protection is what is tested.
    unsafe { driver.launch(&launch(kernel, 1, Vec::new())).unwrap() };
    let _ = driver.record(event);
    let lost = driver.wait(event).unwrap_err();
    assert_eq!(lost.status(), Status::DeviceLost);
    let text = lost.to_string();
    assert!(text.contains("cuda:0") && text.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{text}");
    assert_eq!(driver.synchronize().unwrap_err(), lost);
    assert_eq!(driver.allocate(64, "x").unwrap_err(), lost);
    // SAFETY: a lost device refuses it.
    assert_eq!(unsafe { driver.launch_graph(Graph(1)) }.unwrap_err(), lost);
    let begun = Instant::now();
    driver.release(address);
    driver.release_event(event);
    driver.unload(module);
    drop(driver);
    println!("given back in {:?}; opened again: {:?}", begun.elapsed(), RealDriver::open(0).map(|_| ()));
    println!("the process lives");
}
