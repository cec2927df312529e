//! What the shared library exports, needs and is called.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The newest glibc that a program using the library may be asked for.
const GLIBC: (u32, u32) = (2, 34);
/// Libraries that every glibc system has. The first four are what is needed; newer glibc merged the others into libc.
const ALLOWED: [&str; 6] =
    ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2", "libpthread.so.0", "libdl.so.2"];
/// Promised size of the stripped library.
const MOST_BYTES: u64 = 25 << 20;

#[test]
fn exports_are_exactly_the_listed_symbols() {
    let output = run("nm", &["-D", "--defined-only", "--format=posix"]);
    let exported: BTreeSet<_> = output.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let list = std::fs::read_to_string(root().join("cmake/trtllm.symbols")).expect("the list exists");
    let listed: BTreeSet<_> = list.lines().collect();
    assert_eq!(exported, listed);
}

#[test]
fn nothing_is_needed_but_glibc_and_libgcc() {
    let output = run("objdump", &["-p"]);
    let needed: Vec<_> = output.lines().filter_map(|line| line.trim().strip_prefix("NEEDED")).map(str::trim).collect();
    assert!(!needed.is_empty());
    assert!(needed.iter().all(|name| ALLOWED.contains(name)), "{needed:?}");
}

#[test]
fn no_symbol_is_newer_than_the_promised_glibc() {
    let output = run("objdump", &["-T"]);
    let versions: BTreeSet<_> = output.split("GLIBC_").skip(1).filter_map(version).collect();
    assert!(!versions.is_empty());
    assert!(versions.iter().all(|v| *v <= GLIBC), "{versions:?}");
}

#[test]
fn the_soname_carries_the_compatible_version() {
    let (major, minor) = (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    let expected = if major == "0" { format!("libtrtllm.so.0.{minor}") } else { format!("libtrtllm.so.{major}") };
    let output = run("objdump", &["-p"]);
    let soname = output.lines().find_map(|line| line.trim().strip_prefix("SONAME")).map(str::trim);
    assert_eq!(soname, Some(expected.as_str()));
    // FLAGS_1 with NODELETE: the library stays when a program closes it, as its threads may still run.
    let flags = output.lines().find_map(|line| line.trim().strip_prefix("FLAGS_1")).expect("it has flags").trim();
    let bits = u64::from_str_radix(flags.trim_start_matches("0x"), 16).expect("hexadecimal");
    assert_ne!(bits & 0x8, 0, "NODELETE is not set in {flags}");
}

#[test]
fn the_stripped_library_keeps_its_promised_size() {
    let stripped = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libtrtllm.stripped.so");
    let status = Command::new("strip").arg("-o").arg(&stripped).arg(library()).status().expect("binutils is installed");
    assert!(status.success());
    let bytes = std::fs::metadata(&stripped).expect("strip wrote it").len();
    println!("stripped: {:.1} MiB", bytes as f64 / f64::from(1 << 20));
    assert!(bytes <= MOST_BYTES, "{bytes} bytes");
}

fn version(text: &str) -> Option<(u32, u32)> {
    let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let mut parts = text[..end].split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).arg(library()).output().expect("binutils is installed");
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("symbols are ASCII")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo builds the library for this test beside it.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    test.parent().expect("a file has a folder").join("libtrtllm.so")
}
