//! How the shared library is linked: its SONAME, and nothing undefined, unloadable or foreign in it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
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
