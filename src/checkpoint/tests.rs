use std::path::Path;

use super::*;
use crate::Status;
use crate::error::{Error, Result};
use crate::types::DType;

struct Checkpoint(tempfile::TempDir);

impl Checkpoint {
    fn new() -> Self {
        let checkpoint = Self(tempfile::tempdir().expect("a directory"));
        checkpoint.file("config.json", b"{}");
        checkpoint
    }

    fn file(&self, name: &str, content: &[u8]) {
        std::fs::write(self.0.path().join(name), content).expect("writes");
    }

    fn open(&self) -> Result<Folder> {
        Folder::open(self.0.path())
    }

    fn refused(&self) -> Error {
        self.open().expect_err("the folder is refused")
    }
}

/// A safetensors file of a header text and data.
fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn tensor(name: &str, dtype: &str, shape: &str, start: usize, end: usize) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
}

fn object(entries: &[String]) -> String {
    format!("{{{}}}", entries.join(","))
}

#[test]
fn tensors_of_every_float_type_are_read_by_blocks() {
    let values: Vec<f32> = (0..12).map(|index| index as f32 * 0.5 - 2.0).collect();
    let f32s: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let f16s: Vec<u8> = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    let bf16s: Vec<u8> = values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
    let header = object(&[
        r#""__metadata__":{"format":"pt"}"#.into(),
        tensor("full", "F32", "[3,4]", 0, 48),
        tensor("half", "F16", "[3,4]", 48, 72),
        tensor("brain", "BF16", "[12]", 72, 96),
        tensor("ids", "I64", "[1]", 96, 104),
        tensor("none", "F32", "[0,4]", 104, 104),
    ]);
    let checkpoint = Checkpoint::new();
    let file = safetensors(&header, &[f32s, f16s, bf16s, vec![0; 8]].concat());
    checkpoint.file("model.safetensors", &file);
    let folder = checkpoint.open().expect("opens");
    let memory = Folder::in_memory(folder.config.clone(), file).expect("opens");
    for name in ["full", "half"] {
        let mut blocks = [[0.0; 4], [1.0; 4]];
        folder.read(name, 1..3, 1..3, &mut blocks[0]).expect("reads");
        memory.read(name, 1..3, 1..3, &mut blocks[1]).expect("reads");
        assert_eq!(blocks[0], blocks[1]);
    }
    assert_eq!(folder.shape("half"), Some(vec![3, 4]));
    assert_eq!(folder.shape("missing"), None);
    for name in ["full", "half"] {
        let mut block = [0.0; 4];
        folder.read(name, 1..3, 1..3, &mut block).expect("reads");
        assert_eq!(block, [values[5], values[6], values[9], values[10]]);
        let mut rows = [0.0; 8];
        folder.read(name, 1..3, 0..4, &mut rows).expect("reads");
        assert_eq!(rows, values[4..]);
    }
    let mut vector = [0.0; 5];
    folder.read("brain", 2..7, 0..1, &mut vector).expect("reads");
    assert_eq!(vector, values[2..7]);
    let error = folder.read("ids", 0..1, 0..1, &mut [0.0]).expect_err("integers");
    assert!(error.status() == Status::Unsupported && error.to_string().contains("ids"), "{error}");
    for (rows, columns) in [(2..4, 0..1), (0..1, 4..5)] {
        assert_eq!(
            folder.read("full", rows, columns, &mut [0.0]).expect_err("outside").status(),
            Status::InvalidCheckpoint
        );
    }
    assert_eq!(folder.read("full", 0..1, 0..4, &mut [0.0]).expect_err("too small").status(), Status::InvalidArgument);
}

#[test]
fn long_half_precision_rows_are_converted_whole() {
    let count = 1300;
    let values: Vec<f32> = (0..count).map(|index| index as f32).collect();
    let data: Vec<u8> = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    let checkpoint = Checkpoint::new();
    let header = object(&[tensor("w", "F16", "[1300]", 0, 2600)]);
    checkpoint.file("model.safetensors", &safetensors(&header, &data));
    let mut out = vec![0.0; count];
    let folder = checkpoint.open().expect("opens");
    folder.read("w", 0..count, 0..1, &mut out).expect("reads");
    assert_eq!(out, values);
    assert_eq!(folder.dtype(), Some(DType::F16));
}

