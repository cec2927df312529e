use super::super::driver::Argument;
use super::*;
use crate::error::Status;
use crate::types::DType;

fn launch(function: Function, arguments: Vec<Argument>) -> Launch {
    Launch { function, grid: [4, 1, 1], block: 128, shared: 0, cluster: 1, dependent: true, arguments }
}

#[test]
fn memory_holds_what_is_uploaded_and_nothing_leaks() {
    let driver = FakeDriver::new();
    let address = driver.allocate(8, "weights").unwrap();
    let pinned = driver.allocate_pinned(8, "staging").unwrap();
    let mut back = [0_u8; 4];
    // SAFETY: the host sides are arrays and a pinned block of that size.
    unsafe {
        assert_eq!(*pinned, 0);
        driver.download(back.as_mut_ptr(), address, 4).unwrap();
        assert_eq!(back, [POISON; 4]);
        driver.upload(address, [1, 2, 3, 4].as_ptr(), 4).unwrap();
        driver.fill(address + 4, 4, 9).unwrap();
        driver.download(back.as_mut_ptr(), address + 2, 4).unwrap();
        assert_eq!(back, [3, 4, 9, 9]);
        assert_eq!(driver.fill(address + 4, 5, 0).unwrap_err().status(), Status::Internal);
    }
    assert_eq!(driver.alive(), Counts { allocations: 1, pinned: 1, ..Counts::default() });
    assert_eq!((driver.calls(Call::Allocate), driver.calls(Call::AllocatePinned)), (1, 1));
    driver.release(address);
    driver.release_pinned(pinned);
    driver.release(0);
    assert_eq!((driver.alive(), driver.used_bytes()), (Counts::default(), 0));
}

#[test]
fn too_little_memory_tells_needed_and_free() {
    let driver = FakeDriver::with(Arch { major: 8, minor: 0 }, 1000);
    let first = driver.allocate(600, "a").unwrap();
    let error = driver.allocate(500, "the pool").unwrap_err();
    assert_eq!(error.status(), Status::OutOfMemory);
    let text = error.to_string();
    assert!(text.contains("the pool") && text.contains("500 bytes") && text.contains("400 bytes are free"), "{text}");
    driver.release(first);
    driver.fail(Call::Allocate, 2);
    driver.allocate(1, "b").unwrap();
    assert_eq!(driver.allocate(1, "c").unwrap_err().status(), Status::OutOfMemory);
    driver.allocate(1, "d").unwrap();
}

#[test]
fn graphs_replay_what_was_captured() {
    let driver = FakeDriver::new();
    let module = driver.load(b"cubin", "gemv").unwrap();
    let function = driver.function(module, "gemv", 0).unwrap();
    let address = driver.allocate(256, "x").unwrap();
    let launch = launch(function, vec![Argument::Address(address), Argument::U32(3)]);
    driver.begin_capture().unwrap();
    assert_eq!(driver.allocate(1, "y").unwrap_err().status(), Status::Internal);
    // SAFETY: the fake runs nothing.
    unsafe { driver.launch(&launch).unwrap() };
    let graph = driver.end_capture().unwrap();
    assert!(driver.launches().is_empty());
    // SAFETY: as above.
    unsafe {
        driver.launch_graph(graph).unwrap();
        driver.launch_graph(graph).unwrap();
    }
    assert_eq!(driver.launches(), vec![("gemv".to_string(), launch); 2]);
    // What the graph uses is gone.
    driver.release(address);
    // SAFETY: as above.
    assert_eq!(unsafe { driver.launch_graph(graph) }.unwrap_err().status(), Status::Internal);
    driver.release_graph(graph);
    driver.unload(module);
    assert_eq!(driver.alive(), Counts::default());
}

#[test]
fn a_loss_comes_when_asked_for_and_stays() {
    let driver = FakeDriver::new();
    let (event, later) = (driver.event(true).unwrap(), driver.event(true).unwrap());
    driver.record(event).unwrap();
    driver.record(later).unwrap();
    driver.fail(Call::Wait, 2);
    driver.wait(event).unwrap();
    assert_eq!(driver.elapsed(event, later).unwrap(), 1.0);
    let lost = driver.wait(event).unwrap_err();
    assert_eq!(lost.status(), Status::DeviceLost);
    assert_eq!(driver.synchronize().unwrap_err(), lost);
    assert_eq!(driver.allocate(1, "x").unwrap_err(), lost);
    driver.release_event(event);
    driver.release_event(later);
    assert_eq!(driver.alive(), Counts::default());
}

#[test]
fn loads_fail_when_asked_for() {
    let driver = FakeDriver::new();
    driver.fail(Call::Load, 1);
    assert_eq!(driver.load(b"", "gemv").unwrap_err().status(), Status::Corrupt);
    driver.load(b"", "gemv").unwrap();
}

