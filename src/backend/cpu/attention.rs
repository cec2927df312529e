//! `CacheAppend`, `Attention` and `FusedAttention`: a step's keys and values go into the paged cache, then every query
//! attends to its request's cache.

use std::sync::Arc;

use super::attend::{Attend, scratch_floats};
use super::cache::{Bf16, E4m3, Element, F16};
use super::operands::{Cache, Matrix, Operands};
use super::rows::Rotation;
use super::rowwise::check_rope;
use super::team::{Areas, Need, Team};
use crate::backend::{Batch, BatchRow, Kernel};
use crate::engine::{BLOCK_TOKENS, Rows};
use crate::error::{Error, Result};
use crate::types::heap;
use crate::types::{AttentionSpec, DType, RopeSpec};

/// Query rows (tokens times heads that share a KV head) of one task, about.
const TASK_QUERIES: usize = 32;
/// The widest head.
const MOST_HEAD_DIM: usize = 256;

/// Angles, and how far a head rotates.
#[derive(Clone, Copy)]
struct Rope {
    angles: Matrix,
    rotary: usize,
}

impl Rope {
    fn new(operands: &Operands<'_>, input: usize, spec: RopeSpec, head_dim: usize) -> Result<Self> {
        check_rope(operands, &spec)?;
        if spec.head_dim != head_dim {
            return Err(operands.corrupt(format!("rope turns heads of {}, not of {head_dim}", spec.head_dim)));
        }
        Ok(Rope { angles: token_rows(operands, input, spec.rotary_dim)?, rotary: spec.rotary_dim })
    }
}

/// An input with a row for each token.
fn token_rows(operands: &Operands<'_>, index: usize, columns: usize) -> Result<Matrix> {
    let input = operands.input(index)?;
    if input.rows != Rows::Tokens || input.columns != columns {
        return Err(operands.corrupt(format!("input {index} has not {columns} columns for each token")));
    }
    Ok(input)
}

/// Writes the step's keys and values.
struct Append {
    cache: Cache,
    keys: Matrix,
    values: Matrix,
    rope: Option<Rope>,
    /// Block and entry of each token of the step.
    places: Vec<(u32, usize)>,
}

impl Append {
    fn new(operands: &Operands<'_>, spec: &AttentionSpec, keys: usize, rope: Option<Rope>) -> Result<Self> {
        let cache = operands.cache(spec)?;
        let columns = spec.kv_heads * spec.head_dim;
        let places = heap::vector(operands.limits.tokens, "places in the cache")?;
        let (keys, values) = (token_rows(operands, keys, columns)?, token_rows(operands, keys + 1, columns)?);
        Ok(Append { cache, keys, values, rope, places })
    }

    /// # Safety
    /// As `launch`.
    unsafe fn run(&mut self, team: &Team, batch: &Batch) -> Result<()> {
        self.places.clear();
        for (index, row) in batch.rows.iter().enumerate() {
            let table = table(batch, index, &self.cache)?;
            check_blocks(table, row.context, row.context + row.len, self.cache.blocks)?;
            let positions = row.context..row.context + row.len;
            self.places.extend(positions.map(|p| (table[p / BLOCK_TOKENS], p % BLOCK_TOKENS)));
        }
        let append = &*self;
        let columns = 2 * append.keys.columns;
        // SAFETY: there is a place for each token, in a block of the pool.
        team.for_rows(append.places.len(), columns, &|token| unsafe {
            match append.cache.dtype {
                DType::BF16 => append.write::<Bf16>(team, token),
                DType::F16 => append.write::<F16>(team, token),
                DType::E4M3 => append.write::<E4m3>(team, token),
                _ => append.write::<f32>(team, token),
            }
        })
    }

    /// # Safety
    /// As `launch`.
    unsafe fn write<E: Element>(&self, team: &Team, token: usize) {
        let (block, entry) = self.places[token];
        let layer = &self.cache.layer;
        let mut rotated = [0.0f32; MOST_HEAD_DIM];
        for head in 0..layer.kv_heads {
            // SAFETY: the caller's; a head has at most `MOST_HEAD_DIM` elements.
            unsafe {
                let value = self.values.row(token).add(head * layer.head_dim);
                let mut key = self.keys.row(token).add(head * layer.head_dim).cast_const();
                if let Some(rope) = &self.rope {
                    let angles = rope.angles.row(token);
                    let out = rotated.as_mut_ptr();
                    let head_dim = layer.head_dim;
                    (team.compiled.rotate)(&Rotation { x: key, angles, rotary: rope.rotary, head_dim, out });
                    key = out;
                }
                layer.write::<E>(block, head, entry, key, value);
            }
        }
    }
}

