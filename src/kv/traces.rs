//! Random traces on tiny pools against a model that knows what was last written to every slot of every block.

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;

use super::{GroupSpec, KvConfig, KvManager, PrefixKey, Sequence};

/// Hashes everything to 0, or properly and always the same.
#[derive(Clone, Copy)]
pub(super) enum TestHash {
    Collide,
    Spread,
}

pub(super) struct TestHasher(TestHash, DefaultHasher);

impl BuildHasher for TestHash {
    type Hasher = TestHasher;
    fn build_hasher(&self) -> TestHasher {
        TestHasher(*self, DefaultHasher::new())
    }
}

impl Hasher for TestHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.1.write(bytes);
    }
    fn finish(&self) -> u64 {
        match self.0 {
            TestHash::Collide => 0,
            TestHash::Spread => self.1.finish(),
        }
    }
}

/// What a cache slot holds: keys and values depend on the adapter and on all tokens up to their own.
fn content(key: &PrefixKey, prefix: &[u32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, prefix).hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug, Clone)]
enum Action {
    Start {
        prompt: Vec<u32>,
        key: usize,
        reuse: bool,
    },
    /// Reserve, compute, and commit a part of what is reserved.
    Step {
        who: Index,
        reserve: usize,
        commit: Index,
        sampled: Vec<u32>,
    },
    Truncate {
        who: Index,
        drop: usize,
    },
    Release {
        who: Index,
    },
    /// Release and start again with all tokens so far.
    Preempt {
        who: Index,
    },
    Clear,
}

struct Live {
    sequence: Sequence,
    key: PrefixKey,
    reuse: bool,
    prompt: Vec<u32>,
    tokens: Vec<u32>,
}

struct Model {
    config: KvConfig,
    manager: KvManager<TestHash>,
    live: Vec<Live>,
    /// By group, block and slot.
    written: Vec<Vec<Vec<u64>>>,
}

fn key(number: usize) -> PrefixKey {
    PrefixKey { adapter: (number / 2) as u64, salt: vec![7; number % 2] }
}

