//! How the shared library is linked: its SONAME, and nothing undefined, unloadable or foreign in it. The sources of the
//! CUDA kernels become a table of the library.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    embed_kernels();
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        link();
    }
}

fn link() {
    let part = |name: &str| env::var(name).expect("cargo sets the version");
    let (major, minor) = (part("CARGO_PKG_VERSION_MAJOR"), part("CARGO_PKG_VERSION_MINOR"));
    // Before 1.0 a minor version may break programs, afterwards only a major one.
    let soname = if major == "0" { format!("libtrtllm.so.0.{minor}") } else { format!("libtrtllm.so.{major}") };
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,{soname}");
    // A symbol that nothing provides fails here and not in front of the user. What fuzzing adds, the fuzzer provides.
    if env::var_os("CARGO_CFG_FUZZING").is_none() {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,defs");
    }
    // The library's threads may outlive a dlclose.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // rustc exports every C symbol of every dependency; ours are the only ones wanted.
    println!("cargo::rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
}

/// Writes `KERNELS: &[(path, text)]`, sorted by path.
fn embed_kernels() {
    println!("cargo::rerun-if-changed=kernels");
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("kernels");
    let mut paths = Vec::new();
    find(&root, &mut paths);
    paths.sort();
    let mut table = String::from("static KERNELS: &[(&str, &str)] = &[\n");
    for path in paths {
        let name = path.strip_prefix(&root).expect("found below the root").to_str().expect("kernel names are ASCII");
        writeln!(table, "    ({name:?}, include_str!({path:?})),").expect("strings take writes");
    }
    table.push_str("];\n");
    let out = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("kernels.rs");
    fs::write(out, table).expect("OUT_DIR can be written");
}

fn find(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).expect("kernels/ can be read") {
        let path = entry.expect("kernels/ can be read").path();
        let source = path.extension().is_some_and(|extension| extension == "cu" || extension == "cuh");
        match path.is_dir() {
            true => find(&path, found),
            false if source => found.push(path),
            false => {}
        }
    }
}