/// Lets the step's queries attend.
struct Queries {
    cache: Cache,
    heads: usize,
    scale: f32,
    soft_cap: Option<f32>,
    queries: Matrix,
    rope: Option<Rope>,
    output: Matrix,
    /// First task of each row of the batch, and the end.
    starts: Vec<usize>,
}

/// Tokens of one task.
fn task_tokens(group: usize) -> usize {
    (TASK_QUERIES / group).max(1)
}

/// Scratch of an attention.
pub(super) fn need(spec: &AttentionSpec) -> Need {
    let group = spec.heads / spec.kv_heads.max(1);
    let rows = task_tokens(group.max(1)).saturating_mul(group);
    Need { shared: 0, lane: scratch_floats(rows, spec.head_dim.min(MOST_HEAD_DIM)).saturating_mul(4) }
}

impl Queries {
    fn new(operands: &Operands<'_>, spec: &AttentionSpec, rope: Option<Rope>) -> Result<Self> {
        let cache = operands.cache(spec)?;
        let columns = spec.heads * spec.head_dim;
        let output = operands.output(0)?;
        if output.rows != Rows::Tokens || output.columns != columns {
            return Err(operands.corrupt(format!("its output has not {columns} columns for each token")));
        }
        let queries = token_rows(operands, 0, columns)?;
        let starts = heap::vector(operands.limits.rows + 1, "attention tasks")?;
        let AttentionSpec { heads, scale, soft_cap, .. } = *spec;
        Ok(Queries { cache, heads, scale, soft_cap, queries, rope, output, starts })
    }

    fn group(&self) -> usize {
        self.heads / self.cache.layer.kv_heads
    }

    /// # Safety
    /// As `launch`; the keys and values of the step are in the cache.
    unsafe fn run(&mut self, team: &Team, areas: Areas, batch: &Batch) -> Result<()> {
        let tokens = task_tokens(self.group());
        self.starts.clear();
        let mut tasks = 0;
        for (index, row) in batch.rows.iter().enumerate() {
            let first = (row.context + 1).saturating_sub(self.cache.window);
            check_blocks(table(batch, index, &self.cache)?, first, row.context + row.len, self.cache.blocks)?;
            self.starts.push(tasks);
            tasks += row.len.div_ceil(tokens) * self.cache.layer.kv_heads;
        }
        let attend = match self.cache.dtype {
            DType::BF16 => team.compiled.attend_bf16,
            DType::F16 => team.compiled.attend_f16,
            DType::E4M3 => team.compiled.attend_e4m3,
            _ => team.compiled.attend_f32,
        };
        let queries = &*self;
        team.pool.run(tasks, &|lane, task| {
            // The last tokens of a row see the most keys: they go first, so that the threads end together.
            let (row, chunk, kv_head) = queries.locate(tasks - 1 - task);
            let table = batch.table(row, queries.cache.group, queries.cache.groups);
            // SAFETY: the blocks that these tokens see were checked; the lane's scratch is ours for this task.
            unsafe { attend(&queries.task(batch.rows[row], table, chunk, kv_head, areas.lane(lane))) }
        })
    }

    /// Row of the batch, chunk of its tokens and KV head of a task.
    fn locate(&self, task: usize) -> (usize, usize, usize) {
        let row = self.starts.partition_point(|start| *start <= task) - 1;
        let at = task - self.starts[row];
        (row, at / self.cache.layer.kv_heads, at % self.cache.layer.kv_heads)
    }

    /// # Safety
    /// As `launch`.
    unsafe fn task<'a>(
        &self,
        row: BatchRow,
        table: &'a [u32],
        chunk: usize,
        kv_head: usize,
        scratch: *mut f32,
    ) -> Attend<'a> {
        let group = self.group();
        let first = chunk * task_tokens(group);
        let token = row.start + first;
        let column = kv_head * group * self.cache.layer.head_dim;
        // SAFETY: the token is one of the step, the column one of the row.
        unsafe {
            Attend {
                cache: self.cache.layer,
                table,
                window: self.cache.window,
                scale: self.scale,
                soft_cap: self.soft_cap,
                kv_head,
                group,
                tokens: task_tokens(group).min(row.len - first),
                position: row.context + first,
                queries: self.queries.row(token).add(column),
                query_stride: self.queries.stride(),
                angles: self.rope.map_or(std::ptr::null(), |rope| rope.angles.row(token).cast_const()),
                angle_stride: self.rope.map_or(0, |rope| rope.angles.stride()),
                rotary: self.rope.map_or(0, |rope| rope.rotary),
                out: self.output.row(token).add(column),
                out_stride: self.output.stride(),
                scratch,
            }
        }
    }
}

