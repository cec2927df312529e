//! Each rule of the room on its own.

use super::traces::TestHash;
use super::*;
use crate::error::Status;

/// Blocks of 4 tokens, one group of whole context.
fn config(blocks: usize) -> KvConfig {
    let groups = vec![GroupSpec { window: None }];
    KvConfig { block_tokens: 4, blocks, groups, prefix_reuse: true, sequence_tokens: 64, sequences: 1 }
}

fn manager(blocks: usize) -> KvManager<TestHash> {
    KvManager::with_hasher(config(blocks), TestHash::Spread).unwrap()
}

fn windowed(blocks: usize, window: usize) -> KvManager {
    KvManager::new(KvConfig { groups: vec![GroupSpec { window: Some(window) }], ..config(blocks) }).unwrap()
}

fn start<S: std::hash::BuildHasher>(manager: &mut KvManager<S>, tokens: &[u32]) -> Sequence {
    manager.start(tokens, &PrefixKey::default(), true).unwrap()
}

/// Computes the rest of `tokens` in one step.
fn fill<S: std::hash::BuildHasher>(manager: &mut KvManager<S>, sequence: &Sequence, tokens: &[u32]) {
    let rest = &tokens[manager.len(sequence)..];
    assert!(manager.reserve(sequence, rest.len()));
    manager.commit(sequence, rest).unwrap();
    manager.verify().unwrap();
}

fn run<S: std::hash::BuildHasher>(manager: &mut KvManager<S>, tokens: &[u32]) -> Sequence {
    let sequence = start(manager, tokens);
    fill(manager, &sequence, tokens);
    sequence
}

fn tokens(n: u32) -> Vec<u32> {
    (0..n).collect()
}

#[test]
fn impossible_configs_and_starts_name_the_culprit() {
    let refused = |config: KvConfig| KvManager::new(config).err().map(|error| (error.status(), error.to_string()));
    let named = |config: KvConfig, field: &str| {
        let (status, text) = refused(config).unwrap();
        assert!(status == Status::InvalidArgument && text.contains(field), "{text}");
    };
    named(KvConfig { block_tokens: 0, ..config(1) }, "block_tokens");
    named(config(0), "`blocks`");
    named(config(1 << 32), "`blocks`");
    named(KvConfig { groups: vec![], ..config(1) }, "groups");
    named(KvConfig { groups: vec![GroupSpec { window: Some(0) }], ..config(1) }, "window");

    let mut manager = manager(4);
    let key = PrefixKey { adapter: 0, salt: vec![0; MAX_SALT_BYTES + 1] };
    assert!(manager.start(&[1], &key, true).unwrap_err().to_string().contains("salt"));
    assert!(manager.start(&[], &PrefixKey::default(), true).unwrap_err().to_string().contains("tokens"));
    assert_eq!(manager.sequences(), 0);
}

#[test]
fn a_hit_leaves_at_least_one_token() {
    let mut manager = manager(8);
    let first = run(&mut manager, &tokens(8));
    let (same, longer) = (start(&mut manager, &tokens(8)), start(&mut manager, &tokens(9)));
    assert_eq!(manager.len(&same), 4);
    assert_eq!(manager.len(&longer), 8);
    assert_eq!(manager.table(&longer, 0), manager.table(&first, 0));
    let stats = manager.stats();
    assert_eq!((stats.lookups, stats.lookup_tokens, stats.hit_tokens), (3, 25, 12));
}

#[test]
fn adapter_and_salt_separate_and_reuse_is_a_choice() {
    let mut manager = manager(16);
    let _first = run(&mut manager, &tokens(8));
    let cached = |manager: &mut KvManager<TestHash>, adapter, salt: &[u8], reuse| {
        let sequence = manager.start(&tokens(9), &PrefixKey { adapter, salt: salt.to_vec() }, reuse).unwrap();
        manager.len(&sequence)
    };
    assert_eq!(cached(&mut manager, 0, b"", true), 8);
    assert_eq!(cached(&mut manager, 1, b"", true), 0);
    assert_eq!(cached(&mut manager, 0, b"s", true), 0);
    assert_eq!(cached(&mut manager, 0, b"", false), 0);
}

#[test]
fn a_private_sequence_gives_nothing_to_the_cache() {
    let mut manager = manager(8);
    let private = manager.start(&tokens(8), &PrefixKey::default(), false).unwrap();
    fill(&mut manager, &private, &tokens(8));
    manager.release(private);
    assert_eq!(manager.usage(0), Usage { free: 8, cached: 0, used: 0 });
}

