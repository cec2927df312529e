//! A step's input on the device: one block of arrays at fixed places, filled in pinned memory and copied in one piece.

use std::collections::HashMap;

use super::call::{Count, Input};
use super::sample::{self, AdjustmentEntry, Entry, MOST_ADJUSTMENTS};
use crate::backend::Batch;
use crate::engine::{BLOCK_TOKENS, Limits};

/// Multiple at which arrays start.
const ALIGNMENT: usize = 64;

/// A row as the attention kernels see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Row {
    /// First token in the step.
    pub(super) token: u32,
    /// Tokens in the step; 0 is padding.
    pub(super) len: u32,
    /// Tokens in the cache before the step.
    pub(super) context: u32,
    /// First entry of its block table.
    pub(super) table: u32,
}

/// Where the arrays lie, in bytes from the start.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    offsets: HashMap<Input, usize>,
    groups: usize,
    /// Tokens of a query tile.
    tile: usize,
    pub(super) bytes: usize,
}

/// How much of a step there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) tokens: u32,
    pub(super) logit_rows: u32,
    pub(super) decode_rows: u32,
    pub(super) tiles: u32,
    /// Bytes in use at the block's start.
    pub(super) bytes: usize,
    /// Bytes in use from [`Input::Adjustments`] on, far behind them.
    pub(super) adjustment_bytes: usize,
}

impl Counts {
    pub(super) fn of(&self, count: Count) -> u32 {
        match count {
            Count::Tokens => self.tokens,
            Count::LogitRows => self.logit_rows,
            Count::DecodeRows => self.decode_rows,
            Count::Tiles => self.tiles,
        }
    }
}

impl Layout {
    pub(super) fn new(limits: Limits, groups: usize, tile: usize, table_entries: usize) -> Self {
        let mut offsets = HashMap::new();
        let mut bytes = 0usize;
        let mut place = |input: Input, size: usize| {
            offsets.insert(input, bytes);
            bytes = (bytes + size).next_multiple_of(ALIGNMENT);
        };
        place(Input::LogitRows, 4 * limits.logit_rows);
        place(Input::Samples, size_of::<Entry>() * limits.logit_rows);
        for group in 0..groups {
            place(Input::Rows(group), size_of::<Row>() * limits.rows);
        }
        place(Input::Tokens, 4 * limits.tokens);
        place(Input::Positions, 4 * limits.tokens);
        for group in 0..groups {
            place(Input::Slots(group), 4 * limits.tokens);
        }
        // A row of n tokens has at most n / tile + 1 tiles.
        place(Input::Tiles, 8 * (limits.tokens / tile + limits.rows + 1));
        place(Input::Tables, 4 * table_entries);
        place(Input::Adjustments, size_of::<AdjustmentEntry>() * MOST_ADJUSTMENTS);
        Self { offsets, groups, tile, bytes }
    }

    pub(super) fn offset(&self, input: Input) -> usize {
        self.offsets[&input]
    }

    /// Entries that the tables may have.
    fn table_capacity(&self) -> usize {
        (self.offset(Input::Adjustments) - self.offset(Input::Tables)) / 4
    }

    /// Writes a batch, padded to `padded` rows of one token where that is more, and tells how much there is. With
    /// `tiles_only` no row counts as a decode row.
    ///
    /// # Safety
    /// `block` has [`Layout::bytes`] bytes and nobody else uses it; the batch was checked against the limits.
    pub(super) unsafe fn fill(&self, block: *mut u8, batch: &Batch, padded: usize, tiles_only: bool) -> Counts {
        let tokens = batch.tokens.len();
        let decode_rows = match tiles_only {
            true => 0,
            false => batch.rows.iter().take_while(|row| row.len == 1).count(),
        };
        // SAFETY: every array has room for the limits, which the batch keeps; the padding is within them too.
        unsafe {
            self.fill_tokens(block, batch, padded);
            let rows = batch.logit_rows.len().max(padded);
            sample::fill(self.at(block, Input::Samples), self.at(block, Input::Adjustments), batch, rows);
            let table_end = self.fill_rows(block, batch, padded);
            let tiles = self.fill_tiles(block, batch, decode_rows);
            Counts {
                tokens: tokens.max(padded) as u32,
                logit_rows: batch.logit_rows.len().max(padded) as u32,
                decode_rows: decode_rows.max(padded) as u32,
                tiles,
                bytes: table_end,
                adjustment_bytes: batch.adjustments.len() * size_of::<AdjustmentEntry>(),
            }
        }
    }

