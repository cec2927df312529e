//! The targets under libFuzzer, in one program: the variable `TARGET` names the one that runs.
#![no_main]

// Named, so that its own modules are looked for beside it, as in `tests/mutations.rs`.
#[path = "targets.rs"]
mod targets;

use std::sync::LazyLock;

type Target = fn(&[u8]) -> bool;

/// The function of `TARGET`. Where one works in memory, most inputs do: system calls are slow.
static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let targets: [(&str, Target); 11] = [
        ("engine", |bytes| in_memory_unless_rare(bytes, targets::engine_in_memory, targets::engine)),
        ("plan", |bytes| in_memory_unless_rare(bytes, targets::plan_in_memory, targets::plan)),
        ("safetensors", |bytes| in_memory_unless_rare(bytes, targets::safetensors_in_memory, targets::safetensors)),
        ("safetensors_index", targets::safetensors_index),
        ("config", targets::config),
        ("generation_config", targets::generation_config),
        ("tokenizer", targets::tokenizer),
        ("tokenizer_config", targets::tokenizer_config),
        ("template", targets::template),
        ("messages", targets::messages),
        ("requests", targets::requests),
    ];
    let name = std::env::var("TARGET").expect("TARGET names what is fuzzed");
    targets.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no target is called {name}")).1
});

/// One in so many inputs, by its content, goes through files and devices too.
const RARE: u64 = 256;

fn in_memory_unless_rare(bytes: &[u8], in_memory: Target, whole: Target) -> bool {
    match xxhash_rust::xxh3::xxh3_64(bytes).is_multiple_of(RARE) {
        true => whole(bytes),
        false => in_memory(bytes),
    }
}

// The hook that libfuzzer-sys installs would abort on panics that the library catches; those that escape still abort.
libfuzzer_sys::fuzz_target!(init: drop(std::panic::take_hook()), |bytes: &[u8]| {
    TARGET(bytes);
});
