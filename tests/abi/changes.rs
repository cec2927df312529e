//! The headers against those of the last version, `tests/abi/last.txt`: they may only have grown.
//!
//! Allowed are new functions, types, constants and enum values, and new fields at the end of a struct whose size the caller
//! passes. Everything else is incompatible, renamed fields and dropped `const`s included, and needs a new version: before
//! 1.0 another minor, afterwards another major.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::headers::{Headers, Struct};
use crate::programs::{fresh_folder, include, root};
use crate::stub;

/// The headers of the last version; `BLESS=1` makes the present ones the last.
fn last_path() -> PathBuf {
    root().join("tests/abi/last.txt")
}

fn parsed(text: &str) -> Headers {
    let mut headers = Headers::default();
    headers.add(text);
    headers
}

fn last() -> String {
    std::fs::read_to_string(last_path()).expect("tests/abi/last.txt exists")
}

/// What `abidiff` finds between two stubs, harmless or not; symbols that came new are none of it.
fn difference(old: &Path, new: &Path) -> Option<String> {
    let mut command = Command::new("abidiff");
    let output =
        command.args(["--harmless", "--no-added-syms"]).arg(old).arg(new).output().expect("abidiff is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Bits of the exit status: 1 an error, 2 wrong usage, 4 a change, 8 one that is incompatible for certain.
    let code = output.status.code().expect("abidiff ends by itself");
    assert_eq!(code & 3, 0, "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    (code != 0).then_some(text)
}

/// What a program that was built for `old` cannot take in `new`.
fn incompatible(old: &Headers, mut new: Headers, folder: &Path) -> Option<String> {
    leave_out_additions(old, &mut new);
    difference(&stub::compile(old, folder, "old"), &stub::compile(&new, folder, "new"))
}

/// Takes out of `new` the values and fields by which it may be larger than `old`.
fn leave_out_additions(old: &Headers, new: &mut Headers) {
    for each in &old.structs {
        if let Some(grown) = new.structs.iter_mut().find(|s| s.name == each.name && has_size(old, each)) {
            grown.fields.truncate(each.fields.len());
        }
    }
    for each in &old.enums {
        if let Some(grown) = new.enums.iter_mut().find(|e| e.name == each.name) {
            grown.values.retain(|(name, _)| each.values.iter().any(|(known, _)| known == name));
        }
    }
    new.constants.retain(|(name, _)| old.constants.iter().any(|(known, _)| known == name));
}

/// Whether the library is told how large a caller takes the struct to be: in it, or in the parameter before it.
fn has_size(headers: &Headers, each: &Struct) -> bool {
    let mut pairs = headers.functions.iter().flat_map(|function| function.parameters.windows(2));
    each.is_config() || pairs.any(|pair| pair[0].name.ends_with("_size") && pair[1].of == format!("{} *", each.name))
}

/// Versions of which one may break what the other promised differ here.
fn series(headers: &Headers) -> (i64, i64) {
    let value =
        |name| headers.constants.iter().find(|(constant, _)| constant == name).expect("headers say their version").1;
    let (major, minor) = (value("TRTLLM_VERSION_MAJOR"), value("TRTLLM_VERSION_MINOR"));
    if major == 0 { (0, minor) } else { (major, 0) }
}

#[test]
fn nothing_is_taken_back_without_a_new_version() {
    let (folder, new) = (fresh_folder("changes"), Headers::read(&include()));
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    if last_path().exists() || !bless {
        let old = parsed(&last());
        let report = incompatible(&old, Headers::read(&include()), &folder);
        assert!(
            report.is_none() || series(&new) > series(&old),
            "the headers break programs of the last version; a new version may do that:\n{}",
            report.unwrap_or_default()
        );
    }
    if bless {
        std::fs::write(last_path(), stub::declarations(&new)).expect("tests/ is writable");
    }
}

#[test]
fn the_stub_says_what_the_headers_say() {
    let (folder, headers) = (fresh_folder("stub"), Headers::read(&include()));
    let installed = stub::compile_installed(&headers, &folder, "installed");
    assert_eq!(difference(&installed, &stub::compile(&headers, &folder, "stub")), None);
    let again = parsed(&stub::declarations(&headers));
    assert_eq!(stub::declarations(&again), stub::declarations(&headers));
}

/// The verdict on the last headers after one change of their text.
fn verdict(name: &str, old_text: &str, new_text: &str) -> Option<String> {
    let (last, folder) = (last(), fresh_folder(&format!("verdict-{name}")));
    assert_eq!(last.matches(old_text).count(), 1, "{name}: `{old_text}` is not once in the last headers");
    incompatible(&parsed(&last), parsed(&last.replace(old_text, new_text)), &folder)
}

#[test]
fn what_breaks_programs_is_seen() {
    let changes = [
        (
            "removed function",
            "trtllm_status trtllm_request_set_stream(trtllm_request * request, int32_t stream);\n",
            "",
        ),
        (
            "other parameter type",
            "trtllm_request * request, uint64_t milliseconds",
            "trtllm_request * request, uint32_t milliseconds",
        ),
        ("other sign", "trtllm_request * request, int32_t stream", "trtllm_request * request, uint32_t stream"),
        (
            "one parameter more",
            "trtllm_request * request, int32_t stream",
            "trtllm_request * request, int32_t stream, int32_t more",
        ),
        ("other result", "uint32_t trtllm_version(void)", "uint64_t trtllm_version(void)"),
        (
            "dropped const",
            "trtllm_executor_check_health(const trtllm_executor * executor)",
            "trtllm_executor_check_health(trtllm_executor * executor)",
        ),
        (
            "other handle",
            "trtllm_tokenizer_destroy(trtllm_tokenizer * tokenizer)",
            "trtllm_tokenizer_destroy(trtllm_engine * tokenizer)",
        ),
        (
            "reordered fields",
            "    int32_t load_mode;\n    int32_t verify_weights;\n",
            "    int32_t verify_weights;\n    int32_t load_mode;\n",
        ),
        ("removed field", "    int32_t verify_weights;\n", ""),
        ("field in the middle", "    uint64_t queued_ns;\n", "    uint64_t between;\n    uint64_t queued_ns;\n"),
        ("other field type", "    int32_t logprobs;\n", "    uint32_t logprobs;\n"),
        ("renamed field", "    uint64_t queued_ns;\n", "    uint64_t waited_ns;\n"),
        ("grown struct without a size", "    float logprob;\n", "    float logprob;\n    float entropy;\n"),
        ("other enum value", "TRTLLM_LOAD_MODE_READ = 1", "TRTLLM_LOAD_MODE_READ = 2"),
        ("renamed enum value", "TRTLLM_LOAD_MODE_READ = 1", "TRTLLM_LOAD_MODE_COPY = 1"),
        ("removed enum value", "    TRTLLM_FINISH_REASON_ERROR = 6,\n", ""),
        ("other callback", "const char * phase, double fraction", "const char * phase, float fraction"),
        ("other constant", "#define TRTLLM_WAIT_FOREVER -1", "#define TRTLLM_WAIT_FOREVER -2"),
    ];
    let missed: Vec<_> = changes.iter().filter(|(name, old, new)| verdict(name, old, new).is_none()).collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn what_only_adds_is_let_through() {
    let changes = [
        ("nothing", "uint32_t trtllm_version(void);", "uint32_t trtllm_version(void);"),
        ("function", "uint32_t trtllm_version(void);", "uint32_t trtllm_version(void);\nuint32_t trtllm_answer(void);"),
        (
            "config field",
            "    int32_t verify_weights;\n",
            "    int32_t verify_weights;\n    int32_t lock_pages;\n    int32_t more;\n",
        ),
        ("result field", "    uint64_t device_idle_ns;\n", "    uint64_t device_idle_ns;\n    uint64_t more;\n"),
        (
            "enum value",
            "    TRTLLM_LOAD_MODE_READ = 1,\n",
            "    TRTLLM_LOAD_MODE_READ = 1,\n    TRTLLM_LOAD_MODE_LOCK = 2,\n",
        ),
        (
            "struct",
            "typedef struct trtllm_network trtllm_network;",
            "typedef struct trtllm_network trtllm_network;\ntypedef struct {\n    int32_t x;\n} trtllm_point;",
        ),
        ("constant", "#define TRTLLM_WAIT_FOREVER -1", "#define TRTLLM_WAIT_FOREVER -1\n#define TRTLLM_MORE 5"),
    ];
    for (name, old, new) in changes {
        assert_eq!(verdict(name, old, new), None, "{name}");
    }
}

#[test]
fn another_series_may_break() {
    let version = |major: u32, minor: u32| {
        series(&parsed(&format!("#define TRTLLM_VERSION_MAJOR {major}\n#define TRTLLM_VERSION_MINOR {minor}\n")))
    };
    assert!(version(0, 2) > version(0, 1) && version(1, 0) > version(0, 9) && version(2, 0) > version(1, 7));
    assert_eq!(version(1, 3), version(1, 2));
}
