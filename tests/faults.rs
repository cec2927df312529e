//! The world failing under the shared library: calls of the C library that fail or never return, files truncated by others,
//! threads that do not start, lives without end. The programs are in C (`tests/faults`), so that calls can be put in the place
//! of the C library's, and so that the library is opened and closed as a host does it.
//!
//! `TRTLLM_CYCLES=N` sets how many lives `cycles` lives; the long run is `TRTLLM_CYCLES=1000 cargo test --release --test faults`.

#![cfg(feature = "compiler")]

mod common;
#[path = "common/programs.rs"]
mod programs;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::engine_file;
use programs::{compile, compilers, fresh_folder, library, root, succeed};
use trtllm::engine::Precision;

const DEFAULT_CYCLES: usize = 100;

#[test]
fn every_call_of_a_write_fails_or_never_returns() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    run(&program("write", true), &[&root().join("tests/models/tiny/config.json"), folder.path()]);
}

#[test]
fn every_thread_fails_to_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    run(&program("threads", true), &[&engine_file(folder.path(), Precision::Bf16)]);
}

#[test]
fn an_engine_is_truncated_at_every_read() {
    let (built, copied) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    run(&program("truncate", true), &[&engine_file(built.path(), Precision::Bf16), copied.path()]);
}

#[test]
fn lives_and_opened_libraries_leave_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let asked = std::env::var("TRTLLM_CYCLES").ok().map(|count| count.parse::<usize>().expect("a number"));
    let count = PathBuf::from(asked.unwrap_or(DEFAULT_CYCLES).to_string());
    let (library, engine) = (library().join("libtrtllm.so"), engine_file(folder.path(), Precision::Bf16));
    run(&program("cycles", false), &[&library, &engine, &count]);
}

/// Compiles a program, with the shim in it where calls are to fail; without it the program opens the library itself.
fn program(name: &str, shim: bool) -> PathBuf {
    let (folder, sources) = (fresh_folder(name), root().join("tests/faults"));
    let (here, calls) = (format!("-I{}", sources.display()), sources.join("shim.c").display().to_string());
    // What `dlsym` gives becomes a function, which ISO C knows nothing of; nothing needs the library then.
    let flags: &[&str] = match shim {
        true => &["-rdynamic", &here, &calls],
        false => &["-Wno-pedantic", "-Wl,--as-needed", &here],
    };
    compile(compilers()[0], &sources.join(name).with_extension("c"), &folder, flags)
}

/// Runs a program, whose every line says that something is well.
fn run(program: &Path, arguments: &[&Path]) {
    let out = succeed(Command::new(program).args(arguments));
    assert!(out.lines().count() > 0 && out.lines().all(|line| line.starts_with("ok ")), "{out}");
    print!("{out}");
}
