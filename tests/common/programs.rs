//! C programs against the headers and the shared library.
#![allow(dead_code)] // Each test program uses its part.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// Builds a C source against the library with more `flags` and returns the program, which lies in `folder`.
pub fn compile(compiler: &str, source: &Path, folder: &Path, flags: &[&str]) -> PathBuf {
    let program = folder.join(source.file_stem().expect("a source has a name"));
    let mut command = Command::new(compiler);
    command.args(["-std=c11", "-D_POSIX_C_SOURCE=200809L", "-g", "-pthread"]).args(WARNINGS).args(flags);
    command.arg("-I").arg(include()).arg("-I").arg(root().join("tests/capi")).arg(source).arg("-o").arg(&program);
    command.arg("-L").arg(library()).arg("-ltrtllm").arg(format!("-Wl,-rpath,{}", library().display())).arg("-lm");
    succeed(&mut command);
    program
}

/// Runs a command, which must succeed without a word on standard error, and returns its output.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    assert_eq!(err, "", "{command:?} printed to standard error");
    out.into_owned()
}

/// The C compilers that are here.
pub fn compilers() -> &'static [&'static str] {
    static FOUND: OnceLock<Vec<&str>> = OnceLock::new();
    let found = FOUND.get_or_init(|| ["gcc", "clang"].into_iter().filter(|name| starts(name)).collect());
    assert!(!found.is_empty(), "neither gcc nor clang is installed");
    found
}

/// Whether a program is installed.
pub fn starts(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// A folder with the library under the names that a linker and a loader look for.
pub fn library() -> &'static Path {
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

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn include() -> PathBuf {
    root().join("include")
}

/// An empty folder of this test program.
pub fn fresh_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(env!("CARGO_CRATE_NAME")).join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).expect("cargo's folder for tests is writable");
    }
    std::fs::create_dir_all(&folder).expect("cargo's folder for tests is writable");
    folder
}
