//! A joinable thread pool for very short parallel loops: a run costs a few microseconds when its workers are awake.
//!
//! The caller takes part in every run and, when no task is left, closes the run and waits only for the workers that had
//! entered it: a worker that was asleep never delays anybody.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};

/// How long an idle worker spins before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// Spins between two looks at the clock.
const SPINS_PER_LOOK: usize = 64;
/// How long the caller spins for the last worker before it gives its core away.
const SPINS_BEFORE_YIELD: usize = 20_000;

/// Gate layout: the run's number, an open bit, the workers inside.
const OPEN: u64 = 1 << 16;
const INSIDE: u64 = OPEN - 1;
const RUN: u64 = OPEN << 1;

/// What a run does: `(lane, task)`, where no two tasks run at once on one lane.
type Body<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// The current run. The reference is valid while the gate is open or a worker is inside.
#[derive(Clone, Copy)]
struct Job {
    body: &'static Body<'static>,
    tasks: usize,
}

/// Keeps what many threads write off the line that they all read.
#[repr(align(128))]
struct Apart<T>(T);

struct Shared {
    gate: Apart<AtomicU64>,
    next: Apart<AtomicUsize>,
    job: UnsafeCell<Option<Job>>,
    sleepers: AtomicUsize,
    stop: AtomicBool,
    bed: Mutex<()>,
    alarm: Condvar,
    panic: Mutex<Option<String>>,
}

// SAFETY: `job` is written only by the caller while the gate is closed and nobody is inside, and read only by workers
// that entered through the open gate; the gate's acquire/release orders the two.
unsafe impl Sync for Shared {}

/// Worker threads that wait for runs; joined on drop.
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    turn: Mutex<()>,
}

