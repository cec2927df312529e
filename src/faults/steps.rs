//! A program on its own: steps two deep, and a fault at every call of the driver in turn.

use super::*;
use crate::backend::cuda::CudaProgram;
use crate::backend::cuda::fake::{Call, Counts};
use crate::backend::{Batch, BatchRow, SampleRow};
use crate::engine::{BLOCK_TOKENS, Limits};
use crate::error::Status;

const BLOCKS: usize = 4;
const LIMITS: Limits = Limits { tokens: 24, logit_rows: 3, rows: 3, kv_blocks: 3 * BLOCKS };

/// Rows of so many tokens behind a context, each with blocks of its own, whose last tokens are followed by a sampled one.
fn batch(rows: &[(usize, usize)]) -> Batch {
    let mut batch = Batch { table_starts: vec![0], ..Batch::default() };
    for (index, (len, context)) in rows.iter().copied().enumerate() {
        let start = batch.tokens.len();
        batch.tokens.extend(std::iter::repeat_n(7, len));
        batch.positions.extend((context..context + len).map(|position| position as u32));
        batch.rows.push(BatchRow { start, len, context });
        let used = (context + len).div_ceil(BLOCK_TOKENS);
        batch.tables.extend((0..used).map(|block| (index * BLOCKS + block) as u32));
        batch.table_starts.push(batch.tables.len());
        batch.logit_rows.push((start + len - 1) as u32);
        batch.samples.push(greedy(index as u32));
    }
    batch
}

fn greedy(row: u32) -> SampleRow {
    SampleRow {
        row,
        slot: row,
        slot_is_last: false,
        keep_logits: false,
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        seed: 0,
        sequence: 0,
        position: 0,
        first_adjustment: 0,
        adjustments: 0,
    }
}

/// Decode rows, and a chunk between them.
fn shapes() -> [Batch; 3] {
    [batch(&[(1, 5), (1, 33)]), batch(&[(1, 6), (20, 8), (1, 34)]), batch(&[(1, 7), (1, 28), (1, 35)])]
}

/// Six steps of all shapes, always two under way. The first error, and whether the program was told of it.
fn six_steps(program: &mut CudaProgram) -> Result<()> {
    let shapes = shapes();
    let mut under_way = std::collections::VecDeque::new();
    for step in 0..6 + program.depth() {
        if step < 6 {
            program.launch(&shapes[step % 3])?;
            under_way.push_back(shapes[step % 3].rows.len());
        }
        if under_way.len() == program.depth() || step >= 6 {
            let Some(rows) = under_way.pop_front() else { continue };
            let (sampled, logits, _) = program.collect()?;
            assert_eq!((sampled.count(), logits.len()), (rows, 0));
        }
    }
    Ok(())
}

fn load(driver: &Arc<FakeDriver>, engine: &Engine) -> Result<CudaProgram> {
    device(driver).load(engine, LIMITS)
}

#[test]
fn steps_go_two_deep_by_graph_or_by_launches_and_all_comes_back() {
    let (driver, engine) = (FakeDriver::new(), engine(Target::Cuda));
    let mut program = load(&driver, &engine).unwrap();
    let [decode, mixed, _] = shapes();
    let launched = |program: &mut CudaProgram, batch: &Batch| {
        let before = (driver.calls(Call::Launch), driver.launches().len());
        program.launch(batch).unwrap();
        (driver.calls(Call::Launch) - before.0, driver.launches().len() - before.1)
    };
    let (calls, kernels) = launched(&mut program, &decode);
    assert!(calls == 1 && kernels > 10, "{calls} calls for {kernels} kernels");
    let (calls, kernels) = launched(&mut program, &mixed);
    assert!(calls == kernels && kernels > 10, "{calls} calls for {kernels} kernels");
    assert_eq!(program.launch(&decode).unwrap_err().status(), Status::Internal);
    assert_eq!(program.collect().unwrap().0.count(), 2);
    assert_eq!(program.collect().unwrap().0.count(), 3);
    assert_eq!(program.collect().map(|_| ()).unwrap_err().status(), Status::Internal);
    drop(program);
    assert_eq!((driver.alive(), driver.used_bytes()), (Counts::default(), 0));
}

#[test]
fn host_rows_bring_their_logits() {
    let (driver, engine) = (FakeDriver::new(), engine(Target::Cuda));
    let mut program = load(&driver, &engine).unwrap();
    let mut wanted = batch(&[(1, 5), (3, 33)]);
    wanted.logit_rows = vec![0, 2, 3];
    wanted.samples.truncate(1);
    program.launch(&wanted).unwrap();
    let (sampled, logits, _) = program.collect().unwrap();
    assert_eq!((sampled.count(), logits.len()), (1, 2 * engine.plan().model.vocab_size));
}

