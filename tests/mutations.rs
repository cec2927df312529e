//! Every parser of foreign bytes under seeded mutations of a corpus: an input is accepted or refused with a typed error; it
//! never panics, takes long or claims much memory. The same inputs come in every run; `TRTLLM_MUTATIONS=N` makes N times as
//! many. A finding is kept as a file and named; put it into `tests/fuzz/corpus` once it is repaired.
#![cfg(feature = "compiler")]

#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/targets.rs"]
mod targets;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mutate::{Random, mutated};
use trtllm::builder::{self, BuildOptions, Source};
use trtllm::engine::{Engine, Header, LoadMode, SectionKind};

/// An input takes milliseconds; the limit leaves room for a busy machine.
const LONGEST: Duration = Duration::from_secs(5);
/// Most bytes that one allocation may ask for, whatever an input of some kilobytes claims.
const LARGEST: usize = 16 << 20;

/// How one parser is tried.
struct Parser {
    /// Of its target and of its folder in `tests/fuzz/corpus`.
    name: &'static str,
    target: fn(&[u8]) -> bool,
    /// Files below `tests/` that are seeds too.
    more: &'static [&'static str],
    /// Words that mean something to it, as libFuzzer's dictionaries have them.
    words: &'static str,
    /// How many mutations.
    rounds: usize,
}

const JSON: &str = include_str!("fuzz/words/json.dict");
const JINJA: &str = include_str!("fuzz/words/jinja.dict");

macro_rules! parsers {
    ($($name:ident: $rounds:literal, $words:ident, $more:expr;)*) => {
        $(#[test] fn $name() {
            let (name, target) = (stringify!($name), targets::$name);
            try_all(&Parser { name, target, more: &$more, words: $words, rounds: $rounds });
        })*
    };
}

parsers! {
    engine: 6000, JSON, [];
    plan: 8000, JSON, [];
    safetensors: 8000, JSON, [];
    safetensors_index: 6000, JSON, [];
    config: 20000, JSON, ["models/tiny/config.json", "golden/llama_base/config.json", "golden/llama_yarn_mscale/config.json"];
    generation_config: 20000, JSON, ["models/tiny/generation_config.json"];
    tokenizer: 6000, JSON, [];
    tokenizer_config: 6000, JSON, ["models/tiny/tokenizer_config.json"];
    template: 6000, JINJA, ["models/tiny/chat_template.jinja"];
    messages: 6000, JSON, [];
    requests: 1000, JSON, [];
}

/// The seeds as they are, which are accepted, then their mutations, of which some are and some are not.
fn try_all(parser: &Parser) {
    let seeds = seeds(parser);
    for seed in &seeds {
        assert!(attempt(parser, "seed", seed), "a seed of {} is refused", parser.name);
    }
    let words: Vec<_> = parser.words.lines().map(word).collect();
    let (mut random, mut accepted) = (Random::new(0x7127_11b0), 0);
    let rounds = parser.rounds * times();
    for round in 0..rounds {
        let mut input = mutated(&seeds, &words, &mut random);
        if parser.name == "safetensors" && round % 2 == 0 {
            repair_length(&mut input);
        }
        accepted += usize::from(attempt(parser, &format!("round {round}"), &input));
    }
    assert!(accepted * 1000 > rounds && accepted < rounds, "{}: {accepted} of {rounds} accepted", parser.name);
}

/// Runs one input within the limits of time and memory, or keeps it in a file and fails.
fn attempt(parser: &Parser, round: &str, input: &[u8]) -> bool {
    LARGEST_ASKED.set(0);
    let start = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (parser.target)(input)));
    let (taken, asked) = (start.elapsed(), LARGEST_ASKED.get());
    match outcome {
        Ok(accepted) if taken < LONGEST && asked < LARGEST => accepted,
        outcome => {
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.finding", parser.name));
            std::fs::write(&kept, input).expect("the target folder is writable");
            let panicked = outcome.is_err();
            panic!(
                "{} {round}: panicked {panicked}, took {taken:?}, asked for {asked} bytes: {}",
                parser.name,
                kept.display()
            );
        }
    }
}

fn seeds(parser: &Parser) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(corpus(parser.name))
        .expect("every parser has a corpus")
        .map(|entry| entry.expect("the corpus is readable").path())
        .collect();
    files.sort();
    files.extend(parser.more.iter().map(|file| tests().join(file)));
    files.iter().map(|file| std::fs::read(file).expect("a seed is readable")).collect()
}

/// The bytes of one line of a dictionary: quoted, with escapes of quote, backslash and bytes (`\xc3`).
fn word(line: &str) -> Vec<u8> {
    let quoted = line.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).expect("a word is quoted");
    let (mut bytes, mut rest) = (Vec::new(), quoted.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let (byte, length) = match (first, after) {
            (b'\\', [b'x', digits @ ..]) => {
                let digits = digits.first_chunk::<2>().and_then(|digits| str::from_utf8(digits).ok());
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                (byte.expect("two digits follow"), 4)
            }
            (b'\\', [escaped, ..]) => (*escaped, 2),
            _ => (*first, 1),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    bytes
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn corpus(name: &str) -> PathBuf {
    tests().join("fuzz/corpus").join(name)
}

fn times() -> usize {
    let Ok(times) = std::env::var("TRTLLM_MUTATIONS") else {
        return 1;
    };
    times.parse().expect("TRTLLM_MUTATIONS is a whole number")
}

/// Writes the length of the JSON in front of a mutated safetensors file: it ends with the last brace pair.
fn repair_length(file: &mut [u8]) {
    let end = file.windows(2).rposition(|pair| pair == b"}}").map_or(0, |at| at + 2);
    if let (Some(length), Some(place)) = (end.checked_sub(8), file.first_chunk_mut::<8>()) {
        *place = (length as u64).to_le_bytes();
    }
}

/// The seeds that are engines stay readable. `BLESS=1` makes them anew, after a change of the format or of the plan.
#[test]
fn the_engines_of_the_corpus_open() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let built = folder.path().join("llama.engine");
    let source = Source::Dummy { config: corpus("config/llama.json"), seed: 1 };
    builder::build(&source, &built, &BuildOptions::default(), &mut |_, _| ControlFlow::Continue(())).expect("builds");
    if std::env::var_os("BLESS").is_some() {
        let file = std::fs::read(&built).expect("was built");
        let header = Header::decode(file.first_chunk().expect("a header"), file.len() as u64).expect("valid");
        let plan = header.section(SectionKind::Plan).expect("an engine has a plan");
        std::fs::write(corpus("plan/llama.json"), &file[plan.offset as usize..plan.end() as usize]).expect("writable");
        std::fs::write(corpus("engine/llama.engine"), &file).expect("writable");
    }
    let open = |path: &Path| Engine::open(path, LoadMode::Read, &mut |_| ControlFlow::Continue(()));
    let (committed, fresh) = (open(&corpus("engine/llama.engine")).expect("BLESS=1 makes it anew"), open(&built));
    assert_eq!(committed.plan().weights.len(), fresh.expect("opens").plan().weights.len());
}

thread_local! {
    /// Size of the largest allocation that this thread asked for.
    static LARGEST_ASKED: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, watched.
struct Watched;

#[global_allocator]
static ALLOCATOR: Watched = Watched;

fn watch(bytes: usize) {
    // A thread that ends allocates after its cells are gone; such sizes are nobody's input.
    let _ = LARGEST_ASKED.try_with(|largest| largest.set(largest.get().max(bytes)));
}

// SAFETY: every call is passed on unchanged; watching does not allocate.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        watch(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        watch(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        watch(bytes);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}
