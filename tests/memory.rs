//! Memory that is refused, and memory that is not asked for. A program of its own, without the test harness: its children
//! are forks, which takes a process with one thread.
//!
//! `TRTLLM_MEMORY=1` refuses every large allocation of a whole life one by one; otherwise only those of its end.

#[path = "memory/allocator.rs"]
mod allocator;
#[path = "memory/client.rs"]
mod client;
#[path = "memory/failing.rs"]
mod failing;
#[path = "memory/steady.rs"]
mod steady;
#[path = "memory/trial.rs"]
mod trial;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use trtllm::builder::{self, BuildOptions, Source};

/// Tries to see clients that keep up.
const WINDOWS: usize = 6;

/// A test of the engine at this path; it panics when it fails.
type Test = fn(&Path);

fn main() {
    // An abort that prints its stack asks for memory, which is refused again: the trials report stacks themselves.
    // SAFETY: no other thread was started.
    unsafe { std::env::set_var("RUST_BACKTRACE", "0") };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = engine(folder.path());
    let tests: [(&str, Test); 2] = [
        ("steady_steps_take_no_memory", steady_steps_take_no_memory),
        ("a_refused_allocation_is_a_status", a_refused_allocation_is_a_status),
    ];
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let mut passed = 0;
    for (name, test) in tests.iter().filter(|(name, _)| name.contains(&wanted)) {
        let began = Instant::now();
        test(&path);
        println!("test {name} ... ok ({:.1} s)", began.elapsed().as_secs_f32());
        passed += 1;
    }
    println!("\ntest result: ok. {passed} passed; 0 failed; 0 ignored");
}

/// The tiny model with room for long prompts.
fn engine(folder: &Path) -> PathBuf {
    let (tiny, long) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/tiny"), folder.join("checkpoint"));
    std::fs::create_dir(&long).expect("a folder");
    for entry in std::fs::read_dir(tiny).expect("the model is there") {
        let entry = entry.expect("it is read");
        std::fs::copy(entry.path(), long.join(entry.file_name())).expect("it is copied");
    }
    let config = std::fs::read_to_string(long.join("config.json")).expect("it is text");
    let longer = config.replace(r#""max_position_embeddings": 1024"#, r#""max_position_embeddings": 2048"#);
    assert_ne!(config, longer);
    std::fs::write(long.join("config.json"), longer).expect("it is written");
    let path = folder.join("model.engine");
    let source = Source::Checkpoint(long);
    builder::build(&source, &path, &BuildOptions::default(), &mut |_, _| ControlFlow::Continue(())).expect("it builds");
    path
}

fn steady_steps_take_no_memory(path: &Path) {
    for (name, sampling) in steady::kinds() {
        for stream in [false, true] {
            // A step is steady when its clients have taken what they were given: a window in which they were late is followed
            // by another one. Who speaks at the end alone has no client to wait for.
            let mut late = Vec::new();
            while late.len() < WINDOWS {
                match steady::taken(path, stream, &sampling) {
                    Some((0, _)) => break,
                    Some((taken, place)) if !stream => panic!("{name}: {taken} allocations\n{place}"),
                    window => late.push(window),
                }
            }
            assert!(late.len() < WINDOWS, "{name}, stream {stream}: {late:?}");
            println!("{name}, stream {stream}: no allocation, {} late windows", late.len());
        }
    }
}

fn a_refused_allocation_is_a_status(path: &Path) {
    failing::expected(path);
    let parts: [(&str, failing::Part); 2] = [("end", failing::end_of_life), ("life", failing::whole_life)];
    // Symbolising every foreign abort takes minutes: the whole life is refused in the long run only.
    let count = if std::env::var_os("TRTLLM_MEMORY").is_some() { 2 } else { 1 };
    for (name, part) in parts.into_iter().take(count) {
        for forever in [false, true] {
            let tally = failing::refuse_each(path, part, forever);
            println!("{name}, forever {forever}: {tally:?}");
            assert!(tally.own_aborts().is_empty(), "{:?}", tally.own_aborts());
            assert!(tally.trials > 3 && tally.refusals + tally.absorbed > 0, "nothing was refused");
        }
    }
}