#[test]
fn equal_hashes_are_told_apart_by_tokens() {
    let mut manager = KvManager::with_hasher(config(8), TestHash::Collide).unwrap();
    let (one, two) = (run(&mut manager, &[1, 1, 1, 1, 9]), run(&mut manager, &[2, 2, 2, 2, 9]));
    for before in [one, two] {
        let first = manager.table(&before, 0)[0];
        let again = start(&mut manager, if first == 0 { &[1, 1, 1, 1, 9] } else { &[2, 2, 2, 2, 9] });
        assert_eq!(manager.table(&again, 0), [first]);
    }
    let three = start(&mut manager, &[3, 3, 3, 3, 9]);
    assert_eq!(manager.len(&three), 0);
}

#[test]
fn a_reservation_is_all_or_nothing() {
    let mut manager = manager(3);
    let a = run(&mut manager, &tokens(5));
    let b = start(&mut manager, &[7, 7, 7, 7, 7]);
    assert!(!manager.reserve(&b, 5));
    assert!(!manager.reserve(&b, usize::MAX));
    assert_eq!((manager.reserved(&b), manager.table(&b, 0).len()), (0, 0));
    assert!(manager.reserve(&b, 4));
    assert!(manager.reserve(&a, 3) && !manager.reserve(&a, 1));
}

#[test]
fn more_than_reserved_cannot_be_committed() {
    let mut manager = manager(3);
    let a = start(&mut manager, &[1]);
    assert!(manager.reserve(&a, 2));
    assert_eq!(manager.commit(&a, &[1, 2, 3]).unwrap_err().status(), Status::Internal);
    assert_eq!(manager.len(&a), 0);
}

#[test]
fn the_least_recently_used_leaf_is_evicted_first() {
    let mut manager = manager(5);
    let a = run(&mut manager, &tokens(8));
    manager.release(a);
    let b = run(&mut manager, &[9; 8]);
    manager.release(b);
    // Touch the first: now the deepest block of the second is the oldest.
    let a = start(&mut manager, &tokens(9));
    manager.release(a);
    let c = run(&mut manager, &[5; 8]);
    let (b, a) = (start(&mut manager, &[9; 9]), start(&mut manager, &tokens(9)));
    assert_eq!((manager.len(&b), manager.len(&a)), (4, 8));
    assert_eq!(manager.stats().evicted_blocks, 1);
    manager.release(c);
    manager.verify().unwrap();
}

#[test]
fn a_preempted_sequence_finds_its_own_blocks() {
    let mut manager = manager(4);
    let a = run(&mut manager, &tokens(11));
    let table = manager.table(&a, 0)[..2].to_vec();
    manager.release(a);
    let a = start(&mut manager, &tokens(11));
    assert_eq!((manager.len(&a), manager.table(&a, 0)), (8, &table[..]));
}

#[test]
fn two_that_compute_the_same_end_with_one_block() {
    let mut manager = manager(8);
    let (a, b) = (start(&mut manager, &tokens(6)), start(&mut manager, &tokens(6)));
    assert!(manager.reserve(&a, 6) && manager.reserve(&b, 6));
    assert_eq!(manager.usage(0).used, 4);
    manager.commit(&a, &tokens(6)).unwrap();
    manager.commit(&b, &tokens(6)).unwrap();
    manager.verify().unwrap();
    assert_eq!(manager.usage(0).used, 3);
    assert_eq!(manager.table(&a, 0)[0], manager.table(&b, 0)[0]);
    assert_ne!(manager.table(&a, 0)[1], manager.table(&b, 0)[1]);
}

#[test]
fn truncation_reopens_an_own_block() {
    let mut manager = manager(8);
    let a = run(&mut manager, &tokens(13));
    let table = manager.table(&a, 0).to_vec();
    assert_eq!(manager.truncate(&a, 7), 6);
    manager.verify().unwrap();
    assert_eq!(manager.table(&a, 0), &table[..2]);
    assert_eq!(manager.usage(0), Usage { free: 6, cached: 0, used: 2 });
    // What the block becomes now is found under its new tokens only.
    fill(&mut manager, &a, &[0, 1, 2, 3, 4, 5, 60, 70]);
    let (new, old) = (start(&mut manager, &[0, 1, 2, 3, 4, 5, 60, 70, 8]), start(&mut manager, &tokens(13)));
    assert_eq!((manager.len(&new), manager.len(&old)), (8, 4));
}