    unsafe fn at<T>(&self, block: *mut u8, input: Input) -> *mut T {
        // SAFETY: the offset lies within the block.
        unsafe { block.add(self.offset(input)).cast() }
    }

    unsafe fn fill_tokens(&self, block: *mut u8, batch: &Batch, padded: usize) {
        // SAFETY: the caller's.
        unsafe {
            let (ids, positions) = (self.at::<i32>(block, Input::Tokens), self.at::<u32>(block, Input::Positions));
            for (index, (id, position)) in batch.tokens.iter().zip(&batch.positions).enumerate() {
                ids.add(index).write(*id as i32);
                positions.add(index).write(*position);
            }
            for index in batch.tokens.len()..padded {
                ids.add(index).write(0);
                positions.add(index).write(0);
            }
            for feed in &batch.feeds {
                // The embedding takes the id from the slot.
                ids.add(feed.token as usize).write(-1 - feed.slot as i32);
            }
            let logits = self.at::<u32>(block, Input::LogitRows);
            for (index, row) in batch.logit_rows.iter().enumerate() {
                logits.add(index).write(*row);
            }
            for index in batch.logit_rows.len()..padded {
                logits.add(index).write(index as u32);
            }
        }
    }

    /// Rows, slots and tables; returns where the tables end.
    unsafe fn fill_rows(&self, block: *mut u8, batch: &Batch, padded: usize) -> usize {
        let mut entry = 0;
        // SAFETY: the caller's.
        unsafe {
            let tables = self.at::<u32>(block, Input::Tables);
            for group in 0..self.groups {
                let (rows, slots) =
                    (self.at::<Row>(block, Input::Rows(group)), self.at::<u32>(block, Input::Slots(group)));
                for (index, row) in batch.rows.iter().enumerate() {
                    let table = batch.table(index, group, self.groups);
                    let used = (row.context + row.len).div_ceil(BLOCK_TOKENS);
                    debug_assert!(entry + used <= self.table_capacity());
                    std::ptr::copy_nonoverlapping(table.as_ptr(), tables.add(entry), used);
                    for token in 0..row.len {
                        let position = row.context + token;
                        let slot = table[position / BLOCK_TOKENS] as usize * BLOCK_TOKENS + position % BLOCK_TOKENS;
                        slots.add(row.start + token).write(slot as u32);
                    }
                    rows.add(index).write(Row {
                        token: row.start as u32,
                        len: row.len as u32,
                        context: row.context as u32,
                        table: entry as u32,
                    });
                    entry += used;
                }
                for index in batch.rows.len()..padded {
                    // No kernel writes for a row without tokens, and what appends by slots is no part of padded steps.
                    rows.add(index).write(Row { token: index as u32, len: 0, context: 0, table: 0 });
                }
            }
        }
        self.offset(Input::Tables) + 4 * entry
    }

    unsafe fn fill_tiles(&self, block: *mut u8, batch: &Batch, decode_rows: usize) -> u32 {
        let mut count = 0;
        // SAFETY: the caller's.
        unsafe {
            let tiles = self.at::<[u32; 2]>(block, Input::Tiles);
            for (index, row) in batch.rows.iter().enumerate().skip(decode_rows) {
                for first in (0..row.len).step_by(self.tile) {
                    tiles.add(count).write([index as u32, first as u32]);
                    count += 1;
                }
            }
        }
        count as u32
    }
}
