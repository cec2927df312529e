//! The weight section in memory: mapped from the file or read into memory, checked by several threads while it streams.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memmap2::{Advice, Mmap, MmapMut, MmapOptions};
use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

use super::read::Source;
use super::{Plan, Section};
use crate::error::{Error, Result};
use crate::types::heap;

/// Bytes read and hashed at a time: small enough to be in cache when they are hashed.
const CHUNK: usize = 256 << 10;
/// Sections below this size are not worth a second thread.
const SMALL: u64 = 8 << 20;
const MOST_THREADS: usize = 8;

/// Where an engine's weights are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadMode {
    /// Pages of the file, shared with other processes and dropped under memory pressure.
    Map,
    /// A private copy; the file may change afterwards.
    Read,
}

/// The bytes of the weight section, page aligned.
#[derive(Debug)]
pub(super) enum Weights {
    Mapped(Mmap),
    Owned(MmapMut),
}

impl Weights {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Weights::Mapped(map) => map,
            Weights::Owned(memory) => memory,
        }
    }
}

/// Reports the fraction done; `Break` stops the loading.
pub type Progress<'a> = &'a mut dyn FnMut(f32) -> ControlFlow<()>;

/// Brings the section into memory; the plan is valid and its weights end where the section does.
pub(super) fn load(
    file: &File,
    section: &Section,
    plan: &Plan,
    mode: LoadMode,
    verify: bool,
    progress: Progress<'_>,
) -> Result<Weights> {
    let length = usize::try_from(section.bytes).map_err(|_| out_of_memory(section, "address space"))?;
    let weights = match mode {
        LoadMode::Map => {
            let mut options = MmapOptions::new();
            // SAFETY: the mapping is read-only and private to this engine; as with every mapped file, whoever truncates
            // the file under a running engine stops it, which the mode's documentation says.
            let map = unsafe { options.offset(section.offset).len(length).map(file) }.map_err(|error| {
                match error.kind() {
                    io::ErrorKind::OutOfMemory => out_of_memory(section, &error.to_string()),
                    _ => Error::io("weights (map)", &error),
                }
            })?;
            if verify {
                // Read and not looked at through the mapping: a file that is truncated meanwhile is an error then.
                stream(pieces(plan, Memory::Mapped(length))?, (file, section.offset), true, section.bytes, progress)?;
            }
            Weights::Mapped(map)
        }
        LoadMode::Read => {
            let mut memory = MmapMut::map_anon(length).map_err(|error| out_of_memory(section, &error.to_string()))?;
            // Fewer page faults; a kernel without huge pages says no and nothing is lost.
            let _ = memory.advise(Advice::HugePage);
            let source: (&(dyn Source + Sync), u64) = (file, section.offset);
            stream(pieces(plan, Memory::Own(&mut memory))?, source, verify, section.bytes, progress)?;
            Weights::Owned(memory)
        }
    };
    match progress(1.0) {
        ControlFlow::Continue(()) => Ok(weights),
        ControlFlow::Break(()) => Err(cancelled()),
    }
}

/// Checks a section in memory; the plan is valid and its weights end where the section does.
pub(super) fn verify(section: &[u8], plan: &Plan) -> Result<()> {
    let progress = &mut |_| ControlFlow::Continue(());
    stream(pieces(plan, Memory::Mapped(section.len()))?, (&section, 0), true, section.len() as u64, progress)
}

fn cancelled() -> Error {
    Error::Cancelled { what: "engine load".into(), why: "the progress callback said so".into() }
}

fn out_of_memory(section: &Section, why: &str) -> Error {
    Error::OutOfMemory { what: "weights".into(), why: format!("{} bytes: {why}", section.bytes) }
}

/// Where a piece is read to.
enum Memory<'a> {
    /// Nowhere: it is in memory already, and looked at only; its length.
    Mapped(usize),
    Own(&'a mut [u8]),
}

impl<'a> Memory<'a> {
    fn split(self, at: usize) -> (Self, Self) {
        match self {
            Memory::Mapped(length) => (Memory::Mapped(at), Memory::Mapped(length - at)),
            Memory::Own(bytes) => {
                let (head, tail) = bytes.split_at_mut(at);
                (Memory::Own(head), Memory::Own(tail))
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Memory::Mapped(length) => *length,
            Memory::Own(bytes) => bytes.len(),
        }
    }
}

/// One weight with the padding before it.
struct Piece<'a> {
    memory: Memory<'a>,
    /// Start of `memory` in the section.
    start: u64,
    padding: usize,
    name: &'a str,
    checksum: Option<u64>,
}