/// The rows lie side by side and cover the tokens; every table is where it says.
fn check_rows(batch: &Batch, groups: usize) -> Result<()> {
    let mut end = 0;
    for row in &batch.rows {
        let next = row.start.checked_add(row.len).filter(|_| row.start == end && row.len > 0);
        end = next.ok_or_else(|| Error::internal("batch", "its rows do not lie side by side"))?;
        if row.context.checked_add(row.len).is_none() {
            return Err(Error::internal("batch", "a row's context is impossible"));
        }
    }
    let sound = end == batch.tokens.len()
        && batch.table_starts.len() == batch.rows.len() * groups + 1
        && batch.table_starts.is_sorted()
        && batch.table_starts.last().is_some_and(|end| *end <= batch.tables.len());
    if sound { Ok(()) } else { Err(Error::internal("batch", "its rows or block tables do not cover its tokens")) }
}

fn table<'a>(batch: &'a Batch, row: usize, cache: &Cache) -> Result<&'a [u32]> {
    let at = row * cache.groups + cache.group;
    let range = batch.table_starts.get(at).zip(batch.table_starts.get(at + 1));
    let table = range.and_then(|(start, end)| batch.tables.get(*start..*end));
    table.ok_or_else(|| Error::internal("batch", format!("row {row} has no block table for group {}", cache.group)))
}

/// The blocks of positions `first..end` are in the table and in a pool of `blocks`.
fn check_blocks(table: &[u32], first: usize, end: usize, blocks: usize) -> Result<()> {
    let used = table.get(first / BLOCK_TOKENS..end.div_ceil(BLOCK_TOKENS)).ok_or_else(|| {
        Error::internal("batch", format!("a table of {} blocks does not cover {end} tokens", table.len()))
    })?;
    match used.iter().find(|block| **block as usize >= blocks) {
        Some(block) => Err(Error::internal("batch", format!("block {block} is not in the pool of {blocks}"))),
        None => Ok(()),
    }
}

/// `CacheAppend`.
pub(super) struct CacheAppend {
    team: Arc<Team>,
    append: Append,
}

impl CacheAppend {
    pub(super) fn new(team: Arc<Team>, operands: &Operands<'_>, spec: &AttentionSpec) -> Result<Self> {
        Ok(CacheAppend { team, append: Append::new(operands, spec, 0, None)? })
    }
}

impl Kernel for CacheAppend {
    unsafe fn launch(&mut self, batch: &Batch) -> Result<()> {
        check_rows(batch, self.append.cache.groups)?;
        let _turn = self.team.scratch();
        // SAFETY: the caller's.
        unsafe { self.append.run(&self.team, batch) }
    }
}

/// `Attention`, or `FusedAttention` when it appends.
pub(super) struct Attention {
    team: Arc<Team>,
    append: Option<Append>,
    queries: Queries,
}

impl Attention {
    pub(super) fn plain(team: Arc<Team>, operands: &Operands<'_>, spec: &AttentionSpec) -> Result<Self> {
        Ok(Attention { team, append: None, queries: Queries::new(operands, spec, None)? })
    }

    pub(super) fn fused(
        team: Arc<Team>,
        operands: &Operands<'_>,
        spec: &AttentionSpec,
        rope: Option<RopeSpec>,
    ) -> Result<Self> {
        let rope = rope.map(|rope| Rope::new(operands, 3, rope, spec.head_dim)).transpose()?;
        let append = Some(Append::new(operands, spec, 1, rope)?);
        Ok(Attention { team, append, queries: Queries::new(operands, spec, rope)? })
    }
}

impl Kernel for Attention {
    unsafe fn launch(&mut self, batch: &Batch) -> Result<()> {
        check_rows(batch, self.queries.cache.groups)?;
        let turn = self.team.scratch();
        // SAFETY: the caller's; the pool's run returns when all is written, so the append is complete before any query.
        unsafe {
            if let Some(append) = &mut self.append {
                append.run(&self.team, batch)?;
            }
            self.queries.run(&self.team, turn.areas, batch)
        }
    }
}
