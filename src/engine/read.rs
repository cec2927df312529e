//! Opens an engine: header, sections and plan are checked before memory for the weights is asked for.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::format::{HEADER_BYTES, Header, Section, SectionKind};
use super::weights::{self, LoadMode, Progress, Weights};
use super::{Plan, inspect};
use crate::error::{Error, Result};
use crate::types::heap;

/// An engine in memory. It is read-only and may be shared by threads.
#[derive(Debug)]
pub struct Engine {
    header: Header,
    plan: Plan,
    texts: Texts,
    weights: Weights,
    mode: LoadMode,
}

/// How to open an engine.
#[derive(Debug, Clone, Copy)]
pub struct OpenOptions {
    pub mode: LoadMode,
    /// Check every weight against its checksum (and the padding against zero) while it streams.
    pub verify_weights: bool,
}

impl Engine {
    /// Opens an engine and checks every byte of it. With [`LoadMode::Map`] the file must not be truncated while the
    /// engine lives (writers of this library replace files and never change them).
    ///
    /// # Errors
    /// `NotFound`, `Io`, `UnsupportedFormat`, `UnsupportedVersion`, `Corrupt`, `OutOfMemory`, each naming the path;
    /// `Cancelled` when `progress` said `Break`.
    pub fn open(path: &Path, mode: LoadMode, progress: Progress<'_>) -> Result<Self> {
        Self::open_with(path, OpenOptions { mode, verify_weights: true }, progress)
    }

    /// As [`Engine::open`]; without `verify_weights` a mapped engine opens in no time and trusts its weights.
    pub fn open_with(path: &Path, options: OpenOptions, progress: Progress<'_>) -> Result<Self> {
        Self::load(path, options, progress).map_err(|error| error.within(&path.display().to_string()))
    }

    fn load(path: &Path, options: OpenOptions, progress: Progress<'_>) -> Result<Self> {
        let front = Front::open(path)?;
        let section = front.section(SectionKind::Weights)?;
        let OpenOptions { mode, verify_weights } = options;
        let weights = weights::load(&front.source, section, &front.plan, mode, verify_weights, progress)?;
        let Front { header, plan, texts, .. } = front;
        Ok(Self { header, plan, texts, weights, mode })
    }

    /// The plan; it is valid.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Packed bytes of weight `index`, aligned to 256 bytes at least.
    ///
    /// # Panics
    /// When the plan has no such weight.
    #[must_use]
    pub fn weight(&self, index: usize) -> &[u8] {
        let spec = &self.plan.weights[index];
        &self.weights.bytes()[spec.offset as usize..(spec.offset + spec.bytes) as usize]
    }

    /// Bytes of the weight section, padding included: what the weights cost in memory.
    #[must_use]
    pub fn weights_bytes(&self) -> usize {
        self.weights.bytes().len()
    }

    /// `config.json` of the checkpoint, or of the network's definition.
    #[must_use]
    pub fn config(&self) -> Option<&[u8]> {
        self.text(SectionKind::Config)
    }

    /// `tokenizer.json`, if the engine has a tokenizer.
    #[must_use]
    pub fn tokenizer_json(&self) -> Option<&[u8]> {
        self.text(SectionKind::Tokenizer)
    }

    /// `tokenizer_config.json`.
    #[must_use]
    pub fn tokenizer_config(&self) -> Option<&[u8]> {
        self.text(SectionKind::TokenizerConfig)
    }

    /// Source of the chat template, when the checkpoint kept it in a file of its own.
    #[must_use]
    pub fn chat_template(&self) -> Option<&[u8]> {
        self.text(SectionKind::ChatTemplate)
    }

    /// Compiled kernels, as the backend packed them.
    #[must_use]
    pub fn kernels(&self) -> Option<&[u8]> {
        self.text(SectionKind::Kernels)
    }

    /// Tactics of a CUDA engine that was tuned.
    #[must_use]
    pub fn tactics(&self) -> Option<&[u8]> {
        self.text(SectionKind::Tactics)
    }

    /// `generation_config.json`.
    #[must_use]
    pub fn generation_config(&self) -> Option<&[u8]> {
        self.text(SectionKind::GenerationConfig)
    }

    /// How the weights are kept.
    #[must_use]
    pub fn mode(&self) -> LoadMode {
        self.mode
    }

    /// The engine described as JSON: see [`inspect`].
    #[must_use]
    pub fn inspect_json(&self) -> String {
        inspect::describe(&self.header, &self.plan, self.text(SectionKind::Record))
    }

    fn text(&self, kind: SectionKind) -> Option<&[u8]> {
        self.texts[kind.index()].as_deref()
    }
}

