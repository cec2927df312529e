//! Sizes, offsets and values as a C compiler sees them, of everything that the headers declare, against those of Rust.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::mem::offset_of;
use std::process::Command;

use trtllm::capi::{builder, engine, executor, response, sampling, version};

use crate::headers::Headers;
use crate::programs::{compile, compilers, fresh_folder, include, root, succeed};

macro_rules! layout {
    ($($noun:ident :: $name:ident { $($field:ident),* $(,)? })*) => {{
        let mut lines = Vec::new();
        $(
            let name = stringify!($name);
            lines.push(format!("{name} {} {}", size_of::<$noun::$name>(), align_of::<$noun::$name>()));
            $(
                let size = size_of_field(|value: &$noun::$name| &value.$field);
                lines.push(format!("{name}.{} {} {size}", stringify!($field), offset_of!($noun::$name, $field)));
            )*
        )*
        lines
    }};
}

/// Every struct and field by name: one that the headers have and this list lacks fails the test.
fn structs_of_rust() -> Vec<String> {
    layout! {
        sampling::trtllm_sampling {
            struct_size, seed, temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty,
            min_tokens, max_tokens, n, logprobs, ignore_eos,
        }
        engine::trtllm_engine_config { struct_size, progress, user_data, load_mode, verify_weights }
        engine::trtllm_engine_info {
            architecture, eos_tokens, eos_token_count, weight_bytes, kv_bytes_per_token, bos_token, vocab_size, hidden_size,
            layers, max_positions, precision, target, kv_precision, head_precision,
        }
        builder::trtllm_build_config {
            struct_size, disabled_passes, disabled_pass_count, progress, user_data, seed, max_positions, precision,
            dummy_weights, target, kv_precision, head_precision, archs, invariant, default_tactics,
        }
        response::trtllm_token_logprob { token, logprob }
        response::trtllm_response_view {
            text, text_length, tokens, token_count, logprobs, top_logprobs, top_logprobs_per_token, context_logits,
            context_logits_count, generation_logits, generation_logits_count, error_message, request_id, sequence,
            finish_reason, status, last,
        }
        response::trtllm_request_stats {
            prompt_tokens, cached_tokens, generated_tokens, preemptions, queued_ns, first_token_ns, total_ns,
        }
        executor::trtllm_executor_config {
            struct_size, memory_budget, kv_tokens, isa, max_batch_size, max_batch_tokens, max_sequence_tokens, max_queue,
            max_pending_responses, threads, prefix_reuse, device, refuse_stored_kernels, reserved,
        }
        executor::trtllm_executor_stats {
            iterations, completed, cancelled, expired, failed, preemptions, generated_tokens, requests,
            prefix_lookup_tokens, prefix_hit_tokens, running, waiting, batch_tokens, kv_blocks_used, kv_blocks_cached,
            kv_blocks_free, last_step_ns, busy_ns, memory_bytes, last_step_device_ns, device_busy_ns, device_idle_ns,
        }
    }
}

fn size_of_field<T, F>(_: impl FnOnce(&T) -> &F) -> usize {
    size_of::<F>()
}

fn constants_of_rust() -> Vec<String> {
    let any_request = i64::try_from(executor::TRTLLM_ANY_REQUEST).expect("it is small");
    let constants = [
        ("TRTLLM_ANY_REQUEST", any_request),
        ("TRTLLM_WAIT_FOREVER", executor::TRTLLM_WAIT_FOREVER),
        ("TRTLLM_VERSION_MAJOR", version::TRTLLM_VERSION_MAJOR.into()),
        ("TRTLLM_VERSION_MINOR", version::TRTLLM_VERSION_MINOR.into()),
        ("TRTLLM_VERSION_PATCH", version::TRTLLM_VERSION_PATCH.into()),
        ("TRTLLM_VERSION_NUMBER", version::TRTLLM_VERSION_NUMBER.into()),
    ];
    constants.iter().map(|(name, value)| format!("{name} {value}")).collect()
}

/// The enumerators of `src/capi`, whose values are literals there.
fn enums_of_rust() -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(root().join("src/capi")).expect("the folder exists") {
        let source = std::fs::read_to_string(entry.expect("readable").path()).expect("a source is UTF-8");
        for body in source.split("#[repr(i32)]").skip(1) {
            let name = body.split_once("pub enum ").expect("an enum follows").1.split_once(' ').expect("a name").0;
            let body = &body[..body.find("\n}").expect("an enum ends")];
            let entries = body.lines().filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "));
            lines.extend(entries.map(|(entry, value)| format!("{}_{} {value}", name.to_uppercase(), screaming(entry))));
        }
    }
    lines
}

/// `InvalidHandle` as `INVALID_HANDLE`.
fn screaming(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(c.to_uppercase());
    }
    text
}

/// A program that prints the same lines for all that the headers declare.
fn program(headers: &Headers) -> String {
    let mut text = "#include <stdio.h>\n#include \"trtllm.h\"\nint main(void) {\n".to_owned();
    for each in &headers.structs {
        let name = &each.name;
        writeln!(text, "printf(\"{name} %zu %zu\\n\", sizeof({name}), _Alignof({name}));").expect("a String takes all");
        for field in each.fields.iter().map(|field| &field.name) {
            writeln!(
                text,
                "printf(\"{name}.{field} %zu %zu\\n\", offsetof({name}, {field}), sizeof(({name} *)0)->{field});"
            )
            .expect("a String takes all");
        }
    }
    let values = headers.enums.iter().flat_map(|each| &each.values).chain(&headers.constants);
    for (name, _) in values {
        writeln!(text, "printf(\"{name} %lld\\n\", (long long){name});").expect("a String takes all");
    }
    text + "return 0;\n}\n"
}

#[test]
fn c_and_rust_agree_on_every_struct_field_and_value() {
    let headers = Headers::read(&include());
    let rust: BTreeSet<_> = [structs_of_rust(), enums_of_rust(), constants_of_rust()].concat().into_iter().collect();
    for compiler in compilers() {
        let folder = fresh_folder(&format!("layout-{compiler}"));
        let source = folder.join("layout.c");
        std::fs::write(&source, program(&headers)).expect("a fresh folder is writable");
        let output = succeed(&mut Command::new(compile(compiler, &source, &folder, &[])));
        let c: BTreeSet<_> = output.lines().map(str::to_owned).collect();
        let (only_rust, only_c): (Vec<_>, Vec<_>) = (rust.difference(&c).collect(), c.difference(&rust).collect());
        assert!(rust == c, "{compiler}: only Rust has {only_rust:#?}, only C has {only_c:#?}");
    }
}
