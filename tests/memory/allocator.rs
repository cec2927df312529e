//! The allocator of this program: it counts, and it refuses what it is told to.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{c_int, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst};

/// Allocations from this size on can be refused. What is smaller has a size that no file and no request decides, such as an
/// error's message or a node of a map.
pub const LARGE: usize = 4096;
/// Mappings from this size on can be refused; smaller ones are the signal stacks of threads.
const LARGE_MAPPING: usize = 64 << 10;

static LIVE: AtomicI64 = AtomicI64::new(0);
static ARMED: AtomicBool = AtomicBool::new(false);
static FOREVER: AtomicBool = AtomicBool::new(false);
static REFUSE_AT: AtomicUsize = AtomicUsize::new(0);
static SEEN: AtomicUsize = AtomicUsize::new(0);
static WATCHED: AtomicBool = AtomicBool::new(false);
static TAKEN: AtomicUsize = AtomicUsize::new(0);
static PLACE: Mutex<String> = Mutex::new(String::new());

#[global_allocator]
static ALLOCATOR: Watched = Watched;

struct Watched;

// SAFETY: everything is passed on to the system's allocator, or refused.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        if layout.size() >= LARGE && refuses() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's.
        let start = unsafe { System.alloc(layout) };
        count(start, layout.size() as i64)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        if layout.size() >= LARGE && refuses() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's.
        let start = unsafe { System.alloc_zeroed(layout) };
        count(start, layout.size() as i64)
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, SeqCst);
        // SAFETY: the caller's.
        unsafe { System.dealloc(start, layout) };
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        if size >= LARGE && size > layout.size() && refuses() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's.
        let moved = unsafe { System.realloc(start, layout, size) };
        count(moved, size as i64 - layout.size() as i64)
    }
}

fn count(start: *mut u8, bytes: i64) -> *mut u8 {
    if !start.is_null() {
        LIVE.fetch_add(bytes, SeqCst);
    }
    start
}

fn refuses() -> bool {
    if !ARMED.load(SeqCst) {
        return false;
    }
    let (seen, at) = (SEEN.fetch_add(1, SeqCst), REFUSE_AT.load(SeqCst));
    seen == at || FOREVER.load(SeqCst) && seen > at
}

/// Counts what the executor's loop and the threads of the CPU backend take, and remembers where the first of it was.
fn note() {
    if !WATCHED.load(SeqCst) {
        return;
    }
    let mut name = [0u8; 16];
    // SAFETY: the kernel writes at most 16 bytes.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    let watched = name.starts_with(b"trtllm-loop") || name.starts_with(b"trtllm-cpu");
    if watched && TAKEN.fetch_add(1, SeqCst) == 0 {
        WATCHED.store(false, SeqCst);
        *PLACE.lock().expect("nobody panics with it") = std::backtrace::Backtrace::force_capture().to_string();
        WATCHED.store(true, SeqCst);
    }
}

/// Mappings go through here, because this program's symbols come before those of the C library.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn mmap64(
    start: *mut c_void,
    bytes: usize,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: i64,
) -> *mut c_void {
    if bytes >= LARGE_MAPPING && refuses() {
        // SAFETY: the location of this thread's `errno` is always valid.
        unsafe { *libc::__errno_location() = libc::ENOMEM };
        return libc::MAP_FAILED;
    }
    // SAFETY: the caller's.
    unsafe { libc::syscall(libc::SYS_mmap, start, bytes, protection, flags, file, offset) as *mut c_void }
}

/// The same under its other name.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn mmap(
    start: *mut c_void,
    bytes: usize,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: i64,
) -> *mut c_void {
    // SAFETY: the caller's.
    unsafe { mmap64(start, bytes, protection, flags, file, offset) }
}

/// Refuses the large allocation number `at` from now on, and with `forever` all that follow.
pub fn arm(at: usize, forever: bool) {
    REFUSE_AT.store(at, SeqCst);
    FOREVER.store(forever, SeqCst);
    SEEN.store(0, SeqCst);
    ARMED.store(true, SeqCst);
}

/// Refuses nothing any more; returns how many large allocations there were since `arm`.
pub fn disarm() -> usize {
    ARMED.store(false, SeqCst);
    SEEN.load(SeqCst)
}

/// Bytes that are allocated now.
pub fn live() -> i64 {
    LIVE.load(SeqCst)
}

/// Allocations of the loop and the CPU threads while `body` runs, and the stack at the first.
pub fn taken_during(body: impl FnOnce()) -> (usize, String) {
    TAKEN.store(0, SeqCst);
    WATCHED.store(true, SeqCst);
    body();
    WATCHED.store(false, SeqCst);
    (TAKEN.load(SeqCst), std::mem::take(&mut PLACE.lock().expect("nobody panics with it")))
}
