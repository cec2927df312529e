//! Modules import downwards only: `use crate::` lines against the table of `src/lib.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each room may import besides `error` and `types`.
const ALLOWED: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("types", &[]),
    ("checkpoint", &[]),
    ("engine", &[]),
    ("kv", &[]),
    ("text", &[]),
    ("network", &[]),
    ("models", &["network", "checkpoint"]),
    ("passes", &["network"]),
    ("backend", &["engine"]),
    ("runtime", &["engine", "backend"]),
    ("sampling", &["runtime", "text"]),
    ("builder", &["checkpoint", "network", "models", "passes", "engine", "backend", "runtime", "text"]),
    ("executor", &["engine", "runtime", "kv", "sampling", "text"]),
    ("faults", &["engine", "backend", "runtime", "builder", "sampling", "executor"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Rooms named by `crate::room` anywhere in code, comment lines left out.
fn imports(text: &str) -> Vec<&str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(""))
        .filter(|room| room.starts_with(char::is_lowercase))
        .collect()
}

#[test]
fn rooms_import_downwards_only() {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut violations = Vec::new();
    for file in &files {
        let relative = file.strip_prefix(&root).expect("found below src");
        let first = relative.components().next().expect("a file has a name").as_os_str().to_string_lossy();
        let room = first.trim_end_matches(".rs").to_string();
        if room == "lib" || room == "capi" {
            continue;
        }
        let Some(rooms) = allowed.get(room.as_str()) else {
            violations.push(format!("{} is in a room that the table does not name", relative.display()));
            continue;
        };
        let text = fs::read_to_string(file).expect("sources are UTF-8");
        for import in imports(&text) {
            let known = allowed.contains_key(import) || import == "capi";
            let fine = import == room || import == "error" || import == "types" || rooms.contains(&import);
            if known && !fine {
                violations.push(format!("{}: crate::{import}", relative.display()));
            }
        }
    }
    assert!(files.len() > 20, "the scan found only {} files", files.len());
    assert!(violations.is_empty(), "imports against the layering table:\n{}", violations.join("\n"));
}

#[test]
fn the_scan_sees_imports() {
    let text = "use crate::kv::Block;\n// use crate::capi::x\nlet x = crate::engine::Plan { };";
    assert_eq!(imports(text), ["kv", "engine"]);
}