#[test]
fn malformed_safetensors_are_refused_with_the_tensors_name() {
    let two = |second: String| object(&[tensor("a", "F32", "[2]", 0, 8), second]);
    let table: &[(&str, String, usize)] = &[
        ("hole", two(tensor("b", "F32", "[1]", 12, 16)), 16),
        ("overlap", two(tensor("b", "F32", "[2]", 4, 12)), 12),
        ("overlap of equals", two(tensor("b", "F32", "[2]", 0, 8)), 8),
        ("hole at the start", object(&[tensor("b", "F32", "[1]", 4, 8)]), 8),
        ("trailing bytes", two(tensor("b", "F32", "[1]", 8, 12)), 16),
        ("outside the file", two(tensor("b", "F32", "[2]", 8, 16)), 12),
        ("backwards", two(tensor("b", "F32", "[1]", 8, 4)), 8),
        ("end overflows", two(tensor("b", "F32", "[1]", 8, usize::MAX)), 12),
        ("shape and bytes differ", two(tensor("b", "F32", "[2]", 8, 12)), 12),
        ("shape overflows", two(tensor("b", "F32", "[9223372036854775807,9223372036854775807]", 8, 12)), 12),
        ("shape overflows to zero", two(tensor("b", "F32", "[4611686018427387904,16]", 8, 8)), 8),
        ("negative extent", two(tensor("b", "F32", "[-1]", 8, 12)), 12),
        ("unknown dtype", two(tensor("b", "F31", "[1]", 8, 12)), 12),
        ("no offsets", two(r#""b":{"dtype":"F32","shape":[1]}"#.into()), 8),
        ("duplicate", two(tensor("a", "F32", "[1]", 8, 12)), 12),
        ("not an object", "[]".into(), 0),
        ("not JSON", "{".into(), 0),
        ("deep", "[".repeat(100_000), 0),
    ];
    for (what, header, data) in table {
        let checkpoint = Checkpoint::new();
        checkpoint.file("model.safetensors", &safetensors(header, &vec![0; *data]));
        let error = checkpoint.refused();
        assert_eq!(error.status(), Status::InvalidCheckpoint, "{what}");
        assert!(error.to_string().contains("model.safetensors"), "{what}: {error}");
        if header.contains(r#""b""#) && *what != "trailing bytes" && !what.starts_with("overlap of") {
            assert!(error.to_string().contains("`b`"), "{what}: {error}");
        }
    }
}

#[test]
fn impossible_header_lengths_are_refused_before_anything_is_read() {
    for length in [u64::MAX, u64::MAX - 7, 1 << 40, (100 << 20) + 1, 100 << 20, 3] {
        let checkpoint = Checkpoint::new();
        checkpoint.file("model.safetensors", &[&length.to_le_bytes(), b"{}".as_slice()].concat());
        assert_eq!(checkpoint.refused().status(), Status::InvalidCheckpoint, "{length}");
    }
    for content in [b"".as_slice(), b"1234567"] {
        let checkpoint = Checkpoint::new();
        checkpoint.file("model.safetensors", content);
        assert_eq!(checkpoint.refused().status(), Status::InvalidCheckpoint);
    }
}

#[test]
fn truncations_and_flips_of_a_file_never_panic() {
    let header = object(&[tensor("a", "F32", "[2,2]", 0, 16), tensor("b", "BF16", "[3]", 16, 22)]);
    let whole = safetensors(&header, &[7; 22]);
    let checkpoint = Checkpoint::new();
    let parses = |content: &[u8]| {
        checkpoint.file("model.safetensors", content);
        checkpoint.open().map(|folder| {
            for (name, shape) in folder.tensors() {
                let (rows, columns) = source::matrix(shape);
                let mut out = vec![0.0; rows * columns];
                let _ = folder.read(name, 0..rows, 0..columns, &mut out);
            }
        })
    };
    parses(&whole).expect("opens");
    for length in 0..whole.len() {
        assert_eq!(parses(&whole[..length]).expect_err("truncated").status(), Status::InvalidCheckpoint);
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            let _ = parses(&flipped);
        }
    }
}

/// Two shards with tensor `a` and `b`, under an index of the given map.
fn sharded(weight_map: &str) -> Checkpoint {
    let checkpoint = Checkpoint::new();
    for name in ["a", "b"] {
        let header = object(&[tensor(name, "F32", "[1]", 0, 4)]);
        checkpoint.file(&format!("{name}.safetensors"), &safetensors(&header, &1.5f32.to_le_bytes()));
    }
    checkpoint.file("model.safetensors.index.json", format!(r#"{{"weight_map":{{{weight_map}}}}}"#).as_bytes());
    checkpoint
}

#[test]
fn shards_are_read_through_their_index() {
    let checkpoint = sharded(r#""a":"a.safetensors","b":"b.safetensors""#);
    let folder = checkpoint.open().expect("opens");
    assert_eq!(folder.tensors().count(), 2);
    let mut out = [0.0];
    folder.read("b", 0..1, 0..1, &mut out).expect("reads");
    assert_eq!(out, [1.5]);
}

#[test]
fn wrong_indices_are_refused() {
    for (map, culprit) in [
        (r#""a":"../a.safetensors""#, "../a.safetensors"),
        (r#""a":"/etc/passwd""#, "/etc/passwd"),
        (r#""a":"sub/a.safetensors""#, "sub/a.safetensors"),
        (r#""a":"..""#, ".."),
        (r#""a":"""#, "plain file name"),
        (r#""a":"b.safetensors""#, "`a`"),
        (r#""a":"a.safetensors","a":"b.safetensors""#, "`a`"),
        (r#""a":7"#, "index.json"),
    ] {
        let error = sharded(map).refused();
        assert_eq!(error.status(), Status::InvalidCheckpoint, "{map}");
        assert!(error.to_string().contains(culprit), "{map}: {error}");
    }
    let missing = sharded(r#""a":"a.safetensors","c":"c.safetensors""#).refused();
    assert_eq!(missing.status(), Status::InvalidCheckpoint);
    assert!(missing.to_string().contains("`c`") && missing.to_string().contains("c.safetensors"), "{missing}");
    let checkpoint = sharded(r#""a":"a.safetensors","b":"b.safetensors""#);
    let both = object(&[tensor("a", "F32", "[1]", 0, 4), tensor("b", "F32", "[1]", 4, 8)]);
    checkpoint.file("b.safetensors", &safetensors(&both, &[0; 8]));
    let error = checkpoint.refused();
    assert!(error.status() == Status::InvalidCheckpoint && error.to_string().contains("`a`"), "{error}");
}

#[test]
fn other_formats_are_named() {
    for (file, content, format) in [
        ("pytorch_model.bin", b"PK".as_slice(), "pickle"),
        ("model.pt", b"PK", "pickle"),
        ("model.pth", b"PK", "pickle"),
        ("model-q4.gguf", b"GGUF\x03", "GGUF"),
        ("weights", b"GGUF\x03", "GGUF"),
    ] {
        let checkpoint = Checkpoint::new();
        checkpoint.file(file, content);
        for error in [checkpoint.refused(), Folder::open(&checkpoint.0.path().join(file)).expect_err("refused")] {
            assert_eq!(error.status(), Status::UnsupportedFormat, "{file}");
            assert!(error.to_string().contains(file) && error.to_string().contains(format), "{error}");
        }
    }
    let checkpoint = Checkpoint::new();
    checkpoint.file("model.safetensors", b"GGUF\x03\0\0\0\0\0\0\0");
    assert_eq!(checkpoint.refused().status(), Status::UnsupportedFormat);
}

#[test]
fn missing_and_oversized_files_are_named() {
    assert_eq!(Folder::open(Path::new("/nowhere/at/all")).expect_err("missing").status(), Status::NotFound);
    let checkpoint = Checkpoint::new();
    let error = checkpoint.refused();
    assert!(error.status() == Status::NotFound && error.to_string().contains("model.safetensors"), "{error}");
    checkpoint.file("model.safetensors", &safetensors("{}", b""));
    checkpoint.open().expect("an empty checkpoint is one");
    checkpoint.file("chat_template.jinja", &vec![b' '; (256 << 10) + 1]);
    let error = checkpoint.refused();
    assert!(error.status() == Status::InvalidCheckpoint && error.to_string().contains("chat_template"), "{error}");
    std::fs::remove_file(checkpoint.0.path().join("chat_template.jinja")).expect("removes");
    std::fs::remove_file(checkpoint.0.path().join("config.json")).expect("removes");
    let error = checkpoint.refused();
    assert!(error.status() == Status::NotFound && error.to_string().contains("config.json"), "{error}");
    checkpoint.file("other.safetensors", &safetensors("{}", b""));
    std::fs::remove_file(checkpoint.0.path().join("model.safetensors")).expect("removes");
    checkpoint.file("config.json", b"{}");
    checkpoint.open().expect("a lone safetensors file of any name");
    checkpoint.file("another.safetensors", &safetensors("{}", b""));
    assert_eq!(checkpoint.refused().status(), Status::InvalidCheckpoint);
}
