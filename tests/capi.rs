//! Builds the C tests of `tests/capi` with every compiler there is, and runs them against the shared library.

use std::fmt::Write as _;
use std::mem::offset_of;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use trtllm::capi::{builder, engine, executor, response, sampling};

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

macro_rules! c_tests {
    ($($noun:ident)*) => {
        const NOUNS: &[&str] = &[$(stringify!($noun)),*];
        $(#[test] fn $noun() { run_c_test(stringify!($noun)); })*
    };
}

c_tests! { status version sampling request engine builder network tokenizer response executor }

#[test]
fn every_noun_has_a_source_a_header_and_a_test() {
    let mut expected: Vec<_> = NOUNS.iter().map(|n| (*n).to_owned()).collect();
    expected.sort();
    assert_eq!(names("include/trtllm", "h"), expected);
    assert!(expected.iter().all(|n| root().join("src/capi").join(n).with_extension("rs").is_file()));
    let tests = names("tests/capi", "c");
    assert_eq!(tests.iter().filter(|n| *n != "layout").cloned().collect::<Vec<_>>(), expected);
}

#[test]
fn headers_compile_alone_and_twice_as_c_and_cpp() {
    let folder = fresh_folder("headers");
    for compiler in compilers() {
        for (language, standard) in [("c", "-std=c11"), ("c++", "-std=c++17")] {
            for name in names("include/trtllm", "h").iter().map(|n| format!("trtllm/{n}.h")).chain(["trtllm.h".into()])
            {
                let source = folder.join("header.c");
                std::fs::write(&source, format!("#include \"{name}\"\n#include \"{name}\"\n")).expect("writable");
                let mut command = Command::new(compiler);
                command.args(["-x", language, standard, "-fsyntax-only"]).args(WARNINGS).arg("-I").arg(include());
                succeed(command.arg(&source));
            }
        }
    }
}

#[test]
fn c_and_rust_agree_on_every_layout() {
    let expected = rust_layout();
    for compiler in compilers() {
        let folder = fresh_folder(&format!("layout-{compiler}"));
        assert_eq!(succeed(&mut Command::new(compile(compiler, "layout", &folder))), expected, "{compiler}");
    }
}

macro_rules! layout {
    ($($noun:ident :: $name:ident { $($field:ident),* })*) => {{
        let mut text = String::new();
        $(
            writeln!(text, "{} {}", stringify!($name), size_of::<$noun::$name>()).expect("a String takes everything");
            $(writeln!(text, "{}.{} {}", stringify!($name), stringify!($field), offset_of!($noun::$name, $field))
                .expect("a String takes everything");)*
        )*
        text
    }};
}

fn rust_layout() -> String {
    layout! {
        sampling::trtllm_sampling { struct_size, seed, temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, min_tokens, max_tokens, n, logprobs, ignore_eos }
        engine::trtllm_engine_config { struct_size, progress, user_data, load_mode, verify_weights }
        engine::trtllm_engine_info { architecture, eos_tokens, eos_token_count, weight_bytes, kv_bytes_per_token, bos_token, vocab_size, hidden_size, layers, max_positions, precision, target, kv_precision, head_precision }
        builder::trtllm_build_config { struct_size, disabled_passes, disabled_pass_count, progress, user_data, seed, max_positions, precision, dummy_weights, target, kv_precision, head_precision, archs, invariant, default_tactics }
        response::trtllm_token_logprob { token, logprob }
        response::trtllm_response_view { text, text_length, tokens, token_count, logprobs, top_logprobs, top_logprobs_per_token, context_logits, context_logits_count, generation_logits, generation_logits_count, error_message, request_id, sequence, finish_reason, status, last }
        response::trtllm_request_stats { prompt_tokens, cached_tokens, generated_tokens, preemptions, queued_ns, first_token_ns, total_ns }
        executor::trtllm_executor_config { struct_size, memory_budget, kv_tokens, isa, max_batch_size, max_batch_tokens, max_sequence_tokens, max_queue, max_pending_responses, threads, prefix_reuse, device, refuse_stored_kernels, reserved }
        executor::trtllm_executor_stats { iterations, completed, cancelled, expired, failed, preemptions, generated_tokens, requests, prefix_lookup_tokens, prefix_hit_tokens, running, waiting, batch_tokens, kv_blocks_used, kv_blocks_cached, kv_blocks_free, last_step_ns, busy_ns, memory_bytes, last_step_device_ns, device_busy_ns, device_idle_ns }
    }
}

fn run_c_test(noun: &str) {
    for compiler in compilers() {
        let folder = fresh_folder(&format!("{noun}-{compiler}"));
        let program = compile(compiler, noun, &folder);
        let output = succeed(Command::new(program).arg(root().join("tests/models/tiny")).arg(&folder));
        assert!(output.lines().count() > 0 && output.lines().all(|line| line.starts_with("ok ")), "{output}");
    }
}

/// Builds one C test against the library and returns the program.
fn compile(compiler: &str, name: &str, folder: &Path) -> PathBuf {
    let program = folder.join(name);
    let mut command = Command::new(compiler);
    command.args(["-std=c11", "-D_POSIX_C_SOURCE=200809L", "-g", "-pthread"]).args(WARNINGS).arg("-I").arg(include());
    command.arg(root().join("tests/capi").join(name).with_extension("c")).arg("-o").arg(&program);
    command.arg("-L").arg(library()).arg("-ltrtllm").arg(format!("-Wl,-rpath,{}", library().display())).arg("-lm");
    succeed(&mut command);
    program
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    assert_eq!(err, "", "{command:?} printed to standard error");
    out.into_owned()
}

fn compilers() -> &'static [&'static str] {
    static FOUND: OnceLock<Vec<&str>> = OnceLock::new();
    let starts = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    let found = FOUND.get_or_init(|| ["gcc", "clang"].into_iter().filter(starts).collect());
    assert!(!found.is_empty(), "neither gcc nor clang is installed");
    found
}

/// A folder with the library under the names that a linker and a loader look for.
fn library() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // Cargo builds the library for this test beside it.
        let test = std::env::current_exe().expect("a test has a path");
        let built = test.parent().expect("a file has a folder").join("libtrtllm.so");
        assert!(built.is_file(), "{} is missing", built.display());
        let folder = fresh_folder("library");
        for name in ["libtrtllm.so", concat!("libtrtllm.so.0.", env!("CARGO_PKG_VERSION_MINOR"))] {
            symlink(&built, folder.join(name)).expect("a fresh folder takes a link");
        }
        folder
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn include() -> PathBuf {
    root().join("include")
}

fn fresh_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi").join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).expect("cargo's folder for tests is writable");
    }
    std::fs::create_dir_all(&folder).expect("cargo's folder for tests is writable");
    folder
}

/// Sorted stems of the files with an extension.
fn names(folder: &str, extension: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join(folder)).expect("the folder exists");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let mut names: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
