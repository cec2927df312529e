//! The committed headers are exactly what the sources of `src/capi` give. `TRTLLM_UPDATE_HEADERS=1` rewrites them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cbindgen::{Builder, Config};

/// What a header has beside what cbindgen reads in its source.
struct Noun {
    name: &'static str,
    /// Headers of other nouns whose types it uses.
    uses: &'static [&'static str],
    /// Types that no function mentions.
    also: &'static [&'static str],
    /// Config structs with the values of their fields after `struct_size`.
    initial: &'static [(&'static str, &'static str)],
}

/// In the order of the umbrella header.
const NOUNS: &[Noun] = &[
    Noun { name: "status", uses: &[], also: &[], initial: &[] },
    Noun { name: "version", uses: &["status"], also: &[], initial: &[] },
    Noun {
        name: "sampling",
        uses: &["status"],
        also: &[],
        initial: &[(
            "sampling",
            "0 /* seed */, 0.0f /* temperature */, 0 /* top_k */, 1.0f /* top_p */, 0.0f /* min_p */, \
             1.0f /* repetition_penalty */, 0.0f /* presence_penalty */, 0.0f /* frequency_penalty */, 0 /* min_tokens */, \
             128 /* max_tokens */, 1 /* n */, -1 /* logprobs */, 0 /* ignore_eos */",
        )],
    },
    Noun {
        name: "engine",
        uses: &["status", "sampling"],
        also: &["trtllm_load_mode", "trtllm_precision", "trtllm_target"],
        initial: &[(
            "engine_config",
            "NULL /* progress */, NULL /* user_data */, TRTLLM_LOAD_MODE_MAP, 1 /* verify_weights */",
        )],
    },
    Noun {
        name: "builder",
        uses: &["status", "engine"],
        also: &[],
        initial: &[(
            "build_config",
            "NULL /* disabled_passes */, 0 /* disabled_pass_count */, NULL /* progress */, NULL /* user_data */, \
             0 /* seed */, 0 /* max_positions */, TRTLLM_PRECISION_AUTO, 0 /* dummy_weights */, \
             TRTLLM_TARGET_CPU, TRTLLM_PRECISION_AUTO /* kv_precision */, TRTLLM_PRECISION_AUTO /* head_precision */, \
             NULL /* archs */, 0 /* invariant */, 0 /* default_tactics */",
        )],
    },
    Noun { name: "network", uses: &["status"], also: &[], initial: &[] },
    Noun { name: "tokenizer", uses: &["status", "engine"], also: &[], initial: &[] },
    Noun { name: "response", uses: &["status"], also: &["trtllm_finish_reason"], initial: &[] },
    Noun { name: "request", uses: &["status", "sampling", "response"], also: &[], initial: &[] },
    Noun {
        name: "executor",
        uses: &["status", "sampling", "engine", "request", "response"],
        also: &[],
        initial: &[(
            "executor_config",
            "0 /* memory_budget */, 0 /* kv_tokens */, NULL /* isa */, 16 /* max_batch_size */, 512 /* max_batch_tokens */, \
             0 /* max_sequence_tokens */, 1024 /* max_queue */, 64 /* max_pending_responses */, 0 /* threads */, \
             1 /* prefix_reuse */, 0 /* device */, 0 /* refuse_stored_kernels */, 0 /* reserved */",
        )],
    },
];

/// Stands in the first header that all others include.
const MUST_USE: &str = "\
/** Marks a function whose result must be looked at. */
#if defined(__cplusplus) || (defined(__STDC_VERSION__) && __STDC_VERSION__ > 201710L)
#define TRTLLM_MUST_USE [[nodiscard]]
#elif defined(__GNUC__)
#define TRTLLM_MUST_USE __attribute__((warn_unused_result))
#else
#define TRTLLM_MUST_USE
#endif";

