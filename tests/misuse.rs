//! Misuse of every exported function, generated from the headers: each call has one wrong argument and must be refused with
//! the right status and a message that names the culprit, its outputs untouched and every object as it was. And several
//! threads that use and destroy the same objects at random.

#[path = "common/headers.rs"]
mod headers;
#[path = "common/programs.rs"]
mod programs;

#[path = "misuse/cases.rs"]
mod cases;
#[path = "misuse/field.rs"]
mod field;
#[path = "misuse/parameter.rs"]
mod parameter;

use std::path::{Path, PathBuf};
use std::process::Command;

use headers::Headers;
use programs::{compile, compilers, fresh_folder, include, root, succeed};

/// Seconds after which a program that hangs is killed.
const PATIENCE: &str = "120";
/// There are a few thousand cases; fewer than this means that a generator has lost some.
const LEAST_CASES: usize = 3000;

fn generated(folder: &Path) -> PathBuf {
    let program = cases::program(&Headers::read(&include()));
    let program = program.unwrap_or_else(|unknown| panic!("nothing is known about misuse of {unknown:#?}"));
    let source = folder.join("cases.c");
    std::fs::write(&source, program).expect("a fresh folder is writable");
    source
}

/// The program's side of a call is instrumented, and so is every `malloc` and `memcpy` of the library.
const SANITIZERS: [&str; 2] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// Builds a source of `tests/misuse` or a generated one.
fn built(compiler: &str, source: &Path, folder: &Path, flags: &[&str]) -> PathBuf {
    let include = format!("-I{}", root().join("tests/misuse").display());
    compile(compiler, source, folder, &[&[include.as_str()], flags].concat())
}

/// Compiles and runs the generated cases.
fn run_cases(compiler: &str, folder: &str, flags: &[&str]) {
    let folder = fresh_folder(folder);
    let program = built(compiler, &generated(&folder), &folder, flags);
    let output = succeed(Command::new(program).arg(root().join("tests/models/tiny")).arg(&folder).arg(PATIENCE));
    let count = output.trim().strip_suffix(" cases").and_then(|count| count.parse().ok());
    let count: usize = count.unwrap_or_else(|| panic!("unexpected output: {output}"));
    println!("{compiler}: {count} cases");
    assert!(count > LEAST_CASES, "{count} cases");
}

#[test]
fn every_argument_of_every_function_may_be_wrong() {
    compilers().iter().for_each(|compiler| run_cases(compiler, &format!("cases-{compiler}"), &[]));
}

#[test]
fn misuse_under_sanitizers() {
    run_cases(compilers()[0], "cases-sanitized", &SANITIZERS);
}

fn stress(folder: &str, flags: &[&str], seed: &str) {
    let folder = fresh_folder(folder);
    let program = built(compilers()[0], &root().join("tests/misuse/stress.c"), &folder, flags);
    let seconds = std::env::var("TRTLLM_STRESS_SECONDS").unwrap_or_else(|_| "3".to_owned());
    let arguments = [root().join("tests/models/tiny"), folder];
    let output = succeed(Command::new(program).args(arguments).args([seconds.as_str(), seed]));
    println!("{output}");
    assert!(output.ends_with(" responses\n"), "{output}");
}

#[test]
fn threads_may_do_anything_with_the_same_objects() {
    stress("stress", &[], "1");
}

#[test]
fn threads_under_sanitizers() {
    stress("stress-sanitized", &SANITIZERS, "2");
}

#[test]
fn the_headers_declare_what_the_library_exports() {
    let headers = Headers::read(&include());
    let mut declared: Vec<_> = headers.functions.iter().map(|function| function.name.as_str()).collect();
    declared.sort_unstable();
    let exported = std::fs::read_to_string(root().join("cmake/trtllm.symbols")).expect("the list exists");
    assert_eq!(declared, exported.lines().collect::<Vec<_>>());
}

#[test]
fn a_function_without_cases_is_named() {
    let mut headers = Headers::read(&include());
    headers
        .add("trtllm_status trtllm_engine_paint(trtllm_engine *engine, wchar_t colour);\nuint64_t trtllm_now(void);\n");
    let unknown = cases::program(&headers).expect_err("nobody knows how to misuse a colour");
    assert_eq!(unknown, ["trtllm_engine_paint(wchar_t colour)", "trtllm_now"]);
    let mut headers = Headers::read(&include());
    let config = headers.structs.iter_mut().find(|s| s.name == "trtllm_engine_config").expect("there is one");
    config.fields[3].name = "how".to_owned();
    config.fields[3].doc = "How.".to_owned();
    assert_eq!(cases::program(&headers).unwrap_err(), ["trtllm_engine_config.how of type int32_t"]);
}
