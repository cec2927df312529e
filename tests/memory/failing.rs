//! Every large allocation of the life of an engine and an executor refused, one by one: each is a status and no leak.

use std::collections::BTreeMap;
use std::path::Path;

use trtllm::capi::engine::trtllm_load_mode;

use crate::allocator;
use crate::client::{Accepted, Prompt, Wish, create, destroy, inspect, live, load, plain, plain_tokens, submit};
use crate::trial::{End, Outcome, run};

/// Crates that take memory for granted: what they abort on is listed in README, and nothing else may.
const FOREIGN: [&str; 8] =
    ["ahash-", "daachorse-", "serde-", "serde_core-", "serde_json-", "indexmap-", "minijinja-", "tokenizers-"];

/// What a round of trials came to.
#[derive(Debug, Default)]
pub struct Tally {
    pub trials: usize,
    pub refusals: usize,
    /// Trials in which another way was found.
    pub absorbed: usize,
    /// Trials that ended in an abort, by the file that did not ask.
    pub aborts: BTreeMap<String, usize>,
}

impl Tally {
    /// Aborts outside of the crates that are known for them.
    pub fn own_aborts(&self) -> Vec<&String> {
        self.aborts.keys().filter(|file| !FOREIGN.iter().any(|name| file.starts_with(name))).collect()
    }
}

/// A part of a life, during which allocations are refused. Returns how many it saw, and the refusals.
pub type Part = fn(&Path, usize, bool) -> (usize, usize);

/// Refuses one allocation after the other, until none is left to refuse; `forever`: all from one on.
pub fn refuse_each(path: &Path, part: Part, forever: bool) -> Tally {
    let mut tally = Tally::default();
    for at in 0.. {
        let outcome = run(|| {
            // Whatever is made once in a process is there then.
            part(path, usize::MAX, false);
            part(path, at, forever)
        });
        tally.trials += 1;
        let Outcome { seen, refused, end } = outcome;
        match end {
            End::Failed(status) => panic!("allocation {at}, forever {forever}: the trial failed with {status:#x}"),
            End::Aborted(stack) => *tally.aborts.entry(culprit(&stack, at)).or_default() += 1,
            End::Well if seen <= at => {
                assert_eq!(refused, 0, "nothing was refused, and yet");
                return tally;
            }
            End::Well => {
                tally.refusals += refused;
                tally.absorbed += usize::from(refused == 0);
            }
        }
    }
    tally
}

/// What took memory for granted: the crate and file of the innermost frame that is not the standard library's.
fn culprit(stack: &str, at: usize) -> String {
    let started =
        stack.lines().skip_while(|line| !line.contains("handle_alloc_error") && !line.contains("handle_error"));
    let files = started.filter_map(|line| line.trim_start().strip_prefix("at "));
    let file = files
        .filter(|file| !file.contains("/library/") && !file.contains("hashbrown"))
        .find(|file| file.contains(".rs"));
    let file = file.unwrap_or_else(|| panic!("allocation {at} aborted:\n{stack}"));
    let file =
        file.split_once("/registry/src/").map_or(file, |(_, file)| file.split_once('/').map_or(file, |(_, file)| file));
    file.rsplit_once(':').map_or(file, |(place, _)| place).to_owned()
}

/// Load, executor, all kinds of requests at once, inspection; then a plain request, and the end.
pub fn whole_life(path: &Path, at: usize, forever: bool) -> (usize, usize) {
    let expected = expected(path);
    let wishes = wishes();
    let before = live();
    allocator::arm(at, forever);
    let mut refused = 0;
    let engine = load(path, trtllm_load_mode::Read)
        .unwrap_or_else(|| again(&mut refused, || load(path, trtllm_load_mode::Read)));
    let executor = create(engine).unwrap_or_else(|| again(&mut refused, || create(engine)));
    let accepted: Vec<Option<Accepted>> = wishes.iter().map(|wish| submit(executor, wish)).collect();
    for request in accepted {
        match request {
            Some(request) => refused += usize::from(request.hear_out(executor, &mut 0).refused),
            None => refused += 1,
        }
    }
    refused += usize::from(!inspect(engine, executor));
    let seen = allocator::disarm();
    assert_eq!(plain_tokens(executor), expected, "the executor serves on");
    destroy(engine, executor);
    assert_eq!(live() - before, 0, "bytes leaked");
    (seen, refused)
}