/// The plan of an engine in memory, every byte of which is checked as by [`Engine::open`].
///
/// # Errors
/// As [`Engine::open`], for everything but the file.
pub fn verify(engine: &[u8]) -> Result<Plan> {
    let front = Front::read(engine, engine.len() as u64)?;
    let section = front.section(SectionKind::Weights)?;
    weights::verify(&engine[section.offset as usize..section.end() as usize], &front.plan)?;
    Ok(front.plan)
}

/// Contents of the small sections, by kind.
type Texts = [Option<Vec<u8>>; SectionKind::ALL.len()];

/// What an engine is read from.
pub(super) trait Source {
    /// Fills `bytes` from `offset` on.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for File {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }
}

impl Source for &[u8] {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        self.get(start..).unwrap_or_default().read_exact(bytes)
    }
}

/// Everything but the weights, read and checked.
pub(super) struct Front<S> {
    pub(super) source: S,
    pub(super) header: Header,
    pub(super) plan: Plan,
    pub(super) texts: Texts,
}

impl Front<File> {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let kind = std::fs::metadata(path).map_err(|error| Error::io("engine file", &error))?;
        if !kind.is_file() {
            return Err(Error::UnsupportedFormat {
                what: "engine file".into(),
                why: "this is not a regular file".into(),
            });
        }
        let file = File::open(path).map_err(|error| Error::io("engine file", &error))?;
        let bytes = file.metadata().map_err(|error| Error::io("engine file", &error))?.len();
        Self::read(file, bytes)
    }
}

impl<S: Source> Front<S> {
    /// Reads a source of so many bytes.
    fn read(source: S, bytes: u64) -> Result<Self> {
        let header = read_header(&source, bytes)?;
        check_padding(&source, &header)?;
        let mut texts = Texts::default();
        for section in header.sections.iter().filter(|section| section.kind != SectionKind::Weights) {
            texts[section.kind.index()] = Some(read_section(&source, section)?);
        }
        let plan = texts[SectionKind::Plan.index()].take().unwrap_or_default();
        let plan = parse_plan(&plan)?;
        let front = Self { source, header, plan, texts };
        let weights = front.section(SectionKind::Weights)?;
        if weights.bytes != front.plan.weights_bytes() || weights.checksum != 0 {
            return Err(corrupt("weights", "the section is not what the plan says"));
        }
        if front.header.target != front.plan.target {
            return Err(corrupt("plan", "its target is not the header's"));
        }
        Ok(front)
    }

    fn section(&self, kind: SectionKind) -> Result<&Section> {
        self.header.section(kind).ok_or_else(|| corrupt(kind.name(), "the section is missing"))
    }
}

/// A plan from its JSON, valid or refused.
pub(super) fn parse_plan(json: &[u8]) -> Result<Plan> {
    let plan: Plan = serde_json::from_slice(json).map_err(|error| corrupt("plan", error.to_string()))?;
    plan.validate()?;
    Ok(plan)
}

fn read_header(source: &impl Source, file_bytes: u64) -> Result<Header> {
    let mut bytes = [0; HEADER_BYTES];
    let length = bytes.len().min(file_bytes as usize);
    read_at(source, &mut bytes[..length], 0)?;
    match length {
        HEADER_BYTES => Header::decode(&bytes, file_bytes),
        _ if bytes.starts_with(&super::format::MAGIC) => Err(corrupt("header", "the file is truncated")),
        _ => Err(Error::UnsupportedFormat { what: "header".into(), why: "this is not an engine file".into() }),
    }
}

/// The few bytes between two sections are zero.
fn check_padding(source: &impl Source, header: &Header) -> Result<()> {
    for pair in header.sections.windows(2) {
        let mut padding = [0; 4096];
        let (end, start) = (pair[0].end(), pair[1].offset);
        let padding = &mut padding[..(start - end) as usize];
        read_at(source, padding, end)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(corrupt(pair[1].kind.name(), "the padding before it is not zero"));
        }
    }
    Ok(())
}

fn read_section(source: &impl Source, section: &Section) -> Result<Vec<u8>> {
    let length = section.bytes as usize;
    let mut content = heap::vector(length, section.kind.name())?;
    content.resize(length, 0);
    read_at(source, &mut content, section.offset)?;
    match xxh3_64(&content) == section.checksum {
        true => Ok(content),
        false => Err(corrupt(section.kind.name(), "its checksum does not match")),
    }
}

fn read_at(source: &impl Source, bytes: &mut [u8], offset: u64) -> Result<()> {
    source.read_exact_at(bytes, offset).map_err(|error| Error::io("engine file (read)", &error))
}

fn corrupt(what: &str, why: impl Into<String>) -> Error {
    Error::Corrupt { what: what.into(), why: why.into() }
}
