//! A small engine, and what happens to it when its bytes, its plan or its disk go wrong.

mod corruption;
mod mutation;
mod storage;
mod validation;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::error::Result;
use crate::types::{AttentionSpec, DType, Op};

const MODES: [LoadMode; 2] = [LoadMode::Map, LoadMode::Read];

/// A model of one layer that is an embedding, attention and a head.
fn small_plan() -> Plan {
    let attention =
        AttentionSpec { group: 0, layer: 0, heads: 2, kv_heads: 1, head_dim: 2, scale: 0.5, soft_cap: None };
    let value = |name: &str, rows, columns, slot| Value { name: name.into(), rows, columns, slot, dtype: DType::F32 };
    let view = |value, start, columns| View { value, start, columns };
    let step = |name: &str, op, inputs: &[View], weights: &[usize], outputs: &[View]| Step {
        name: name.into(),
        op,
        inputs: inputs.to_vec(),
        weights: weights.to_vec(),
        outputs: outputs.to_vec(),
        fused: vec![name.into()],
    };
    Plan {
        target: Target::Cpu,
        precision: Precision::F32,
        invariant: false,
        model: ModelInfo {
            architecture: "Test".into(),
            vocab_size: 5,
            hidden_size: 4,
            layers: 1,
            max_positions: 8,
            eos_token_ids: vec![1],
            bos_token_id: None,
        },
        values: vec![
            value("x", Rows::Tokens, 8, 0),
            value("y", Rows::Tokens, 4, 1),
            value("picked", Rows::LogitRows, 4, 0),
            value("logits", Rows::LogitRows, 5, 1),
        ],
        slots: vec![
            Slot { bytes_per_token: 32, bytes_per_logit_row: 16 },
            Slot { bytes_per_token: 16, bytes_per_logit_row: 20 },
        ],
        weights: vec![
            weight("table", &[5, 8], Packing::RowMajor, 0),
            weight("gain", &[4], Packing::RowMajor, 256),
            weight("head", &[5, 4], Packing::Panels, 4096),
        ],
        kv_groups: vec![KvGroup { layers: vec![0], kv_heads: 1, head_dim: 2, dtype: DType::F32, window: None }],
        steps: vec![
            step("x", Op::Embedding { scale: 1.0 }, &[], &[0], &[view(0, 0, 8)]),
            step("cache", Op::CacheAppend(attention), &[view(0, 4, 2), view(0, 6, 2)], &[], &[]),
            step("y", Op::Attention(attention), &[view(0, 0, 4)], &[], &[view(1, 0, 4)]),
            step("picked", Op::GatherRows, &[view(1, 0, 4)], &[], &[view(2, 0, 4)]),
            step("logits", Op::Linear { bias: false, activation: None }, &[view(2, 0, 4)], &[2], &[view(3, 0, 5)]),
        ],
        outputs: vec![Output { name: "logits".into(), value: 3 }],
    }
}

/// A weight of f32 at `offset` whose bytes are [`content`].
fn weight(name: &str, shape: &[usize], packing: Packing, offset: u64) -> WeightSpec {
    let mut spec = WeightSpec {
        name: name.into(),
        dtype: DType::F32,
        shape: shape.to_vec(),
        packing,
        scale: None,
        offset,
        bytes: 0,
        checksum: String::new(),
    };
    spec.bytes = spec.packed_bytes().expect("a small shape");
    spec.checksum = format!("{:016x}", xxh3_64(&content(&spec)));
    spec
}

fn content(spec: &WeightSpec) -> Vec<u8> {
    let seed = spec.name.len() as u8;
    (0..spec.bytes).map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn texts() -> [Text<'static>; 5] {
    [
        (SectionKind::Config, b"{}".as_slice()),
        (SectionKind::Tokenizer, b"a tokenizer".as_slice()),
        (SectionKind::ChatTemplate, b"a template".as_slice()),
        (SectionKind::GenerationConfig, b"".as_slice()),
        (SectionKind::Record, br#"{"library": "a version"}"#.as_slice()),
    ]
}

fn write_on(storage: &dyn Storage, path: &Path, plan: &Plan) -> Result<()> {
    let mut writer = EngineWriter::create_on(storage, path)?;
    for spec in &plan.weights {
        writer.begin_weight(spec.packing)?;
        let content = content(spec);
        let (head, tail) = content.split_at(content.len() / 3);
        writer.write(head)?;
        writer.write(tail)?;
        let placement = writer.end_weight()?;
        assert_eq!((placement.offset, placement.bytes), (spec.offset, spec.bytes));
        assert_eq!(placement.checksum, spec.checksum);
    }
    writer.finish(plan, &texts())
}

/// The small engine in a directory of its own.
struct Fixture {
    directory: tempfile::TempDir,
    path: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("small.engine");
        write_on(&Disk, &path, &small_plan()).expect("writes");
        Self { directory, path }
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).expect("reads")
    }

    fn open(&self, mode: LoadMode) -> Result<Engine> {
        Engine::open(&self.path, mode, &mut |_| ControlFlow::Continue(()))
    }
}

