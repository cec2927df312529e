//! The world failing under the shared library: calls of the C library that fail or never return, files truncated by others,
//! threads that do not start, lives without end. The programs are in C (`tests/faults`), so that calls can be put in the place
//! of the C library's, and so that the library is opened and closed as a host does it.
//!
//! `TRTLLM_CYCLES=N` sets how many lives `cycles` lives; the long run is `TRTLLM_CYCLES=1000 cargo test --release --test faults`.

#![cfg(feature = "compiler")]

use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use trtllm::builder::{self, BuildOptions, Source};

const DEFAULT_CYCLES: usize = 100;

#[test]
fn every_call_of_a_write_fails_or_never_returns() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    run(&program("write", true), &[&root().join("tests/models/tiny/config.json"), folder.path()]);
}

#[test]
fn every_thread_fails_to_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    run(&program("threads", true), &[&engine(folder.path())]);
}

#[test]
fn an_engine_is_truncated_at_every_read() {
    let (built, copied) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    run(&program("truncate", true), &[&engine(built.path()), copied.path()]);
}

#[test]
fn lives_and_opened_libraries_leave_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cycles = std::env::var("TRTLLM_CYCLES").ok().and_then(|count| count.parse().ok()).unwrap_or(DEFAULT_CYCLES);
    let count = PathBuf::from(cycles.to_string());
    run(&program("cycles", false), &[&library(), &engine(folder.path()), &count]);
}

/// The tiny model's engine in `folder`.
fn engine(folder: &Path) -> PathBuf {
    let (source, path) = (Source::Checkpoint(root().join("tests/models/tiny")), folder.join("tiny.engine"));
    builder::build(&source, &path, &BuildOptions::default(), &mut |_, _| ControlFlow::Continue(())).expect("it builds");
    path
}

/// Compiles a program, with the shim in it where calls are to fail; without it the program finds the library itself.
fn program(name: &str, shim: bool) -> PathBuf {
    let (folder, sources) = (fresh_folder(name), root().join("tests/faults"));
    let program = folder.join(name);
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-g", "-pthread", "-rdynamic"]);
    compiler.arg("-I").arg(root().join("include")).arg("-I").arg(root().join("tests/capi")).arg("-I").arg(&sources);
    compiler.arg(sources.join(name).with_extension("c")).arg("-o").arg(&program);
    if shim {
        symlink(library(), folder.join("libtrtllm.so")).expect("a fresh folder");
        symlink(library(), folder.join(concat!("libtrtllm.so.0.", env!("CARGO_PKG_VERSION_MINOR"))))
            .expect("a fresh folder");
        compiler.arg(sources.join("shim.c")).arg("-L").arg(&folder).arg("-ltrtllm");
        compiler.arg(format!("-Wl,-rpath,{}", folder.display()));
    }
    compiler.arg("-ldl");
    assert!(compiler.status().expect("there is a C compiler").success());
    program
}

/// Runs a program, whose every line says that something is well.
fn run(program: &Path, arguments: &[&Path]) {
    let output = Command::new(program).args(arguments).output().expect("it starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {out}{err}", output.status);
    assert!(out.lines().count() > 0 && out.lines().all(|line| line.starts_with("ok ")), "{out}");
    assert_eq!(err, "");
    print!("{out}");
}

/// Cargo builds the library for this test beside it.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let built = test.parent().expect("a file has a folder").join("libtrtllm.so");
    assert!(built.is_file(), "{} is missing", built.display());
    built
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn fresh_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults").join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).expect("cargo's folder for tests is writable");
    }
    std::fs::create_dir_all(&folder).expect("cargo's folder for tests is writable");
    folder
}
