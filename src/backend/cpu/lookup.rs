//! Operations that start from ids and positions: embeddings, rotary angles, and the choice of logit rows.

use std::sync::Arc;

use super::cache::{Bf16, Element, F16};
use super::operands::{Matrix, Operands, Table, Vector};
use super::team::Team;
use crate::backend::{Batch, Kernel};
use crate::engine::{PANEL, Packing, Rows};
use crate::error::{Error, Result};
use crate::types::DType;

/// Which numbers of a batch name rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    Tokens,
    Positions,
}

impl Index {
    fn of(self, batch: &Batch) -> &[u32] {
        match self {
            Index::Tokens => &batch.tokens,
            Index::Positions => &batch.positions,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Index::Tokens => "token id",
            Index::Positions => "position",
        }
    }
}

fn per_token(operands: &Operands<'_>, output: &Matrix) -> Result<()> {
    match output.rows {
        Rows::Tokens => Ok(()),
        Rows::LogitRows => Err(operands.corrupt("its output has not a row per token")),
    }
}

/// `Embedding` and `PositionEmbedding`.
pub(super) struct Embed {
    team: Arc<Team>,
    table: Table,
    index: Index,
    scale: f32,
    output: Matrix,
}

impl Embed {
    pub(super) fn new(team: Arc<Team>, operands: &Operands<'_>, index: Index, scale: f32) -> Result<Self> {
        let output = operands.output(0)?;
        per_token(operands, &output)?;
        Ok(Embed { team, table: operands.table(0, output.columns)?, index, scale, output })
    }

    /// # Safety
    /// As `launch`; `id` is a row of the table and `row` one of the step.
    unsafe fn copy(&self, id: usize, row: usize) {
        // SAFETY: the caller's; the table's region was checked against its shape.
        unsafe {
            let out = self.output.row(row);
            match self.table.dtype {
                DType::BF16 => gather::<Bf16>(&self.table, id, self.scale, out),
                DType::F16 => gather::<F16>(&self.table, id, self.scale, out),
                _ => gather::<f32>(&self.table, id, self.scale, out),
            }
        }
    }
}

impl Kernel for Embed {
    unsafe fn launch(&mut self, batch: &Batch) -> Result<()> {
        let ids = self.index.of(batch);
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.table.rows) {
            let why = format!("the table has {} rows", self.table.rows);
            return Err(Error::argument(format!("{} {id}", self.index.name()), why));
        }
        check_positions(batch)?;
        let _turn = self.team.scratch();
        let embed = &*self;
        // SAFETY: ids and rows were just checked.
        self.team.for_rows(ids.len(), embed.output.columns, &|row| unsafe { embed.copy(ids[row] as usize, row) })
    }
}

fn check_positions(batch: &Batch) -> Result<()> {
    match batch.positions.len() == batch.tokens.len() {
        true => Ok(()),
        false => Err(Error::internal("batch", "it has not one position per token")),
    }
}

/// Copies one row of a table, `scale` times its elements, wherever its packing put them.
unsafe fn gather<E: Element>(table: &Table, row: usize, scale: f32, out: *mut f32) {
    let base = table.address as *const E;
    // Elements k and k+1 of a panel row lie side by side when they are two to a word.
    let pair = 4 / size_of::<E>();
    let (start, step) = match table.packing {
        Packing::RowMajor => (row * table.columns, pair),
        Packing::Panels => {
            let panel = row / PANEL * PANEL * table.columns.next_multiple_of(2);
            (panel + row % PANEL * pair, PANEL * pair)
        }
    };
    for k in 0..table.columns {
        // SAFETY: the caller's.
        unsafe { *out.add(k) = (*base.add(start + k / pair * step + k % pair)).to_f32() * scale };
    }
}

/// `RopeAngles`.
pub(super) struct Angles {
    team: Arc<Team>,
    frequencies: Vector,
    scale: f32,
    output: Matrix,
}

impl Angles {
    pub(super) fn new(team: Arc<Team>, operands: &Operands<'_>, scale: f32) -> Result<Self> {
        let output = operands.output(0)?;
        per_token(operands, &output)?;
        if !output.columns.is_multiple_of(2) {
            return Err(operands.corrupt("its output has an odd number of columns"));
        }
        Ok(Angles { team, frequencies: operands.vector(0, output.columns / 2)?, scale, output })
    }

    /// # Safety
    /// As `launch`.
    unsafe fn compute(&self, position: u32, row: usize) {
        let half = self.output.columns / 2;
        for i in 0..half {
            // SAFETY: the caller's.
            unsafe {
                let angle = f64::from(position as f32 * *self.frequencies.start().add(i));
                *self.output.row(row).add(i) = angle.cos() as f32 * self.scale;
                *self.output.row(row).add(half + i) = angle.sin() as f32 * self.scale;
            }
        }
    }
}

/// Sines cost so much more than copies that rows of angles count as longer.
const SINE_COST: usize = 16;

impl Kernel for Angles {
    unsafe fn launch(&mut self, batch: &Batch) -> Result<()> {
        check_positions(batch)?;
        let _turn = self.team.scratch();
        let (angles, positions) = (&*self, &batch.positions);
        // SAFETY: there is a position for each row of the step.
        self.team.for_rows(positions.len(), angles.output.columns * SINE_COST, &|row| unsafe {
            angles.compute(positions[row], row);
        })
    }
}

/// `GatherRows`.
pub(super) struct Gather {
    team: Arc<Team>,
    input: Matrix,
    output: Matrix,
}

impl Gather {
    pub(super) fn new(team: Arc<Team>, operands: &Operands<'_>) -> Result<Self> {
        let (input, output) = (operands.input(0)?, operands.output(0)?);
        if input.rows != Rows::Tokens || output.rows != Rows::LogitRows || input.columns != output.columns {
            return Err(operands.corrupt("it does not lead from token rows to logit rows of the same width"));
        }
        Ok(Gather { team, input, output })
    }
}

impl Kernel for Gather {
    unsafe fn launch(&mut self, batch: &Batch) -> Result<()> {
        if let Some(row) = batch.logit_rows.iter().find(|row| **row as usize >= batch.tokens.len()) {
            return Err(Error::internal("batch", format!("logit row {row} is not one of its tokens")));
        }
        let _turn = self.team.scratch();
        let (input, output, rows) = (self.input, self.output, &batch.logit_rows);
        self.team.for_rows(rows.len(), output.columns, &|row| {
            // SAFETY: the rows were just checked; input and output are different slots.
            unsafe {
                std::ptr::copy_nonoverlapping(input.row(rows[row] as usize), output.row(row), output.columns);
            }
        })
    }
}