impl Model {
    fn new(config: KvConfig, hash: TestHash) -> Self {
        let written = vec![vec![vec![0; config.block_tokens]; config.blocks]; config.groups.len()];
        let manager = KvManager::with_hasher(config.clone(), hash).unwrap();
        Model { config, manager, live: Vec::new(), written }
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Start { prompt, key: number, reuse } => self.start(prompt, key(number), reuse),
            Action::Clear => self.clear(),
            _ if self.live.is_empty() => {}
            Action::Step { who, reserve, commit, sampled } => {
                self.step(who.index(self.live.len()), reserve, commit, &sampled);
            }
            Action::Truncate { who, drop } => self.truncate(who.index(self.live.len()), drop),
            Action::Release { who } => {
                let live = self.live.swap_remove(who.index(self.live.len()));
                self.manager.release(live.sequence);
            }
            Action::Preempt { who } => {
                let live = self.live.swap_remove(who.index(self.live.len()));
                self.manager.release(live.sequence);
                let prompt = if live.tokens.len() > live.prompt.len() { live.tokens } else { live.prompt };
                self.start(prompt, live.key, live.reuse);
            }
        }
    }

    fn start(&mut self, prompt: Vec<u32>, key: PrefixKey, reuse: bool) {
        let sequence = self.manager.start(&prompt, &key, reuse).unwrap();
        let cached = self.manager.len(&sequence);
        assert!(cached < prompt.len() && cached.is_multiple_of(self.config.block_tokens));
        assert!(cached == 0 || reuse && self.config.prefix_reuse);
        let tokens = prompt[..cached].to_vec();
        self.live.push(Live { sequence, key, reuse, prompt, tokens });
    }

    fn step(&mut self, who: usize, reserve: usize, commit: Index, sampled: &[u32]) {
        let Live { sequence, tokens, prompt, key, .. } = &mut self.live[who];
        let before = self.manager.table(sequence, 0).len();
        let after = (tokens.len() + self.manager.reserved(sequence) + reserve).div_ceil(self.config.block_tokens);
        let granted = self.manager.reserve(sequence, reserve);
        let tightest = (0..self.config.groups.len()).map(|group| self.manager.usage(group).used).max().unwrap();
        if !granted {
            assert!(tightest + after - before > self.config.blocks, "refused though there is room");
        }
        let reserved = self.manager.reserved(sequence);
        for at in tokens.len()..tokens.len() + reserved {
            write(&self.manager, &mut self.written, sequence, at, u64::MAX);
        }
        let start = tokens.len();
        for at in start..start + commit.index(reserved + 1) {
            tokens.push(prompt.get(at).copied().unwrap_or(sampled[at % sampled.len()]));
            write(&self.manager, &mut self.written, sequence, at, content(key, tokens));
        }
        self.manager.commit(sequence, &tokens[start..]).unwrap();
    }

    fn truncate(&mut self, who: usize, drop: usize) {
        let Live { sequence, tokens, .. } = &mut self.live[who];
        let kept = self.manager.truncate(sequence, drop);
        let wanted = tokens.len().saturating_sub(drop);
        assert!(kept <= wanted && self.manager.reserved(sequence) == 0);
        assert!(kept == wanted || kept.is_multiple_of(self.config.block_tokens));
        tokens.truncate(kept);
    }

    fn clear(&mut self) {
        self.manager.clear_cache();
        assert!((0..self.config.groups.len()).all(|group| self.manager.usage(group).cached == 0));
    }

    fn check(&self) {
        self.manager.verify().unwrap();
        for live in &self.live {
            assert_eq!(self.manager.len(&live.sequence), live.tokens.len());
            for group in 0..self.config.groups.len() {
                self.check_table(live, group);
            }
        }
        self.check_tree();
    }

    /// Every slot that the next token sees holds what it should.
    fn check_table(&self, live: &Live, group: usize) {
        let table = self.manager.table(&live.sequence, group);
        let len = live.tokens.len();
        let seen = self.config.groups[group].window.map_or(0, |window| (len + 1).saturating_sub(window));
        for at in seen..len {
            let block = table[at / self.config.block_tokens] as usize;
            let slot = self.written[group][block][at % self.config.block_tokens];
            assert_eq!(slot, content(&live.key, &live.tokens[..=at]), "group {group}, position {at} of {len}");
        }
    }

    /// Every indexed block holds what a hit on it promises.
    fn check_tree(&self) {
        for indexed in self.manager.indexed() {
            let first = indexed.tokens.len() - self.config.block_tokens;
            for (group, block) in indexed.blocks.iter().enumerate() {
                let Some(block) = block else { continue };
                for (slot, written) in self.written[group][*block as usize].iter().enumerate() {
                    let promised = content(indexed.key, &indexed.tokens[..=first + slot]);
                    assert_eq!(*written, promised, "indexed block {block} of group {group}");
                }
            }
        }
    }
}

/// Writes `value` for position `at`, which must be nobody else's and not promised to anybody.
fn write(manager: &KvManager<TestHash>, written: &mut [Vec<Vec<u64>>], sequence: &Sequence, at: usize, value: u64) {
    for (group, written) in written.iter_mut().enumerate() {
        let block_tokens = written[0].len();
        let id = manager.table(sequence, group)[at / block_tokens] as usize;
        let block = &manager.cache.pools[group].blocks[id];
        assert!(block.node.is_none() && block.refs == 1, "position {at} is written to a shared block");
        written[id][at % block_tokens] = value;
    }
}

fn action() -> impl Strategy<Value = Action> {
    let who = any::<Index>;
    prop_oneof![
        3 => (vec(0..2u32, 1..14), 0..3usize, prop::bool::weighted(0.9))
            .prop_map(|(prompt, key, reuse)| Action::Start { prompt, key, reuse }),
        8 => (who(), 0..7usize, any::<Index>(), vec(0..2u32, 3))
            .prop_map(|(who, reserve, commit, sampled)| Action::Step { who, reserve, commit, sampled }),
        3 => (who(), 0..9usize).prop_map(|(who, drop)| Action::Truncate { who, drop }),
        2 => who().prop_map(|who| Action::Release { who }),
        1 => who().prop_map(|who| Action::Preempt { who }),
        1 => Just(Action::Clear),
    ]
}