#[test]
fn impossible_launches_are_refused() {
    let driver = FakeDriver::with(Arch { major: 8, minor: 0 }, 1 << 20);
    let module = driver.load(b"", "k").unwrap();
    let function = driver.function(module, "k", 1024).unwrap();
    let good = launch(function, vec![Argument::Address(0)]);
    let bad = [
        Launch { function: Function(99), ..good.clone() },
        Launch { grid: [1, 0, 1], ..good.clone() },
        Launch { block: 1025, ..good.clone() },
        Launch { shared: 1025, ..good.clone() },
        Launch { cluster: 2, ..good.clone() },
        Launch { arguments: vec![Argument::Address(64)], ..good.clone() },
        Launch { arguments: vec![Argument::U32(0); 33], ..good.clone() },
    ];
    // SAFETY: the fake runs nothing.
    unsafe {
        driver.launch(&good).unwrap();
        for launch in bad {
            assert_eq!(driver.launch(&launch).unwrap_err().status(), Status::Internal, "{launch:?}");
        }
    }
}

const PRODUCT: MatmulSpec = MatmulSpec {
    element: DType::BF16,
    out: DType::F32,
    rows: 4,
    n: 16,
    k: 32,
    x_stride: 32,
    out_stride: 16,
    residual_stride: Some(16),
    bias: false,
    workspace_bytes: 512,
    rank: 0,
};

/// Operands of [`PRODUCT`], as large as they must be.
fn operands(driver: &FakeDriver) -> MatmulOperands {
    let allocate = |bytes| driver.allocate(bytes, "operand").unwrap();
    let out = allocate(4 * 16 * 4);
    let (x, weight, workspace) = (allocate(4 * 32 * 2), allocate(16 * 32 * 2), allocate(512));
    MatmulOperands { x, weight, out, residual: out, workspace, ..MatmulOperands::default() }
}

#[test]
fn products_run_and_are_replayed_beside_kernels() {
    let driver = FakeDriver::new();
    let operands = operands(&driver);
    let matmul = driver.matmul(&PRODUCT).unwrap();
    driver.begin_capture().unwrap();
    assert_eq!(driver.matmul(&PRODUCT).unwrap_err().status(), Status::Internal);
    // SAFETY: the fake runs nothing.
    unsafe { driver.launch_matmul(matmul, &operands, 3).unwrap() };
    let graph = driver.end_capture().unwrap();
    assert!(driver.matmuls().is_empty());
    // SAFETY: as above.
    unsafe { driver.launch_matmul(matmul, &operands, 4).unwrap() };
    assert_eq!(driver.alive().matmuls, 1);
    driver.release_matmul(matmul);
    assert_eq!(driver.alive().matmuls, 0);
    // SAFETY: as above.
    unsafe {
        assert_eq!(driver.launch_matmul(matmul, &operands, 4).unwrap_err().status(), Status::Internal);
        driver.launch_graph(graph).unwrap();
    }
    let launch = |rows| MatmulLaunch { spec: PRODUCT, operands, rows };
    assert_eq!(driver.matmuls(), [launch(4), launch(3)]);
    assert!(driver.launches().is_empty());
    driver.release(operands.weight);
    // SAFETY: as above.
    assert_eq!(unsafe { driver.launch_graph(graph) }.unwrap_err().status(), Status::Internal);
}

#[test]
fn impossible_products_are_refused() {
    let driver = FakeDriver::with(Arch { major: 8, minor: 9 }, 1 << 20);
    let operands = operands(&driver);
    let matmul = driver.matmul(&PRODUCT).unwrap();
    let far = driver.matmul(&MatmulSpec { rows: 5, ..PRODUCT }).unwrap();
    let launch = |matmul, operands, rows| {
        // SAFETY: the fake runs nothing.
        unsafe { driver.launch_matmul(matmul, &operands, rows) }
    };
    launch(matmul, operands, 4).unwrap();
    for result in [
        launch(matmul, operands, 0),
        launch(matmul, operands, 5),
        launch(far, operands, 5),
        launch(matmul, MatmulOperands { workspace: 0, ..operands }, 4),
    ] {
        assert_eq!(result.unwrap_err().status(), Status::Internal);
    }
    let scaled = MatmulSpec { element: DType::E4M3, ..PRODUCT };
    assert_eq!(driver.matmul(&scaled).unwrap_err().status(), Status::Unsupported);
    FakeDriver::new().matmul(&scaled).unwrap();
    assert_eq!(driver.matmul(&MatmulSpec { n: 0, ..PRODUCT }).unwrap_err().status(), Status::Internal);
}

#[test]
fn the_library_can_be_absent_and_the_device_lost() {
    let driver = FakeDriver::new();
    driver.fail(Call::Matmul, 1);
    assert_eq!(driver.matmul(&PRODUCT).unwrap_err().status(), Status::DeviceUnavailable);
    let (matmul, operands) = (driver.matmul(&PRODUCT).unwrap(), operands(&driver));
    driver.fail(Call::Launch, 1);
    // SAFETY: the fake runs nothing.
    let lost = unsafe { driver.launch_matmul(matmul, &operands, 1) }.unwrap_err();
    assert_eq!(lost.status(), Status::DeviceLost);
    assert_eq!(driver.matmul(&PRODUCT).unwrap_err(), lost);
}
