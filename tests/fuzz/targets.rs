//! One function for each parser of bytes that strangers wrote. `tests/mutations.rs` calls them with seeded mutations,
//! `tests/fuzz/libfuzzer.rs` with what libFuzzer finds. Each says whether it accepted the input, and panics when the
//! library broke a promise: a panic, an internal error, a status that this parser does not have, two answers that differ.
#![allow(dead_code)] // Each program uses its part.

mod requests;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use tempfile::TempDir;
use trtllm::checkpoint::{Folder, ModelConfig, WeightSource};
use trtllm::engine::{Engine, HEADER_BYTES, Header, Limits, LoadMode, Section, SectionKind, inspect, verify};
use trtllm::models::wanted_tensors;
use trtllm::runtime::{Batch, BatchRow, Forward, MemoryPlan, Session, open_device};
use trtllm::sampling::SamplingParams;
use trtllm::text::{ChatTemplate, Detokenizer, Tokenizer};
use trtllm::{Result, Status};
use xxhash_rust::xxh3::xxh3_64;

pub use requests::run as requests;

const ENGINE: &[u8] = include_bytes!("corpus/engine/llama.engine");
const CONFIG: &[u8] = include_bytes!("corpus/config/llama.json");
const TOKENIZER: &[u8] = include_bytes!("corpus/tokenizer/byte_level.json");
const TEMPLATE: &[u8] = b"{% for m in messages %}<{{ m.role }}> {{ m['content'] }}{% endfor %}<|end|>";
/// A template that walks through everything it is given.
const TOOLS: &str = "{% for m in messages %}{{ m.role|upper }}{% for c in m.tool_calls %}{{ c.function.name }}\
    {{ c.function.arguments|tojson(indent=2) }}{% endfor %}{% if m.content is string %}{{ m.content|trim }}\
    {% else %}{% for part in m.content %}{{ part.text or part['type'] }}{% endfor %}{% endif %}{% endfor %}{{ tools|tojson }}";
/// What stands between template and messages in an input of [`template`].
const MESSAGES: &str = "\n=== messages ===\n";
/// Tensors and workspaces above this are not touched: the subject is what is refused, not how fast a machine is.
const SMALL: usize = 1 << 20;

/// An engine file in memory; all its checksums are made right first, else nothing behind them would be reached.
pub fn engine_in_memory(bytes: &[u8]) -> bool {
    check(&with_checksums(bytes))
}

/// The same, and opened from a file.
pub fn engine(bytes: &[u8]) -> bool {
    open(&with_checksums(bytes))
}

/// A plan as JSON, in an engine in memory whose other sections are whole.
pub fn plan_in_memory(bytes: &[u8]) -> bool {
    check(&with_section(ENGINE, SectionKind::Plan, bytes))
}

/// The same, and opened from a file.
pub fn plan(bytes: &[u8]) -> bool {
    open(&with_section(ENGINE, SectionKind::Plan, bytes))
}

/// The one weight file of a checkpoint, in memory.
pub fn safetensors_in_memory(bytes: &[u8]) -> bool {
    read_tensors(Folder::in_memory(CONFIG.to_vec(), bytes.to_vec()))
}

/// The same, and in a folder.
pub fn safetensors(bytes: &[u8]) -> bool {
    let accepted = read_folder(&[("config.json", CONFIG), ("model.safetensors", bytes)]);
    assert_eq!(accepted, safetensors_in_memory(bytes));
    accepted
}

/// The index of a checkpoint folder with the shard `a.safetensors`.
pub fn safetensors_index(bytes: &[u8]) -> bool {
    let shard = include_bytes!("corpus/safetensors/floats.safetensors");
    read_folder(&[("config.json", CONFIG), ("model.safetensors.index.json", bytes), ("a.safetensors", shard)])
}

/// `config.json`, and the tensors that the model would ask for.
pub fn config(bytes: &[u8]) -> bool {
    let statuses = &[Status::InvalidConfig, Status::Unsupported];
    let Some(config) = settle(ModelConfig::parse(bytes, None), statuses) else {
        return false;
    };
    config.layers > 1000 || settle(wanted_tensors(&config), &[Status::Unsupported, Status::InvalidConfig]).is_some()
}

/// `generation_config.json`, as the builder and as the executor read it.
pub fn generation_config(bytes: &[u8]) -> bool {
    let defaults = settle(SamplingParams::from_generation_config(bytes), &[Status::InvalidConfig]);
    let config = settle(ModelConfig::parse(CONFIG, Some(bytes)), &[Status::InvalidConfig]);
    defaults.is_some() && config.is_some()
}