#[test]
fn steady_steps_take_nothing_from_the_driver_but_copies_launches_and_waits() {
    let (driver, engine) = (FakeDriver::new(), engine(Target::Cuda));
    let mut program = load(&driver, &engine).unwrap();
    let lasting = [Call::Allocate, Call::AllocatePinned, Call::Load, Call::Function, Call::Capture, Call::Event];
    let count = || lasting.map(|call| driver.calls(call));
    let before = (count(), driver.alive(), driver.used_bytes());
    (0..5).for_each(|_| six_steps(&mut program).unwrap());
    assert_eq!((count(), driver.alive(), driver.used_bytes()), before);
}

/// The statuses that a call may end with when the driver refuses it.
const REFUSALS: [Status; 3] = [Status::OutOfMemory, Status::Corrupt, Status::Internal];

#[test]
fn a_refusal_at_any_call_of_a_load_leaves_nothing_and_the_device_usable() {
    let engine = engine(Target::Cuda);
    let driver = FakeDriver::new();
    drop(load(&driver, &engine).unwrap());
    // The last one is the wait of the drop, which tells nobody.
    let calls = driver.all_calls() - 1;
    for nth in 1..=calls {
        driver.refuse_at(nth);
        let error = load(&driver, &engine).map(|_| ()).unwrap_err();
        assert!(REFUSALS.contains(&error.status()), "call {nth} of {calls}: {error}");
        assert_eq!((driver.alive(), driver.used_bytes()), (Counts::default(), 0), "call {nth} of {calls}");
    }
    six_steps(&mut load(&driver, &engine).unwrap()).unwrap();
}

#[test]
fn a_loss_at_any_call_of_a_load_is_told_and_leaves_nothing() {
    let engine = engine(Target::Cuda);
    let calls = FakeDriver::new();
    drop(load(&calls, &engine).unwrap());
    let calls = calls.all_calls() - 1;
    for nth in 1..=calls {
        let driver = FakeDriver::new();
        driver.lose_at(nth);
        let error = load(&driver, &engine).map(|_| ()).unwrap_err();
        assert_eq!(error.status(), Status::DeviceLost, "call {nth} of {calls}");
        assert_eq!((driver.alive(), driver.used_bytes()), (Counts::default(), 0), "call {nth} of {calls}");
        assert_eq!(load(&driver, &engine).map(|_| ()).unwrap_err(), error);
    }
}

/// How many calls [`six_steps`] makes.
fn calls_of_six_steps(engine: &Engine) -> usize {
    let driver = FakeDriver::new();
    let mut program = load(&driver, engine).unwrap();
    let before = driver.all_calls();
    six_steps(&mut program).unwrap();
    driver.all_calls() - before
}

#[test]
fn a_refusal_at_any_call_of_a_step_fails_that_step_and_no_later_one() {
    let (engine, driver) = (engine(Target::Cuda), FakeDriver::new());
    let mut program = load(&driver, &engine).unwrap();
    for nth in 1..=calls_of_six_steps(&engine) {
        driver.refuse_at(nth);
        assert_eq!(six_steps(&mut program).unwrap_err().status(), Status::Internal, "call {nth}");
        // What was under way when the step failed is still to be collected.
        while program.collect().is_ok() {}
        six_steps(&mut program).unwrap();
    }
    drop(program);
    assert_eq!((driver.alive(), driver.used_bytes()), (Counts::default(), 0));
}

#[test]
fn a_loss_at_any_call_of_a_step_is_told_and_stays() {
    let engine = engine(Target::Cuda);
    let [decode, ..] = shapes();
    for nth in 1..=calls_of_six_steps(&engine) {
        let driver = FakeDriver::new();
        let mut program = load(&driver, &engine).unwrap();
        driver.lose_at(nth);
        let lost = six_steps(&mut program).unwrap_err();
        assert_eq!(lost.status(), Status::DeviceLost, "call {nth}");
        // Whatever is under way comes to the same end, and so does what is new.
        while let Err(error @ Error::DeviceLost { .. }) = program.collect().map(|_| ()) {
            assert_eq!(error, lost);
        }
        assert_eq!(program.launch(&decode).unwrap_err(), lost);
        drop(program);
        assert_eq!((driver.alive(), driver.used_bytes()), (Counts::default(), 0), "call {nth}");
    }
}