impl Pool {
    /// A pool of `threads` lanes: `threads - 1` workers and whoever calls [`Pool::run`].
    pub(super) fn new(threads: usize) -> Result<Self> {
        let mut pool = Pool {
            shared: Arc::new(Shared {
                gate: Apart(AtomicU64::new(0)),
                next: Apart(AtomicUsize::new(0)),
                job: UnsafeCell::new(None),
                sleepers: AtomicUsize::new(0),
                stop: AtomicBool::new(false),
                bed: Mutex::new(()),
                alarm: Condvar::new(),
                panic: Mutex::new(None),
            }),
            workers: Vec::new(),
            turn: Mutex::new(()),
        };
        for lane in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let name = format!("trtllm-cpu-{lane}");
            let worker = std::thread::Builder::new().name(name.clone()).spawn(move || work(&shared, lane));
            pool.workers.push(worker.map_err(|e| Error::ThreadFailed { what: name, why: e.to_string() })?);
        }
        Ok(pool)
    }

    /// Threads that take part in a run, the caller included.
    pub(super) fn lanes(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body(lane, task)` for every task, in any order on any lane, and returns when all are done. A panic of a
    /// task becomes an error; the remaining tasks still run.
    pub(super) fn run(&self, tasks: usize, body: &Body<'_>) -> Result<()> {
        let _turn = self.turn.lock();
        // SAFETY: only the lifetime is changed; `close` returns after the last worker has left the run, so no call
        // outlives the borrow.
        let body = unsafe { std::mem::transmute::<&Body<'_>, &'static Body<'static>>(body) };
        let job = Job { body, tasks };
        self.shared.next.0.store(0, Ordering::Relaxed);
        if tasks > 1 && !self.workers.is_empty() {
            self.open(job);
            self.shared.perform(job, 0);
            self.close();
        } else {
            self.shared.perform(job, 0);
        }
        match self.shared.panic.lock().take() {
            Some(why) => Err(Error::Panic { what: "a task of the CPU thread pool".into(), why }),
            None => Ok(()),
        }
    }

    fn open(&self, job: Job) {
        // SAFETY: the gate is closed and nobody is inside (the end of `close`), and `turn` is held.
        unsafe { *self.shared.job.get() = Some(job) };
        self.shared.gate.0.fetch_add(RUN | OPEN, Ordering::SeqCst);
        if self.shared.sleepers.load(Ordering::SeqCst) > 0 {
            self.shared.wake_all();
        }
    }

    fn close(&self) {
        self.shared.gate.0.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while self.shared.gate.0.load(Ordering::Acquire) & INSIDE != 0 {
            spins += 1;
            if spins < SPINS_BEFORE_YIELD { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake_all();
        for worker in self.workers.drain(..) {
            // A worker catches every panic of a task, so its own result says nothing more.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Claims and runs tasks until none is left.
    fn perform(&self, job: Job, lane: usize) {
        loop {
            let task = self.next.0.fetch_add(1, Ordering::Relaxed);
            if task >= job.tasks {
                return;
            }
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| (job.body)(lane, task))) {
                *self.panic.lock() = Some(message(&*payload));
            }
        }
    }

    /// Enters the open run, if it is not the one numbered `last`; returns its number.
    fn enter(&self, last: u64) -> Option<u64> {
        let mut gate = self.gate.0.load(Ordering::SeqCst);
        loop {
            if gate & OPEN == 0 || gate / RUN == last {
                return None;
            }
            match self.gate.0.compare_exchange_weak(gate, gate + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(gate / RUN),
                Err(now) => gate = now,
            }
        }
    }

    fn leave(&self) {
        self.gate.0.fetch_sub(1, Ordering::Release);
    }

    fn wake_all(&self) {
        let _bed = self.bed.lock();
        self.alarm.notify_all();
    }

    /// Waits for a run after `last` and enters it; `None` when the pool stops.
    fn wait(&self, last: u64) -> Option<u64> {
        let mut since = None;
        loop {
            for _ in 0..SPINS_PER_LOOK {
                if let Some(run) = self.enter(last) {
                    return Some(run);
                }
                std::hint::spin_loop();
            }
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if since.get_or_insert_with(Instant::now).elapsed() > SPIN {
                self.sleep(last);
                since = None;
            }
        }
    }

    /// Sleeps unless a run has been opened or the pool stops: both are looked at after `sleepers` was raised, and
    /// whoever opens a run looks at `sleepers` after that, so no wake-up is lost.
    fn sleep(&self, last: u64) {
        let mut bed = self.bed.lock();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let gate = self.gate.0.load(Ordering::SeqCst);
        let called = gate & OPEN != 0 && gate / RUN != last;
        if !called && !self.stop.load(Ordering::SeqCst) {
            self.alarm.wait(&mut bed);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

fn work(shared: &Shared, lane: usize) {
    let mut last = 0;
    while let Some(run) = shared.wait(last) {
        last = run;
        // SAFETY: entered through the open gate, so the job is set and stays until `leave`.
        let job = unsafe { *shared.job.get() };
        if let Some(job) = job {
            shared.perform(job, lane);
        }
        shared.leave();
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in 1..=4 {
            let pool = Pool::new(threads).unwrap();
            for tasks in [0, 1, 2, 3, 100, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|lane, task| {
                    assert!(lane < threads);
                    counts[task].fetch_add(1, Ordering::Relaxed);
                })
                .unwrap();
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn runs_follow_each_other_with_and_without_sleep() {
        let pool = Pool::new(3).unwrap();
        let sum = AtomicUsize::new(0);
        for round in 0..3000 {
            if round % 500 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            pool.run(7, &|_, task| {
                sum.fetch_add(task, Ordering::Relaxed);
            })
            .unwrap();
        }
        assert_eq!(sum.load(Ordering::Relaxed), 3000 * 21);
    }

    #[test]
    fn no_two_tasks_share_a_lane_at_once() {
        let pool = Pool::new(3).unwrap();
        let busy: Vec<AtomicBool> = (0..3).map(|_| AtomicBool::new(false)).collect();
        pool.run(500, &|lane, _| {
            assert!(!busy[lane].swap(true, Ordering::SeqCst));
            std::thread::yield_now();
            busy[lane].store(false, Ordering::SeqCst);
        })
        .unwrap();
    }

    #[test]
    fn a_panic_is_returned_and_the_pool_lives_on() {
        let pool = Pool::new(2).unwrap();
        let error = pool.run(50, &|_, task| assert!(task != 31, "task {task} is unlucky")).unwrap_err();
        assert!(error.to_string().contains("task 31 is unlucky"));
        pool.run(50, &|_, _| ()).unwrap();
    }
}