fn config() -> impl Strategy<Value = KvConfig> {
    let group = prop::option::of(1..9usize).prop_map(|window| GroupSpec { window });
    (1..5usize, 3..14usize, vec(group, 1..4), prop::bool::weighted(0.9)).prop_map(
        |(block_tokens, blocks, groups, prefix_reuse)| KvConfig {
            block_tokens,
            blocks,
            groups,
            prefix_reuse,
            sequence_tokens: 16,
            sequences: 2,
        },
    )
}

fn cases(cases: u32) -> ProptestConfig {
    // Miri takes a thousand times as long.
    let cases = if cfg!(miri) { 10 } else { cases };
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(20), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn random_traces_keep_every_promise(
        config in config(),
        collide in any::<bool>(),
        actions in vec(action(), 1..80),
    ) {
        let mut model = Model::new(config, if collide { TestHash::Collide } else { TestHash::Spread });
        for action in actions {
            model.apply(action);
            model.check();
        }
        for live in model.live.drain(..) {
            model.manager.release(live.sequence);
        }
        model.check();
        model.clear();
        model.check();
        prop_assert_eq!(model.manager.sequences(), 0);
        prop_assert_eq!(model.manager.available_blocks(), model.config.blocks);
        prop_assert!(model.manager.cache.tree.roots.is_empty() && model.manager.cache.tree.heads.is_empty());
    }

    #[test]
    fn in_a_large_pool_a_start_finds_the_longest_common_prefix(
        prompts in vec((vec(0..2u32, 1..20), 0..3usize), 1..12),
        window in prop::option::of(1..9usize),
        collide in any::<bool>(),
    ) {
        let groups = vec![GroupSpec { window: None }, GroupSpec { window }];
        let config = KvConfig { block_tokens: 2, blocks: 200, groups, prefix_reuse: true, sequence_tokens: 20, sequences: 0 };
        let mut model = Model::new(config, if collide { TestHash::Collide } else { TestHash::Spread });
        let common = |a: &[u32], b: &[u32]| {
            let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
            same.min(a.len() - 1) / 2 * 2
        };
        for (at, (prompt, number)) in prompts.iter().enumerate() {
            let before = prompts[..at].iter().filter(|(_, other)| other == number);
            let longest = before.map(|(other, _)| common(prompt, other)).max().unwrap_or(0);
            let sequence = model.manager.start(prompt, &key(*number), true).unwrap();
            prop_assert_eq!(model.manager.len(&sequence), longest);
            prop_assert!(model.manager.reserve(&sequence, prompt.len() - longest));
            model.manager.commit(&sequence, &prompt[longest..]).unwrap();
            if at % 2 == 0 {
                model.manager.release(sequence);
            } else {
                let (key, prompt) = (key(*number), prompt.clone());
                model.live.push(Live { sequence, key, reuse: true, tokens: prompt.clone(), prompt });
            }
            model.manager.verify().unwrap();
        }
    }

    #[test]
    fn a_sequence_that_fits_ever_fits_alone(
        config in config(),
        before in vec(action(), 0..20),
        mut prompt in vec(0..2u32, 1..60),
        step in 1..9usize,
    ) {
        let mut model = Model::new(config, TestHash::Spread);
        before.into_iter().for_each(|action| model.apply(action));
        for live in model.live.drain(..) {
            model.manager.release(live.sequence);
        }
        while !model.manager.fits_ever(prompt.len(), step) {
            prompt.pop();
        }
        let sequence = model.manager.start(&prompt, &PrefixKey::default(), true).unwrap();
        while model.manager.len(&sequence) < prompt.len() {
            let at = model.manager.len(&sequence);
            let next = &prompt[at..prompt.len().min(at + step)];
            prop_assert!(model.manager.reserve(&sequence, next.len()));
            model.manager.commit(&sequence, next).unwrap();
        }
        model.manager.release(sequence);
        model.manager.verify().unwrap();
    }
}
