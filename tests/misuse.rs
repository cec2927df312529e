//! Misuse of every exported function, generated from the headers: each call has one wrong argument and must be refused with
//! the right status and a message that names the culprit, its outputs untouched and every object as it was.

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

/// Compiles and runs the generated cases; returns how many there were.
fn run_cases(compiler: &str, folder: &str, flags: &[&str]) -> usize {
    let folder = fresh_folder(folder);
    let include = format!("-I{}", root().join("tests/misuse").display());
    let program = compile(compiler, &generated(&folder), &folder, &[&[include.as_str()], flags].concat());
    let output = succeed(Command::new(program).arg(root().join("tests/models/tiny")).arg(&folder).arg(PATIENCE));
    let count = output.trim().strip_suffix(" cases").and_then(|count| count.parse().ok());
    count.unwrap_or_else(|| panic!("unexpected output: {output}"))
}

#[test]
fn every_argument_of_every_function_may_be_wrong() {
    for compiler in compilers() {
        let count = run_cases(compiler, &format!("cases-{compiler}"), &[]);
        println!("{compiler}: {count} cases");
        assert!(count > LEAST_CASES, "{count} cases");
    }
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