#[test]
fn an_engine_comes_back_as_it_was_written() {
    let fixture = Fixture::new();
    for mode in MODES {
        let engine = fixture.open(mode).expect("opens");
        let plan = small_plan();
        assert_eq!(*engine.plan(), plan);
        assert_eq!(engine.mode(), mode);
        for (index, spec) in plan.weights.iter().enumerate() {
            assert_eq!(engine.weight(index), content(spec));
            assert_eq!(engine.weight(index).as_ptr() as usize % 256, 0);
        }
        assert_eq!(engine.weights_bytes() as u64, plan.weights_bytes());
        assert_eq!(engine.config(), Some(b"{}".as_slice()));
        assert_eq!(engine.tokenizer_json(), Some(b"a tokenizer".as_slice()));
        assert_eq!(engine.chat_template(), Some(b"a template".as_slice()));
        assert_eq!(engine.generation_config(), Some(b"".as_slice()));
        assert_eq!(engine.tokenizer_config(), None);
    }
}

#[test]
fn inspection_tells_every_step_without_the_weights() {
    let fixture = Fixture::new();
    let mut bytes = fixture.bytes();
    bytes[HEADER_BYTES] ^= 1;
    std::fs::write(&fixture.path, bytes).expect("writes");
    let text = inspect(&fixture.path).expect("the weights are not looked at");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["steps"].as_array().map(Vec::len), Some(5));
    assert_eq!(json["steps"][4]["op"]["kind"], "linear");
    assert_eq!(json["steps"][4]["memory"]["weight_bytes"], 512);
    assert_eq!(json["steps"][4]["precision"], "f32");
    assert_eq!(json["steps"][2]["fused"][0], "y");
    assert_eq!(json["kv_groups"][0]["bytes_per_token"], 16);
    assert_eq!(json["totals"]["workspace_bytes_per_token"], 48);
    assert_eq!(json["sections"][0]["kind"], "weights");
    assert_eq!(json["sections"][0]["checksum"], serde_json::Value::Null);
    let config = format!("{:016x}", xxh3_64(b"{}"));
    assert_eq!((&json["sections"][2]["kind"], &json["sections"][2]["checksum"]), (&"config".into(), &config.into()));
    assert_eq!(json["steps"][4]["weights"][0]["index"], 2);
    assert_eq!(json["weights"][2]["checksum"], small_plan().weights[2].checksum);
    assert_eq!((&json["steps"][3]["outputs"][0]["index"], &json["values"][2]["slot"]), (&2.into(), &0.into()));
    assert_eq!(json["slots"][1]["bytes_per_logit_row"], 20);
    assert_eq!(json["outputs"][0]["index"], 3);
    assert_eq!(json["build"]["library"], "a version");
}

#[test]
fn a_record_that_is_no_json_is_left_out() {
    let header = Header { target: Target::Cpu, sections: vec![] };
    for record in [None, Some(b"{".as_slice()), Some(b"\xff")] {
        let text = super::inspect::describe(&header, &small_plan(), record);
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json.get("build"), Some(&serde_json::Value::Null));
    }
}

#[test]
fn loading_can_be_cancelled_and_ends_with_its_progress() {
    let fixture = Fixture::new();
    for mode in MODES {
        let error = Engine::open(&fixture.path, mode, &mut |_| ControlFlow::Break(())).expect_err("cancelled");
        assert_eq!(error.status(), crate::Status::Cancelled);
        let mut last = 0.0;
        Engine::open(&fixture.path, mode, &mut |fraction| {
            last = fraction;
            ControlFlow::Continue(())
        })
        .expect("opens");
        assert_eq!(last, 1.0);
    }
}

#[test]
fn targets_and_absent_types_have_their_codes() {
    let header = Header { target: Target::Cuda, sections: vec![] };
    assert_eq!(header.encode()[32..36], 2u32.to_le_bytes());
    // Plans of before embeddings had scales and scores caps.
    let op = r#"{"kind": "embedding"}"#;
    assert_eq!(serde_json::from_str::<Op>(op).expect("parses"), Op::Embedding { scale: 1.0 });
    let op = r#"{"kind": "attention", "group": 0, "layer": 0, "heads": 2, "kv_heads": 1, "head_dim": 2, "scale": 0.5}"#;
    let plain = AttentionSpec { group: 0, layer: 0, heads: 2, kv_heads: 1, head_dim: 2, scale: 0.5, soft_cap: None };
    assert_eq!(serde_json::from_str::<Op>(op).expect("parses"), Op::Attention(plain));
    // Plans of before values had types: f32.
    let json = r#"{"name": "x", "rows": "tokens", "columns": 1, "slot": 0}"#;
    assert_eq!(serde_json::from_str::<Value>(json).expect("parses").dtype, DType::F32);
}