/// Requests in progress while allocations are refused: one is cancelled, then the executor and the engine are destroyed.
pub fn end_of_life(path: &Path, at: usize, forever: bool) -> (usize, usize) {
    let endless = Wish { stream: true, ..Wish::new(Prompt::Tokens(vec![50; 20]), 1500) };
    let before = live();
    let engine = load(path, trtllm_load_mode::Map).expect("there is memory");
    let executor = create(engine).expect("there is memory");
    let requests = [(); 6].map(|()| submit(executor, &endless).expect("there is memory"));
    allocator::arm(at, forever);
    let mut refused = usize::from(!requests[1].cancel(executor));
    // Nobody takes the responses: they join each other.
    std::thread::sleep(std::time::Duration::from_millis(30));
    let third = requests.into_iter().nth(2).expect("there are six");
    refused += usize::from(!third.cancel(executor));
    refused += usize::from(third.hear_out(executor, &mut 0).refused);
    destroy(engine, executor);
    let seen = allocator::disarm();
    assert_eq!(live() - before, 0, "bytes leaked");
    (seen, refused)
}

/// Memory was refused once: with it the same call succeeds.
fn again<T>(refused: &mut usize, call: impl FnOnce() -> Option<T>) -> T {
    allocator::disarm();
    *refused += 1;
    call().expect("there is memory now")
}

/// What a plain request says. Also fills whatever is made once in a process.
pub fn expected(path: &Path) -> Vec<u32> {
    static EXPECTED: std::sync::OnceLock<Vec<u32>> = std::sync::OnceLock::new();
    EXPECTED
        .get_or_init(|| {
            // The names of functions, which are read once.
            let _ = std::backtrace::Backtrace::force_capture().to_string();
            let engine = load(path, trtllm_load_mode::Read).expect("there is memory");
            let executor = create(engine).expect("there is memory");
            let tokens = plain_tokens(executor);
            for wish in wishes() {
                submit(executor, &wish).expect("there is memory").hear_out(executor, &mut 0);
            }
            assert!(inspect(engine, executor));
            destroy(engine, executor);
            tokens
        })
        .clone()
}

/// Requests whose every part is large enough to be refused.
fn wishes() -> Vec<Wish> {
    let long: Vec<u32> = (0..1200).map(|i| 6 + i % 900).collect();
    let text = "Once upon a time there was a little dog. ".repeat(30);
    let mut all = vec![plain(), Wish { stream: false, ..Wish::new(Prompt::Tokens(long.clone()), 600) }];
    all[1].sampling.max_tokens = 4;
    all.push(Wish { callback: true, ..Wish::new(Prompt::Text(text.clone()), 4) });
    all.push(Wish::new(Prompt::Chat(format!(r#"[{{"role": "user", "content": "{text}"}}]"#)), 4));
    let mut several = Wish { stops: vec!["x".repeat(1024); 8], stop_tokens: vec![vec![7; 1024]; 2], ..plain() };
    (several.sampling.n, several.sampling.temperature, several.sampling.logprobs) = (3, 1.0, 600);
    several.biases = 800;
    all.push(several);
    let mut penalised = Wish { logits: true, stream: false, ..Wish::new(Prompt::Tokens(long[..40].to_vec()), 6) };
    (penalised.sampling.repetition_penalty, penalised.sampling.top_p) = (1.1, 0.9);
    penalised.sampling.temperature = 1.0;
    all.push(penalised);
    all
}