#[test]
fn truncation_falls_back_before_a_shared_block() {
    let mut manager = manager(8);
    let (a, b) = (run(&mut manager, &tokens(9)), run(&mut manager, &tokens(9)));
    assert_eq!(manager.truncate(&a, 3), 4);
    manager.verify().unwrap();
    assert_eq!(manager.len(&b), 9);
    assert_eq!(manager.usage(0).used, 3);
}

#[test]
fn truncation_falls_back_before_a_cached_continuation_of_another() {
    let mut manager = manager(8);
    let a = run(&mut manager, &tokens(5));
    let b = run(&mut manager, &tokens(9));
    manager.release(b);
    assert_eq!(manager.truncate(&a, 3), 0);
    manager.verify().unwrap();
    let again = start(&mut manager, &tokens(9));
    assert_eq!(manager.len(&again), 8);
}

#[test]
fn truncation_gives_reservations_back() {
    let mut manager = manager(8);
    let a = run(&mut manager, &tokens(5));
    assert!(manager.reserve(&a, 10));
    assert_eq!(manager.truncate(&a, 0), 5);
    assert_eq!((manager.reserved(&a), manager.usage(0).used), (0, 2));
    assert_eq!(manager.truncate(&a, 99), 0);
    assert_eq!(manager.usage(0), Usage { free: 7, cached: 1, used: 0 });
}

#[test]
fn a_window_gives_back_what_slid_out() {
    let mut manager = windowed(4, 5);
    assert!(manager.fits_ever(1000, 4) && !manager.fits_ever(1000, 16));
    let a = start(&mut manager, &tokens(40));
    for step in tokens(40).chunks(4) {
        assert!(manager.reserve(&a, 4));
        manager.commit(&a, step).unwrap();
        manager.verify().unwrap();
    }
    assert_eq!(manager.table(&a, 0).len(), 10);
    assert!(manager.usage(0).used <= 3);
    // The last reservation can be taken back; what lies before it is gone with its window.
    assert_eq!(manager.truncate(&a, 4), 36);
    assert_eq!(manager.truncate(&a, 8), 0);
    manager.verify().unwrap();
}

#[test]
fn a_windowed_hit_needs_only_the_window() {
    let mut manager = windowed(4, 5);
    let a = start(&mut manager, &tokens(24));
    for step in tokens(24).chunks(4) {
        assert!(manager.reserve(&a, 4));
        manager.commit(&a, step).unwrap();
    }
    manager.release(a);
    // Six blocks were written to four: the beginning is gone, the end is not.
    let (whole, part) = (start(&mut manager, &tokens(25)), start(&mut manager, &tokens(9)));
    assert_eq!((manager.len(&whole), manager.len(&part)), (24, 0));
    manager.verify().unwrap();
}

#[test]
fn clearing_spares_what_is_in_use() {
    let mut manager = manager(8);
    let a = run(&mut manager, &tokens(9));
    let b = run(&mut manager, &tokens(4).repeat(3));
    manager.release(b);
    manager.clear_cache();
    manager.verify().unwrap();
    assert_eq!(manager.usage(0), Usage { free: 5, cached: 0, used: 3 });
    assert_eq!(manager.len(&a), 9);
}

#[test]
fn blocks_needed_is_the_peak_of_the_largest_group() {
    assert_eq!(manager(8).blocks_needed(9, 1), 3);
    // 4 old tokens and 4 new ones at the worst alignment touch 3 blocks.
    assert_eq!(windowed(8, 5).blocks_needed(1000, 4), 3);
    assert_eq!(windowed(8, 5).blocks_needed(6, 4), 2);
}

#[test]
fn decoding_allocates_nothing_once_warm() {
    let mut manager = manager(28);
    let mut round = |offset: u32| {
        let prompt: Vec<u32> = (offset..offset + 20).collect();
        let sequences = [run(&mut manager, &prompt), run(&mut manager, &prompt)];
        for token in 0..40 {
            for (sequence, lane) in sequences.iter().zip(0..) {
                assert!(manager.reserve(sequence, 1));
                manager.commit(sequence, &[token * 2 + lane]).unwrap();
            }
        }
        sequences.into_iter().for_each(|sequence| manager.release(sequence));
        manager.capacities()
    };
    let warm = round(0);
    for offset in 1..200 {
        // A map with removals reports less than it has allocated, never more.
        assert!(round(offset).iter().zip(&warm).all(|(now, warm)| now <= warm));
    }
    assert!(manager.stats().evicted_blocks > 1000);
}
