//! How the shared library is linked: its SONAME, and nothing undefined, unloadable or foreign in it. And the table of
//! kernel sources that it carries.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    embed_kernels();
    link();
}

fn link() {
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    let part = |name: &str| std::env::var(name).expect("cargo sets the version");
    let (major, minor) = (part("CARGO_PKG_VERSION_MAJOR"), part("CARGO_PKG_VERSION_MINOR"));
    // Before 1.0 a minor version may break programs, afterwards only a major one.
    let soname = if major == "0" { format!("libtrtllm.so.0.{minor}") } else { format!("libtrtllm.so.{major}") };
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,{soname}");
    // A symbol that nothing provides fails here and not in front of the user.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,defs");
    // The library's threads may outlive a dlclose.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // rustc exports every C symbol of every dependency; ours are the only ones wanted.
    println!("cargo::rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
}

/// Writes the table that `sources.rs` includes: path below `kernels/` and text of every source, ascending.
fn embed_kernels() {
    println!("cargo::rerun-if-changed=kernels");
    let folder = |name: &str| PathBuf::from(std::env::var_os(name).expect("cargo tells the folder"));
    let kernels = folder("CARGO_MANIFEST_DIR").join("kernels");
    let mut paths = Vec::new();
    find_sources(&kernels, &mut paths);
    let mut entries: Vec<_> = paths.iter().map(|path| (relative(path, &kernels), path)).collect();
    entries.sort();
    let rows: String =
        entries.iter().map(|(name, path)| format!("    ({name:?}, include_str!({path:?})),\n")).collect();
    let table = format!("static SOURCES: &[(&str, &str)] = &[\n{rows}];\n");
    std::fs::write(folder("OUT_DIR").join("kernel_sources.rs"), table).expect("OUT_DIR can be written");
}

fn find_sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("kernels/ is part of the source").flatten() {
        let path = entry.path();
        if path.is_dir() {
            find_sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "cu" || extension == "cuh") {
            found.push(path);
        }
    }
}

fn relative(path: &Path, folder: &Path) -> String {
    let path = path.strip_prefix(folder).expect("found below it");
    path.to_str().expect("names of kernels are ASCII").replace('\\', "/")
}
