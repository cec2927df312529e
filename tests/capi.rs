//! Builds the C tests of `tests/capi` with every compiler there is, and runs them against the shared library.

#[path = "common/programs.rs"]
mod programs;

use std::process::Command;

use programs::{WARNINGS, compile, compilers, fresh_folder, include, root, succeed};

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
    assert_eq!(names("tests/capi", "c"), expected);
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

fn run_c_test(noun: &str) {
    for compiler in compilers() {
        let folder = fresh_folder(&format!("{noun}-{compiler}"));
        let source = root().join("tests/capi").join(noun).with_extension("c");
        let program = compile(compiler, &source, &folder, &[]);
        let output = succeed(Command::new(program).arg(root().join("tests/models/tiny")).arg(&folder));
        assert!(output.lines().count() > 0 && output.lines().all(|line| line.starts_with("ok ")), "{output}");
    }
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
