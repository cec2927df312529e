//! Who owns which block, counted from the tables and read from the model's memory after a step.

use std::collections::HashMap;

use super::coverage::Coverage;
use crate::executor::alone::{Cells, first_seen};
use crate::executor::core::Core;
use crate::executor::fake::Memory;
use crate::executor::scheduler::Scheduler;
use crate::executor::task::{Task, TaskId};
use crate::kv::Sequence;

/// Knows what belongs into every block.
pub(super) struct Auditor {
    windows: Vec<Option<usize>>,
    block_tokens: usize,
    memory: Memory,
    /// What each task's tokens leave in the cache.
    tasks: HashMap<TaskId, Cells>,
    /// The cells of a block, by all tokens up to its end.
    blocks: HashMap<Vec<u32>, Vec<u64>>,
}

/// A running task with its blocks.
#[derive(Clone, Copy)]
struct Holder<'a> {
    task: &'a Task,
    sequence: &'a Sequence,
    len: usize,
}

impl Auditor {
    pub(super) fn new(windows: &[Option<usize>], block_tokens: usize, memory: Memory) -> Self {
        let (tasks, blocks) = (HashMap::new(), HashMap::new());
        Self { windows: windows.to_vec(), block_tokens, memory, tasks, blocks }
    }

    /// Checks every block of every pool.
    pub(super) fn check(&mut self, core: &Core, coverage: &mut Coverage) {
        core.verify();
        let scheduler = core.scheduler();
        let kv = scheduler.kv();
        let running = scheduler.tasks().filter_map(|(task, sequence)| sequence.map(|sequence| (task, sequence)));
        let holders: Vec<Holder> =
            running.map(|(task, sequence)| Holder { task, sequence, len: kv.len(sequence) }).collect();
        for group in 0..self.windows.len() {
            self.check_owners(scheduler, group, &holders, coverage);
        }
        for holder in &holders {
            check_prefix(scheduler, holder, self.block_tokens);
            self.check_content(scheduler, holder);
        }
        self.check_cache(scheduler);
    }

    /// A block has one owner, or several to whom it is the same place of the same text of the same key.
    fn check_owners(&self, scheduler: &Scheduler, group: usize, holders: &[Holder], coverage: &mut Coverage) {
        let kv = scheduler.kv();
        let mut owners: HashMap<u32, (Holder, usize)> = HashMap::new();
        for holder in holders {
            let (first, blocks) = kv.held(holder.sequence, group);
            coverage.add("blocks that left a window", first as u64);
            for (at, block) in (first..).zip(blocks) {
                let Some((other, place)) = owners.insert(*block, (*holder, at)) else { continue };
                let end = (at + 1) * self.block_tokens;
                assert!(holder.task.reuse && other.task.reuse, "block {block} of {group} has two owners");
                assert!(place == at && end <= holder.len.min(other.len), "open block {block} of {group} is shared");
                assert_eq!(holder.task.key, other.task.key, "block {block} of {group} is shared between salts");
                assert_eq!(holder.task.tokens[..end], other.task.tokens[..end], "block {block} of {group}");
                coverage.note("shared blocks");
            }
        }
        let usage = kv.usage(group);
        assert_eq!(usage.used, owners.len(), "blocks of group {group} without an owner");
    }

    /// All that the task's next token sees was computed for just these tokens.
    fn check_content(&mut self, scheduler: &Scheduler, holder: &Holder) {
        let cells = self.tasks.entry(holder.task.id).or_insert_with(|| Cells::new(&self.windows, &[]));
        holder.task.tokens[cells.len()..].iter().for_each(|token| cells.push(*token));
        let memory = self.memory.lock();
        for (group, window) in self.windows.iter().enumerate() {
            let table = scheduler.kv().table(holder.sequence, group);
            for position in first_seen(holder.len, *window)..holder.len {
                let slot = table[position / self.block_tokens] as usize * self.block_tokens;
                let found = memory[group][slot + position % self.block_tokens];
                assert_eq!(found, cells.at(position, group), "{:?}, group {group}, {position}", holder.task.id);
            }
        }
    }

    /// Every indexed block, cached or not, holds what whoever finds it expects.
    fn check_cache(&mut self, scheduler: &Scheduler) {
        let memory = self.memory.lock();
        for indexed in scheduler.kv().indexed() {
            let first = indexed.tokens.len() - self.block_tokens;
            let cells = self.blocks.entry(indexed.tokens).or_insert_with_key(|tokens| {
                let cells = Cells::new(&self.windows, tokens);
                let of_group = |group| (first..tokens.len()).map(move |position| (position, group));
                (0..self.windows.len()).flat_map(of_group).map(|(at, group)| cells.at(at, group)).collect()
            });
            for (group, (block, expected)) in indexed.blocks.iter().zip(cells.chunks(self.block_tokens)).enumerate() {
                let Some(block) = block else { continue };
                let slot = *block as usize * self.block_tokens;
                assert_eq!(
                    memory[group][slot..slot + self.block_tokens],
                    *expected,
                    "indexed block {block} of {group}"
                );
            }
        }
    }
}

/// What a task shares is its own text under its own key.
fn check_prefix(scheduler: &Scheduler, holder: &Holder, block_tokens: usize) {
    let Holder { task, sequence, len } = *holder;
    if let Some((key, tokens)) = scheduler.kv().prefix(sequence) {
        assert!(task.reuse && *key == task.key, "{:?} is in the cache of another", task.id);
        assert_eq!(tokens, task.tokens[..len / block_tokens * block_tokens], "{:?}", task.id);
    }
}
