//! The file's outer form: a fixed header with a section table. Every byte of a file is in the header, in a section with a
//! checksum, or zero padding whose place follows from the table, so that any flipped bit is found.

use xxhash_rust::xxh3::xxh3_64;

use super::Target;
use crate::error::{Error, Result};

/// First bytes of an engine file.
pub const MAGIC: [u8; 8] = *b"TRTLLM\0\x01";
/// Version of the file format; readers accept exactly their own.
pub const VERSION: u32 = 2;
/// Bytes of the header; the first section starts here.
pub const HEADER_BYTES: usize = 4096;

const TARGET_CPU: u32 = 1;
const TARGET_CUDA: u32 = 2;
const CHECKSUM_AT: usize = 24;
const TABLE_AT: usize = 64;
const ENTRY_BYTES: usize = 32;

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SectionKind {
    /// Packed weights; each carries its own checksum in the plan, so the table's checksum is zero.
    Weights,
    /// The plan as JSON.
    Plan,
    /// `config.json` of the checkpoint.
    Config,
    /// `generation_config.json`.
    GenerationConfig,
    /// `tokenizer.json`.
    Tokenizer,
    /// `tokenizer_config.json`.
    TokenizerConfig,
    /// The chat template's source.
    ChatTemplate,
    /// Compiled kernels of a CUDA engine.
    Kernels,
    /// How a CUDA engine's layers are computed, where that was measured.
    Tactics,
    /// How the engine was made, as JSON: for whoever inspects it, nothing runs by it.
    Record,
}

impl SectionKind {
    /// Every kind, by its code minus one.
    pub const ALL: [SectionKind; 10] = [
        SectionKind::Weights,
        SectionKind::Plan,
        SectionKind::Config,
        SectionKind::GenerationConfig,
        SectionKind::Tokenizer,
        SectionKind::TokenizerConfig,
        SectionKind::ChatTemplate,
        SectionKind::Kernels,
        SectionKind::Tactics,
        SectionKind::Record,
    ];

    /// The name as printed by `inspect`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SectionKind::Weights => "weights",
            SectionKind::Plan => "plan",
            SectionKind::Config => "config",
            SectionKind::GenerationConfig => "generation_config",
            SectionKind::Tokenizer => "tokenizer",
            SectionKind::TokenizerConfig => "tokenizer_config",
            SectionKind::ChatTemplate => "chat_template",
            SectionKind::Kernels => "kernels",
            SectionKind::Tactics => "tactics",
            SectionKind::Record => "record",
        }
    }

    /// Position in [`SectionKind::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// Multiple at which such a section starts in the file.
    #[must_use]
    pub fn alignment(self) -> u64 {
        match self {
            SectionKind::Weights => 4096,
            _ => 64,
        }
    }

    /// Most bytes a reader accepts; `None` is bounded by the file alone.
    #[must_use]
    pub fn cap(self) -> Option<u64> {
        match self {
            SectionKind::Weights => None,
            SectionKind::Plan => Some(256 << 20),
            SectionKind::Tokenizer => Some(64 << 20),
            SectionKind::Kernels => Some(512 << 20),
            SectionKind::Config
            | SectionKind::GenerationConfig
            | SectionKind::TokenizerConfig
            | SectionKind::ChatTemplate
            | SectionKind::Tactics
            | SectionKind::Record => Some(4 << 20),
        }
    }

    fn code(self) -> u32 {
        self as u32 + 1
    }

    fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// One entry of the section table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    pub kind: SectionKind,
    /// Start in the file.
    pub offset: u64,
    /// Length without padding.
    pub bytes: u64,
    /// xxh3-64 of the content; zero for the weights.
    pub checksum: u64,
}

impl Section {
    /// First byte after the section.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.bytes
    }
}

/// The decoded header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub target: Target,
    /// In file order; each starts at the first multiple of its alignment after the one before.
    pub sections: Vec<Section>,
}