/// `tokenizer.json`; a tokenizer that loads also encodes, decodes and streams.
pub fn tokenizer(bytes: &[u8]) -> bool {
    let invalid = &[Status::InvalidTokenizer];
    let Some(tokenizer) = settle(Tokenizer::from_json(bytes, None), invalid) else {
        return false;
    };
    let ids = settle(tokenizer.encode("hello  world é 😀 <|end|> ab", true), invalid);
    let mut ids: Vec<u32> = ids.unwrap_or_default().into_iter().take(64).collect();
    ids.extend([0, 1, tokenizer.vocab_size() as u32, u32::MAX]);
    settle(tokenizer.decode(&ids, false), invalid);
    if let Some(mut detokenizer) = settle(Detokenizer::new(tokenizer, &ids[..1], true), invalid) {
        for id in &ids {
            settle(detokenizer.push(*id).map(str::len), invalid);
        }
        settle(detokenizer.flush().map(str::len), invalid);
    }
    true
}

/// `tokenizer_config.json`: special tokens and template.
pub fn tokenizer_config(bytes: &[u8]) -> bool {
    let statuses = &[Status::InvalidTokenizer, Status::InvalidTemplate];
    let template = settle(ChatTemplate::find(Some(bytes), None), statuses);
    if let Some(Some(source)) = &template {
        settle(ChatTemplate::new(source, None, None), statuses);
    }
    // One without regular expressions, whose compilation takes most of the time.
    let json = include_bytes!("corpus/tokenizer/word_piece.json");
    let tokenizer = settle(Tokenizer::from_json(json, Some(bytes)), statuses);
    template.is_some() && tokenizer.is_some()
}

/// A chat template, then [`MESSAGES`] and the messages as JSON.
pub fn template(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let (source, messages) = text.split_once(MESSAGES).unwrap_or((&text, "[]"));
    let Ok(messages) = serde_json::from_str(messages) else {
        return false;
    };
    let invalid = &[Status::InvalidTemplate, Status::InvalidArgument];
    let Some(template) = settle(ChatTemplate::new(source, Some("<s>"), Some("</s>")), invalid) else {
        return false;
    };
    [true, false].map(|prompt| settle(template.render(&messages, Some(&messages), prompt), invalid)) != [None, None]
}

/// Chat messages as JSON, which are also the tools, in templates as families have them.
pub fn messages(bytes: &[u8]) -> bool {
    static TEMPLATES: LazyLock<Vec<ChatTemplate>> = LazyLock::new(|| {
        let sources = [include_str!("corpus/template/llama3.txt"), include_str!("corpus/template/macros.txt"), TOOLS];
        let source = |text: &str| text.split_once(MESSAGES).map_or(text.to_owned(), |(source, _)| source.to_owned());
        let template = |text| ChatTemplate::new(&source(text), Some("<s>"), None).expect("a seed is a template");
        sources.map(template).into()
    });
    let Ok(messages) = serde_json::from_slice(bytes) else {
        return false;
    };
    let invalid = &[Status::InvalidTemplate, Status::InvalidArgument];
    let rendered = TEMPLATES.iter().map(|template| settle(template.render(&messages, Some(&messages), true), invalid));
    rendered.filter(Option::is_some).count() > 0
}

/// The value of a result whose error, if it is one, has one of `statuses` and names a culprit and a reason.
fn settle<T>(result: Result<T>, statuses: &[Status]) -> Option<T> {
    let error = match result {
        Ok(value) => return Some(value),
        Err(error) => error,
    };
    assert!(statuses.contains(&error.status()), "{:?}: {error}", error.status());
    assert!(error.to_string().chars().any(char::is_alphanumeric));
    None
}

/// What an engine that is none is refused with.
const NO_ENGINE: &[Status] = &[Status::Corrupt, Status::UnsupportedFormat, Status::UnsupportedVersion];

/// Checks an engine in memory.
fn check(bytes: &[u8]) -> bool {
    settle(verify(bytes), NO_ENGINE).is_some()
}

/// Opens a file in both modes, which agree with each other and with [`check`], and inspects; what opens also runs.
fn open(bytes: &[u8]) -> bool {
    let folder = Scratch::new();
    let path = folder.write("fuzz.engine", bytes);
    let [mapped, read] = [LoadMode::Map, LoadMode::Read]
        .map(|mode| settle(Engine::open(&path, mode, &mut |_| ControlFlow::Continue(())), NO_ENGINE));
    assert_eq!([mapped.is_some(), check(bytes)], [read.is_some(); 2]);
    let description = settle(inspect(&path), NO_ENGINE);
    let Some(engine) = read else {
        return false;
    };
    assert_eq!(description, Some(engine.inspect_json()));
    run(Arc::new(engine));
    true
}

