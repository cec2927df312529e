//! One trial is one child process: what it does to itself, or dies of, harms no other.

use std::backtrace::Backtrace;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};

use crate::allocator;

/// Longest report of a death.
const REPORT: usize = 1 << 16;
/// Seconds after which a trial hangs.
const PATIENCE: u32 = 60;
const ABORTED: i32 = 77;

/// What parent and child both see.
#[repr(C)]
struct Shared {
    seen: AtomicI64,
    refused: AtomicI64,
    length: AtomicUsize,
    report: [u8; REPORT],
}

/// How a trial ended.
#[derive(Debug)]
pub struct Outcome {
    /// Large allocations that it asked for while it was armed.
    pub seen: usize,
    /// Calls and requests that ended with `OUT_OF_MEMORY`.
    pub refused: usize,
    pub end: End,
}

#[derive(Debug)]
pub enum End {
    Well,
    /// The process aborted; the stack at that moment.
    Aborted(String),
    /// It failed, or was killed by its alarm: what it had printed tells more.
    Failed(i32),
}

/// Runs `body` in a child. It says how many large allocations it saw, and how many refusals.
///
/// The caller has no other thread.
pub fn run(body: impl FnOnce() -> (usize, usize)) -> Outcome {
    let shared = Shared::map();
    // SAFETY: this process has one thread, so that the child's copy of everything is whole.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "no process");
    if child == 0 {
        child_body(shared, body);
    }
    let mut status = 0;
    // SAFETY: the child is ours and the place valid.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    // SAFETY: mapped by `Shared::map`, and the child is gone.
    let seen = unsafe { &*shared };
    let report = String::from_utf8_lossy(&seen.report[..seen.length.load(SeqCst)]).into_owned();
    let end = match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => End::Well,
        (true, ABORTED) => End::Aborted(report),
        _ => End::Failed(status),
    };
    let number = |figure: &AtomicI64| figure.load(SeqCst) as usize;
    let outcome = Outcome { seen: number(&seen.seen), refused: number(&seen.refused), end };
    // SAFETY: nobody looks at it any more.
    unsafe { libc::munmap(shared.cast(), size_of::<Shared>()) };
    outcome
}

fn child_body(shared: *mut Shared, body: impl FnOnce() -> (usize, usize)) -> ! {
    SHARED.store(shared as usize, SeqCst);
    // SAFETY: the handler does what a handler may not do in general, but aborts are raised by the thread itself, outside of
    // any lock.
    unsafe {
        libc::signal(libc::SIGABRT, report_abort as *const () as usize);
        libc::alarm(PATIENCE);
    }
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    allocator::disarm();
    let code = match result {
        Ok((seen, refused)) => {
            // SAFETY: mapped by the parent.
            let shared = unsafe { &*shared };
            shared.seen.store(seen as i64, SeqCst);
            shared.refused.store(refused as i64, SeqCst);
            0
        }
        Err(_) => 1,
    };
    // SAFETY: ends the child without running what belongs to the parent.
    unsafe { libc::_exit(code) }
}

static SHARED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn report_abort(_: i32) {
    allocator::disarm();
    let report = Backtrace::force_capture().to_string();
    let length = report.len().min(REPORT);
    // SAFETY: mapped by the parent, which looks at it when this process has ended.
    let shared = unsafe { &mut *(SHARED.load(SeqCst) as *mut Shared) };
    shared.report[..length].copy_from_slice(&report.as_bytes()[..length]);
    shared.length.store(length, SeqCst);
    // SAFETY: ends the child without running what belongs to the parent.
    unsafe { libc::_exit(ABORTED) }
}

impl Shared {
    fn map() -> *mut Self {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Self>(), protection, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        start.cast()
    }
}