impl Header {
    /// Length of the whole file: the end of its last section.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.sections.last().map_or(HEADER_BYTES as u64, Section::end)
    }

    /// The section of a kind.
    #[must_use]
    pub fn section(&self, kind: SectionKind) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == kind)
    }

    /// The header's bytes, checksum included.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let target = match self.target {
            Target::Cpu => TARGET_CPU,
            Target::Cuda => TARGET_CUDA,
        };
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &(self.sections.len() as u32).to_le_bytes());
        put(16, &self.file_bytes().to_le_bytes());
        put(32, &target.to_le_bytes());
        for (index, section) in self.sections.iter().enumerate() {
            let fields = [u64::from(section.kind.code()), section.offset, section.bytes, section.checksum];
            for (word, field) in fields.iter().enumerate() {
                put(TABLE_AT + index * ENTRY_BYTES + 8 * word, &field.to_le_bytes());
            }
        }
        let checksum = xxh3_64(&bytes);
        bytes[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a header and checks it in itself and against the length of its file.
    ///
    /// # Errors
    /// `UnsupportedFormat` when it is no engine, `UnsupportedVersion`, else `Corrupt`.
    pub fn decode(bytes: &[u8; HEADER_BYTES], file_bytes: u64) -> Result<Self> {
        if bytes[..8] != MAGIC {
            return Err(Error::UnsupportedFormat { what: "header".into(), why: "this is not an engine file".into() });
        }
        let version = read_u32(bytes, 8);
        if version != VERSION {
            let why = format!("format version {version}; this library reads {VERSION}: build the engine anew");
            return Err(Error::UnsupportedVersion { what: "header".into(), why });
        }
        check_header_sum(bytes)?;
        let header = Self { target: read_target(bytes)?, sections: read_table(bytes)? };
        header.check_layout(file_bytes)?;
        if header.encode() != *bytes {
            return Err(corrupt("reserved bytes are not zero"));
        }
        Ok(header)
    }

    fn check_layout(&self, file_bytes: u64) -> Result<()> {
        let mut end = HEADER_BYTES as u64;
        for (index, section) in self.sections.iter().enumerate() {
            let name = section.kind.name();
            if self.sections[..index].iter().any(|earlier| earlier.kind == section.kind) {
                return Err(corrupt(format!("two sections of kind {name}")));
            }
            if end.checked_next_multiple_of(section.kind.alignment()) != Some(section.offset) {
                return Err(corrupt(format!("section {name} does not follow the one before it")));
            }
            if section.kind.cap().is_some_and(|cap| section.bytes > cap) {
                return Err(corrupt(format!("section {name} of {} bytes is too large", section.bytes)));
            }
            end = section
                .offset
                .checked_add(section.bytes)
                .filter(|end| *end <= file_bytes)
                .ok_or_else(|| corrupt(format!("section {name} ends after the file's {file_bytes} bytes")))?;
        }
        if end != file_bytes {
            return Err(corrupt(format!("the file has {file_bytes} bytes, its sections end at {end}")));
        }
        for kind in [SectionKind::Weights, SectionKind::Plan, SectionKind::Config] {
            if self.section(kind).is_none() {
                return Err(corrupt(format!("there is no {} section", kind.name())));
            }
        }
        Ok(())
    }
}

fn check_header_sum(bytes: &[u8; HEADER_BYTES]) -> Result<()> {
    let mut unsigned = *bytes;
    unsigned[CHECKSUM_AT..CHECKSUM_AT + 8].fill(0);
    match xxh3_64(&unsigned) == read_u64(bytes, CHECKSUM_AT) {
        true => Ok(()),
        false => Err(corrupt("its checksum does not match")),
    }
}

fn read_target(bytes: &[u8; HEADER_BYTES]) -> Result<Target> {
    match read_u32(bytes, 32) {
        TARGET_CPU => Ok(Target::Cpu),
        TARGET_CUDA => Ok(Target::Cuda),
        other => Err(corrupt(format!("unknown target {other}"))),
    }
}

fn read_table(bytes: &[u8; HEADER_BYTES]) -> Result<Vec<Section>> {
    let count = read_u32(bytes, 12) as usize;
    if count > SectionKind::ALL.len() {
        return Err(corrupt(format!("{count} sections; at most {} exist", SectionKind::ALL.len())));
    }
    (0..count)
        .map(|index| {
            let at = TABLE_AT + index * ENTRY_BYTES;
            let code = read_u64(bytes, at);
            let kind = u32::try_from(code).ok().and_then(SectionKind::from_code);
            Ok(Section {
                kind: kind.ok_or_else(|| corrupt(format!("unknown section kind {code}")))?,
                offset: read_u64(bytes, at + 8),
                bytes: read_u64(bytes, at + 16),
                checksum: read_u64(bytes, at + 24),
            })
        })
        .collect()
}

fn read_u32(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn read_u64(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn corrupt(why: impl Into<String>) -> Error {
    Error::Corrupt { what: "header".into(), why: why.into() }
}