#[test]
fn committed_headers_are_what_the_sources_give() {
    let mut headers: Vec<_> = NOUNS.iter().map(|n| (format!("trtllm/{}.h", n.name), header(n))).collect();
    headers.push(("trtllm.h".to_owned(), umbrella()));
    if std::env::var_os("TRTLLM_UPDATE_HEADERS").is_some_and(|v| v == "1") {
        for (name, text) in &headers {
            std::fs::write(root().join("include").join(name), text).expect("include/ is writable");
        }
    }
    let differs = |name: &str, text: &str| {
        std::fs::read_to_string(root().join("include").join(name)).ok().as_deref() != Some(text)
    };
    let stale: Vec<_> = headers.iter().filter(|(name, text)| differs(name, text)).map(|(name, _)| name).collect();
    assert!(stale.is_empty(), "TRTLLM_UPDATE_HEADERS=1 cargo test --release --test header_drift rewrites {stale:?}");
    let committed = std::fs::read_dir(root().join("include/trtllm")).expect("include/trtllm exists");
    let committed = committed.filter(|entry| entry.as_ref().is_ok_and(|e| e.path().extension() == Some("h".as_ref())));
    assert_eq!(committed.count(), NOUNS.len(), "include/trtllm holds a header that no source gives");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn header(noun: &Noun) -> String {
    let source = source(noun.name);
    let mut config = Config::from_file(root().join(".cbindgen.toml")).expect(".cbindgen.toml is valid");
    config.header = Some(comment(&module_doc(&source)));
    config.include_guard = Some(format!("TRTLLM_{}_H", noun.name.to_uppercase()));
    config.no_includes = true;
    config.export.include = noun.also.iter().map(|s| (*s).to_owned()).collect();
    config.after_includes = Some(includes(noun));
    let bindings = Builder::new().with_config(config).with_src(source).generate().expect("the source parses");
    let mut text = Vec::new();
    bindings.write(&mut text);
    let text = String::from_utf8(text).expect("UTF-8");
    let functions = "#ifdef __cplusplus\nextern \"C\" {";
    compact(&text.replacen(functions, &(initializers(noun) + functions), 1))
}

/// Comments of one line take one line.
fn compact(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let (mut out, mut at) = (String::new(), 0);
    while at < lines.len() {
        let indent = lines[at].len() - lines[at].trim_start().len();
        match lines[at..] {
            [first, only, last, ..] if first.trim() == "/**" && last.trim() == "*/" => {
                let words = only.trim_start().trim_start_matches("* ");
                writeln!(out, "{:indent$}/** {words} */", "").expect("a String takes everything");
                at += 3;
            }
            _ => {
                writeln!(out, "{}", lines[at]).expect("a String takes everything");
                at += 1;
            }
        }
    }
    out
}

fn source(noun: &str) -> PathBuf {
    root().join("src/capi").join(noun).with_extension("rs")
}

fn includes(noun: &Noun) -> String {
    let mut text = "#include <stddef.h>\n#include <stdint.h>\n".to_owned();
    for name in noun.uses {
        write!(text, "\n#include \"trtllm/{name}.h\"").expect("a String takes everything");
    }
    if noun.name == "status" {
        write!(text, "\n{MUST_USE}").expect("a String takes everything");
    }
    text
}

/// The `_INIT` macros, which stand between the types and the functions.
fn initializers(noun: &Noun) -> String {
    let mut text = String::new();
    for (name, values) in noun.initial {
        let macro_name = format!("TRTLLM_{}_INIT", name.to_uppercase());
        let values = values.replace(", ", ", \\\n        ");
        let variable = name.rsplit('_').next().expect("a name has a part");
        write!(
            text,
            "/** The defaults: `trtllm_{name} {variable} = {macro_name};` */\n\
             #define {macro_name} \\\n    {{ \\\n        sizeof(trtllm_{name}), \\\n        {values} \\\n    }}\n\n"
        )
        .expect("a String takes everything");
    }
    text
}

fn umbrella() -> String {
    let mut text = comment(&module_doc(&root().join("src/capi/mod.rs")));
    text.push_str("\n\n#ifndef TRTLLM_H\n#define TRTLLM_H\n\n");
    for noun in NOUNS {
        writeln!(text, "#include \"trtllm/{}.h\"", noun.name).expect("a String takes everything");
    }
    text.push_str("\n#endif /* TRTLLM_H */\n");
    text
}

/// The `//!` lines at the top of a source.
fn module_doc(source: &Path) -> String {
    let text = std::fs::read_to_string(source).expect("the source exists");
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

fn comment(text: &str) -> String {
    let lines = text.lines().map(|line| format!(" * {line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n");
    format!("/**\n{lines}\n *\n * Generated from the sources by cbindgen: change those instead.\n */")
}