/// Two tokens through an engine, if that takes little memory.
fn run(engine: Arc<Engine>) {
    let limits = Limits { tokens: 2, logit_rows: 2, rows: 1, kv_blocks: 1 };
    let statuses = &[Status::Corrupt, Status::Unsupported, Status::OutOfMemory, Status::InvalidArgument];
    let plan = engine.plan();
    let Some(memory) = settle(MemoryPlan::new(plan, &limits), statuses) else {
        return;
    };
    if memory.cache.iter().fold(memory.workspace, |sum, bytes| sum.saturating_add(*bytes)) > SMALL {
        return;
    }
    let groups = plan.kv_groups.len();
    let batch = Batch {
        tokens: vec![0, 1],
        positions: vec![0, 1],
        rows: vec![BatchRow { start: 0, len: 2, context: 0 }],
        tables: vec![0; groups],
        table_starts: (0..=groups).collect(),
        logit_rows: vec![0, 1],
        ..Batch::default()
    };
    let Some(device) = settle(open_device(1, None), &[Status::DeviceUnavailable]) else { return };
    if let Some(mut session) = settle(Session::new(engine, device, limits), statuses) {
        settle(session.forward(&batch).map(<[f32]>::len), statuses);
    }
}

/// Opens a folder of these files and reads its small tensors.
fn read_folder(files: &[(&str, &[u8])]) -> bool {
    let folder = Scratch::new();
    files.iter().for_each(|(name, content)| drop(folder.write(name, content)));
    read_tensors(Folder::open(folder.0.path()))
}

fn read_tensors(checkpoint: Result<Folder>) -> bool {
    let statuses = &[Status::InvalidCheckpoint, Status::UnsupportedFormat, Status::Unsupported];
    let Some(checkpoint) = settle(checkpoint, statuses) else {
        return false;
    };
    for (name, shape) in checkpoint.tensors() {
        let (rows, columns) = shape.split_first().map_or((1, 1), |(rows, rest)| (*rows, rest.iter().product()));
        if rows * columns <= SMALL {
            let mut values = vec![0.0; rows * columns];
            settle(checkpoint.read(name, 0..rows, 0..columns, &mut values), statuses);
        }
    }
    true
}

/// A temporary folder of one input.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).expect("the folder is writable");
        path
    }
}

/// The file with the checksums of its header and of every section that lies in it made right. Places: `src/engine/format.rs`.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut file = bytes.to_vec();
    if file.len() < HEADER_BYTES {
        return file;
    }
    let word = |file: &[u8], at: usize| u64::from_le_bytes(std::array::from_fn(|i| file[at + i]));
    for entry in (64..64 + SectionKind::ALL.len() * 32).step_by(32) {
        let [kind, start, length] = [0, 8, 16].map(|field| word(&file, entry + field) as usize);
        let content = start.checked_add(length).and_then(|end| file.get(start..end));
        if let (2.., Some(content)) = (kind, content) {
            let checksum = xxh3_64(content).to_le_bytes();
            file[entry + 24..entry + 32].copy_from_slice(&checksum);
        }
    }
    file[24..32].fill(0);
    let checksum = xxh3_64(&file[..HEADER_BYTES]).to_le_bytes();
    file[24..32].copy_from_slice(&checksum);
    file
}

/// The engine with another section of this kind, or one more, laid out and signed anew.
fn with_section(engine: &[u8], kind: SectionKind, content: &[u8]) -> Vec<u8> {
    let header = engine.first_chunk().expect("an engine has a header");
    let mut header = Header::decode(header, engine.len() as u64).expect("the seed is valid: BLESS=1 makes it anew");
    if header.section(kind).is_none() {
        header.sections.push(Section { kind, offset: 0, bytes: 0, checksum: 0 });
    }
    let mut file = vec![0; HEADER_BYTES];
    for section in &mut header.sections {
        let old = &engine[section.offset as usize..section.end() as usize];
        let content = if section.kind == kind { content } else { old };
        file.resize(file.len().next_multiple_of(section.kind.alignment() as usize), 0);
        (section.offset, section.bytes) = (file.len() as u64, content.len() as u64);
        section.checksum = if section.kind == SectionKind::Weights { 0 } else { xxh3_64(content) };
        file.extend_from_slice(content);
    }
    file[..HEADER_BYTES].copy_from_slice(&header.encode());
    file
}