/// The section cut at the ends of its weights, the largest piece first so that no thread is left with it at the end.
fn pieces<'a>(plan: &'a Plan, memory: Memory<'a>) -> Result<Vec<Piece<'a>>> {
    let (mut rest, mut start) = (memory, 0u64);
    let mut pieces = heap::vector(plan.weights.len(), "list of weights")?;
    for weight in &plan.weights {
        let end = weight.offset + weight.bytes;
        let (memory, tail) = rest.split((end - start) as usize);
        let padding = (weight.offset - start) as usize;
        pieces.push(Piece { memory, start, padding, name: &weight.name, checksum: weight.checksum_value() });
        (rest, start) = (tail, end);
    }
    pieces.sort_unstable_by_key(|piece| (std::cmp::Reverse(piece.memory.len()), piece.start));
    Ok(pieces)
}

/// What the threads share while they work through the pieces.
struct Shared<'a> {
    queue: Mutex<std::vec::IntoIter<Piece<'a>>>,
    source: (&'a (dyn Source + Sync), u64),
    verify: bool,
    done: AtomicU64,
    stop: AtomicBool,
    failure: Mutex<Option<Error>>,
}

fn stream<'a>(
    pieces: Vec<Piece<'a>>,
    source: (&'a (dyn Source + Sync), u64),
    verify: bool,
    total: u64,
    progress: Progress<'_>,
) -> Result<()> {
    let threads = match total < SMALL {
        true => 1,
        false => std::thread::available_parallelism().map_or(1, |count| count.get().min(MOST_THREADS)),
    };
    let shared = Shared {
        queue: Mutex::new(pieces.into_iter()),
        source,
        verify,
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    let mut stopped = false;
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // The calling thread does the work alone when no other can be started.
            let _ =
                std::thread::Builder::new().name("trtllm-load".into()).spawn_scoped(scope, || shared.work(&mut || {}));
        }
        let mut reported = 0;
        shared.work(&mut || {
            let done = shared.done.load(Ordering::Relaxed);
            if done - reported >= total / 100 {
                reported = done;
                if progress(done as f32 / total as f32).is_break() {
                    stopped = true;
                    shared.stop.store(true, Ordering::Relaxed);
                }
            }
        });
    });
    match shared.failure.into_inner() {
        _ if stopped => Err(cancelled()),
        Some(error) => Err(error),
        None => Ok(()),
    }
}

impl Shared<'_> {
    fn work(&self, tick: &mut dyn FnMut()) {
        let mut scratch = Vec::new();
        loop {
            let next = self.queue.lock().next();
            let Some(piece) = next else { return };
            if let Err(error) = self.take(piece, &mut scratch, tick) {
                self.stop.store(true, Ordering::Relaxed);
                self.failure.lock().get_or_insert(error);
            }
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Reads one piece, into `scratch` what is mapped, and checks its padding and its weight.
    fn take(&self, mut piece: Piece<'_>, scratch: &mut Vec<u8>, tick: &mut dyn FnMut()) -> Result<()> {
        let mut hash = Xxh3::new();
        let mut at = 0;
        while at < piece.memory.len() {
            let end = (at + CHUNK).min(piece.memory.len());
            let chunk = match &mut piece.memory {
                Memory::Mapped(_) => {
                    heap::reserve(scratch, CHUNK - scratch.len(), "checksums")?;
                    scratch.resize(CHUNK, 0);
                    &mut scratch[..end - at]
                }
                Memory::Own(bytes) => &mut bytes[at..end],
            };
            let (file, start) = self.source;
            file.read_exact_at(chunk, start + piece.start + at as u64)
                .map_err(|error| Error::io(format!("weight `{}` (read)", piece.name), &error))?;
            if self.verify {
                let padding = piece.padding.saturating_sub(at).min(chunk.len());
                if chunk[..padding].iter().any(|byte| *byte != 0) {
                    return Err(corrupt(&piece, "the padding before it is not zero"));
                }
                hash.update(&chunk[padding..]);
            }
            self.done.fetch_add((end - at) as u64, Ordering::Relaxed);
            at = end;
            tick();
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        match self.verify && piece.checksum != Some(hash.digest()) {
            true => Err(corrupt(&piece, "its checksum does not match")),
            false => Ok(()),
        }
    }
}

fn corrupt(piece: &Piece<'_>, why: &str) -> Error {
    Error::Corrupt { what: format!("weight `{}`", piece.name), why: why.into() }
}
