//! What families have beyond the plain decoder, in the shapes that tensor-core kernels take: heads that are normed, scores and
//! logits that are capped, scaled embeddings, windows in some layers, ropes of parts of a head.

use std::path::Path;
use std::sync::Arc;

use trtllm::builder::{BuildOptions, Source};
use trtllm::engine::{Engine, Precision, Target};

use crate::common::{engine_of, logits_of};
use crate::{TOLERANCE, compare, cut, gpu, load, relative, some_tokens};

/// Norms of heads and after a layer's parts round once more each, and a cap takes more of the logits than of their errors:
/// transformers' own bf16 is off by up to 3.2e-2 in fixtures of these families (`golden.rs`), by 1.5e-2 in others.
const FAMILY_TOLERANCE: f64 = 2.0 * TOLERANCE;
const TOKENS: usize = 300;
const VOCABULARY: usize = 640;

struct Family {
    name: &'static str,
    /// Fields beside those of every family.
    fields: &'static str,
    /// Values that must show: each replaced by another moves the logits by more than the tolerance.
    shown: &'static [(&'static str, &'static str)],
}

const FAMILIES: &[Family] = &[
    Family {
        name: "Mistral",
        fields: r#""num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 128, "sliding_window": 48"#,
        shown: &[(r#""sliding_window": 48"#, r#""sliding_window": null"#)],
    },
    Family {
        name: "Qwen2",
        fields: r#""num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64, "use_sliding_window": true,
            "sliding_window": 17, "max_window_layers": 1"#,
        shown: &[(r#""use_sliding_window": true"#, r#""use_sliding_window": false"#)],
    },
    Family {
        name: "Qwen3",
        fields: r#""num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 128"#,
        shown: &[(r#""head_dim": 128"#, r#""head_dim": 128, "rope_theta": 100.0"#)],
    },
    Family {
        name: "Gemma2",
        fields: r#""num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 256, "query_pre_attn_scalar": 1.0,
            "attn_logit_softcapping": 2.0, "final_logit_softcapping": 1.5, "sliding_window": 32"#,
        shown: &[
            (r#""attn_logit_softcapping": 2.0"#, r#""attn_logit_softcapping": null"#),
            (r#""final_logit_softcapping": 1.5"#, r#""final_logit_softcapping": null"#),
            (r#""sliding_window": 32"#, r#""sliding_window": 4096"#),
        ],
    },
    Family {
        name: "Gemma3",
        fields: r#""num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "query_pre_attn_scalar": 4096.0,
            "sliding_window": 20, "sliding_window_pattern": 3, "rope_local_base_freq": 50.0"#,
        shown: &[
            (r#""rope_local_base_freq": 50.0"#, r#""rope_local_base_freq": 1000000.0"#),
            (r#""sliding_window": 20"#, r#""sliding_window": 4096"#),
        ],
    },
    Family {
        name: "Phi3",
        fields: r#""num_attention_heads": 4, "num_key_value_heads": 4, "partial_rotary_factor": 0.5"#,
        shown: &[(r#""partial_rotary_factor": 0.5"#, r#""partial_rotary_factor": 1.0"#)],
    },
];

/// Dummy weights with a configuration.
fn source(family: &Family, fields: &str, folder: &Path) -> Source {
    let text = format!(
        r#"{{"architectures": ["{}ForCausalLM"], "vocab_size": {VOCABULARY}, "hidden_size": 512, "intermediate_size": 384,
        "num_hidden_layers": 3, "max_position_embeddings": 512, "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2,
        "pad_token_id": 0, "torch_dtype": "bfloat16", {fields}}}"#,
        family.name
    );
    let config = folder.join("config.json");
    std::fs::write(&config, text).expect("the folder takes it");
    Source::Dummy { config, seed: 23 }
}

fn engine(source: &Source, target: Target, invariant: bool, kv_precision: Option<Precision>) -> Arc<Engine> {
    let invariant = invariant && target == Target::Cuda;
    let precision = Some(Precision::Bf16);
    engine_of(
        source,
        &BuildOptions { target, precision, kv_precision, invariant, tune: false, ..BuildOptions::default() },
    )
}

/// What the comparisons below would notice.
#[test]
fn every_part_of_a_family_shows() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tokens = some_tokens(100, VOCABULARY, 31);
    for family in FAMILIES {
        let logits = |fields: &str| {
            let engine = engine(&source(family, fields, folder.path()), Target::Cpu, false, None);
            logits_of(&mut *load(&engine, tokens.len(), 1), engine.plan().kv_groups.len(), &tokens, &[tokens.len()])
        };
        let whole = logits(family.fields);
        for (part, other) in family.shown {
            assert!(family.fields.contains(part), "{}: {part}", family.name);
            let moved = relative(&logits(&family.fields.replace(part, other)), &whole);
            assert!(moved > 3.0 * FAMILY_TOLERANCE, "{}: {part} moves logits by {moved:.2e}", family.name);
            println!("{}: without {part} logits move by {moved:.2e}", family.name);
        }
    }
}

#[test]
fn families_match_the_cpu() {
    if !gpu() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    for family in FAMILIES {
        let source = source(family, family.fields, folder.path());
        let tokens = some_tokens(TOKENS, VOCABULARY, 21);
        for (invariant, kv_precision) in [(false, None), (true, None), (false, Some(Precision::Fp8))] {
            let engines = [Target::Cuda, Target::Cpu].map(|target| engine(&source, target, invariant, kv_precision));
            // An e4m3 cache holds three bits of a mantissa; both devices round to the same codes but for a few.
            let tolerance = if kv_precision.is_some() { 3.0 * FAMILY_TOLERANCE } else { FAMILY_TOLERANCE };
            for pieces in [vec![], vec![1; 70], vec![1, 1, 5, 130, 40], vec![290, 1, 1, 1]] {
                let name = format!("{}, invariant {invariant}, cache {kv_precision:?}", family.name);
                compare(&name, &engines, &tokens, &cut(TOKENS, &pieces), tolerance);
            }
        }
    }
}
