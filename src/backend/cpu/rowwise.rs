//! Kernels that treat each row by itself: norms, elementwise functions, rotary embedding.

use std::sync::Arc;

use super::operands::{Matrix, Operands, Vector};
use super::rows::{Elements, Norm, Rotation};
use super::team::Team;
use crate::backend::{Batch, Kernel};
use crate::engine::Rows;
use crate::error::Result;
use crate::types::{Activation, RopeSpec};

/// `RmsNorm`, `LayerNorm` and both with an addition before.
pub(super) struct Normalize {
    team: Arc<Team>,
    x: Matrix,
    /// What is added to `x`, and where the sum goes.
    added: Option<(Matrix, Matrix)>,
    gain: Vector,
    bias: Option<Vector>,
    eps: f32,
    /// Columns that are normed together; they divide those of the output.
    part: usize,
    output: Matrix,
}

impl Normalize {
    pub(super) fn new(team: Arc<Team>, operands: &Operands<'_>, eps: f32, bias: bool, add: bool) -> Result<Self> {
        let output = operands.output(usize::from(add))?;
        let x = operands.input_like(0, &output, output.columns)?;
        let added =
            if add { Some((operands.input_like(1, &output, output.columns)?, sum(operands, &output)?)) } else { None };
        let part = if bias || add { output.columns } else { operands.length(0)? };
        if !output.columns.is_multiple_of(part) {
            return Err(operands.corrupt(format!("a gain of {part} does not divide {} columns", output.columns)));
        }
        let gain = operands.vector(0, part)?;
        let bias = if bias { Some(operands.vector(1, output.columns)?) } else { None };
        Ok(Normalize { team, x, added, gain, bias, eps, part, output })
    }

    /// # Safety
    /// As `launch`.
    unsafe fn row(&self, row: usize) {
        // SAFETY: the caller's; all operands have this many columns.
        unsafe {
            let mut x = self.x.row(row).cast_const();
            let columns = self.output.columns;
            if let Some((y, sum)) = &self.added {
                (self.team.compiled.add)(&Elements { x, y: y.row(row), columns, out: sum.row(row) });
                x = sum.row(row);
            }
            let bias = self.bias.map_or(std::ptr::null(), |bias| bias.start());
            let (gain, eps, out) = (self.gain.start(), self.eps, self.output.row(row));
            for at in (0..columns).step_by(self.part) {
                let (x, out) = (x.add(at), out.add(at));
                (self.team.compiled.norm)(&Norm { x, gain, bias, eps, columns: self.part, out });
            }
        }
    }
}

fn sum(operands: &Operands<'_>, like: &Matrix) -> Result<Matrix> {
    let sum = operands.output(0)?;
    match sum.rows == like.rows && sum.columns == like.columns {
        true => Ok(sum),
        false => Err(operands.corrupt("its two outputs have different shapes")),
    }
}

impl Kernel for Normalize {
    unsafe fn launch(&mut self, batch: &Batch) -> Result<()> {
        let _turn = self.team.scratch();
        let this = &*self;
        // SAFETY: the rows are the step's.
        self.team.for_rows(this.output.count(batch), this.output.columns, &|row| unsafe { this.row(row) })
    }
}

/// An elementwise function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Function {
    Add,
    Mul,
    Activate(Activation),
    SoftCap(f32),
}

/// `Add`, `Mul`, `Activate` and `SoftCap`.
pub(super) struct Elementwise {
    team: Arc<Team>,
    function: Function,
    x: Matrix,
    y: Option<Matrix>,
    output: Matrix,
}

impl Elementwise {
    pub(super) fn new(team: Arc<Team>, operands: &Operands<'_>, function: Function) -> Result<Self> {
        let output = operands.output(0)?;
        let x = operands.input_like(0, &output, output.columns)?;
        let y = match function {
            Function::Activate(_) | Function::SoftCap(_) => None,
            Function::Add | Function::Mul => Some(operands.input_like(1, &output, output.columns)?),
        };
        Ok(Elementwise { team, function, x, y, output })
    }

    /// # Safety
    /// As `launch`.
    unsafe fn row(&self, row: usize) {
        // SAFETY: the caller's; all operands have this many columns.
        unsafe {
            let y = self.y.map_or(std::ptr::null(), |y| y.row(row).cast_const());
            let e = Elements { x: self.x.row(row), y, columns: self.output.columns, out: self.output.row(row) };
            match self.function {
                Function::Add => (self.team.compiled.add)(&e),
                Function::Mul => (self.team.compiled.mul)(&e),
                Function::Activate(activation) => (self.team.compiled.activate)(activation, &e),
                Function::SoftCap(cap) => (self.team.compiled.soft_cap)(cap, &e),
            }
        }
    }
}

impl Kernel for Elementwise {
    unsafe fn launch(&mut self, batch: &Batch) -> Result<()> {
        let _turn = self.team.scratch();
        let this = &*self;
        // SAFETY: the rows are the step's.
        self.team.for_rows(this.output.count(batch), this.output.columns, &|row| unsafe { this.row(row) })
    }
}

/// Checks a rotation against the head it turns.
pub(super) fn check_rope(operands: &Operands<'_>, spec: &RopeSpec) -> Result<()> {
    if spec.head_dim == 0 || spec.rotary_dim > spec.head_dim || !spec.rotary_dim.is_multiple_of(2) {
        let why = format!("{} dimensions of a head of {} cannot rotate", spec.rotary_dim, spec.head_dim);
        return Err(operands.corrupt(why));
    }
    Ok(())
}

/// `Rope`.
pub(super) struct Rotate {
    team: Arc<Team>,
    spec: RopeSpec,
    x: Matrix,
    angles: Matrix,
    output: Matrix,
}

impl Rotate {
    pub(super) fn new(team: Arc<Team>, operands: &Operands<'_>, spec: RopeSpec) -> Result<Self> {
        check_rope(operands, &spec)?;
        let output = operands.output(0)?;
        if output.rows != Rows::Tokens || !output.columns.is_multiple_of(spec.head_dim) {
            return Err(operands.corrupt(format!("its rows are not heads of {}", spec.head_dim)));
        }
        let x = operands.input_like(0, &output, output.columns)?;
        let angles = operands.input_like(1, &output, spec.rotary_dim)?;
        Ok(Rotate { team, spec, x, angles, output })
    }

    /// # Safety
    /// As `launch`.
    unsafe fn row(&self, row: usize) {
        let RopeSpec { head_dim, rotary_dim: rotary } = self.spec;
        for head in (0..self.output.columns).step_by(head_dim) {
            // SAFETY: the caller's; the row is whole heads.
            unsafe {
                let (x, out) = (self.x.row(row).add(head), self.output.row(row).add(head));
                (self.team.compiled.rotate)(&Rotation { x, angles: self.angles.row(row), rotary, head_dim, out });
            }
        }
    }
}

impl Kernel for Rotate {
    unsafe fn launch(&mut self, batch: &Batch) -> Result<()> {
        let _turn = self.team.scratch();
        let this = &*self;
        // SAFETY: the rows are the step's.
        self.team.for_rows(this.output.count(batch), this.output.columns, &|row| unsafe { this.row(row) })
    }
}
