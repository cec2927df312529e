//! Calls of the kernels that work row by row.

use super::call::{Arg, Call, Count, Grid, Input, Shared};
use super::kernel::KernelSpec;
use super::linear::activation_number;
use super::work::{Elementwise, Norm, Operand, Quantised, Work};
use crate::engine::Rows;
use crate::types::DType;

/// Columns that one block of the kernels without sums takes.
const PIECE: usize = 2048;

/// The kernels' number of a soft cap, behind those of the activations.
const SOFT_CAP: u32 = 5;

/// Threads of a block with eight columns each, at most `most` warps.
fn threads(columns: usize, most: usize) -> u32 {
    32 * columns.div_ceil(256).clamp(1, most) as u32
}

/// The spec with the plan's 16-bit type.
pub(super) fn element(spec: KernelSpec, half: DType) -> KernelSpec {
    spec.define_if(half == DType::F16, "ELEMENT_F16", "")
}

/// How many rows an operand has.
pub(super) fn count(operand: &Operand) -> Count {
    match operand.rows {
        Rows::Tokens => Count::Tokens,
        Rows::LogitRows => Count::LogitRows,
    }
}

/// A float as a macro's value.
pub(super) fn float(value: f32) -> String {
    format!("{value:e}f")
}

/// Calls of one plan.
pub(super) struct Rowwise {
    pub(super) half: DType,
}

impl Rowwise {
    /// The call of a work that is neither linear nor attention.
    pub(super) fn call(&self, work: &Work) -> Call {
        match work {
            Work::Embedding { table, by_position, scale, out } => self.embedding(*table, *by_position, *scale, out),
            Work::Angles { frequencies, scale, out } => self.angles(*frequencies, *scale, out),
            Work::Norm(norm) => self.norm(norm),
            Work::Elementwise { function, x, y, out } => self.elementwise(*function, x, y.as_ref(), out),
            Work::Rope { spec, x, angles, out } => {
                let kernel = self
                    .spec("rowwise/rope.cu", "rope")
                    .define("HEADS", x.columns / spec.head_dim)
                    .define("HEAD_DIM", spec.head_dim)
                    .define("ROTARY_DIM", spec.rotary_dim);
                let args = vec![Arg::Buffer(*out), Arg::Buffer(*x), Arg::Buffer(*angles)];
                self.rows(kernel, 256, out, args, &[out, x])
            }
            Work::Gather { x, out } => {
                let kernel = self
                    .spec("rowwise/gather.cu", "gather")
                    .define("COLUMNS", x.columns)
                    .define_if(is_f32(x), "X_F32", "")
                    .define_if(is_f32(out), "OUTPUT_F32", "");
                let args = vec![Arg::Buffer(*out), Arg::Buffer(*x), Arg::Input(Input::LogitRows)];
                self.pieces(kernel, out, args, &[x])
            }
            Work::Quantise { x, out: Quantised { codes, scale, by_block } } => {
                let kernel = self.spec("rowwise/quantise.cu", "quantise").define("COLUMNS", x.columns).define_if(
                    *by_block,
                    "QUANTISE_BLOCK",
                    "",
                );
                let args = vec![Arg::Buffer(*codes), Arg::Buffer(*scale), Arg::Buffer(*x)];
                self.rows(kernel, threads(x.columns, 32), codes, args, &[x])
            }
            Work::Linear(_) | Work::Attention(_) | Work::Append { .. } => {
                unreachable!("linear layers and attention have calls of their own")
            }
        }
    }

    fn spec(&self, source: &'static str, entry: &'static str) -> KernelSpec {
        element(KernelSpec::new(source, entry), self.half)
    }

    /// A call with a block for each row; the arguments end with the row count and the row strides of `strided`.
    fn rows(&self, spec: KernelSpec, block: u32, out: &Operand, mut args: Vec<Arg>, strided: &[&Operand]) -> Call {
        args.push(Arg::Count(count(out)));
        args.extend(strided.iter().map(|operand| Arg::U32(operand.stride as u32)));
        Call::new(spec, block, Grid::X { per: 1, y: 1 }, count(out), args)
    }

    /// The same with several blocks for a long row.
    fn pieces(&self, spec: KernelSpec, out: &Operand, args: Vec<Arg>, strided: &[&Operand]) -> Call {
        let mut call = self.rows(spec, threads(out.columns, 8), out, args, strided);
        call.grid = Grid::X { per: 1, y: out.columns.div_ceil(PIECE) as u32 };
        call
    }

    fn embedding(&self, table: usize, by_position: bool, scale: f32, out: &Operand) -> Call {
        let index = if by_position { Input::Positions } else { Input::Tokens };
        let spec = self
            .spec("rowwise/embedding.cu", "embedding")
            .define("COLUMNS", out.columns)
            .define_if(is_f32(out), "OUTPUT_F32", "")
            .define_if(by_position, "INDEX_POSITIONS", "")
            .define_if(scale != 1.0, "SCALE", float(scale));
        let args = vec![Arg::Buffer(*out), Arg::Weight(table), Arg::Input(index), Arg::Shared(Shared::Sampled)];
        self.pieces(spec, out, args, &[])
    }

    fn angles(&self, frequencies: usize, scale: f32, out: &Operand) -> Call {
        let spec =
            self.spec("rowwise/angles.cu", "angles").define("COLUMNS", out.columns).define("ANGLE_SCALE", float(scale));
        let args = vec![Arg::Buffer(*out), Arg::Weight(frequencies), Arg::Input(Input::Positions)];
        let block = (out.columns / 2).next_multiple_of(32).clamp(32, 256) as u32;
        self.rows(spec, block, out, args, &[])
    }

    fn norm(&self, norm: &Norm) -> Call {
        let (y, sum) = norm.add.unzip();
        let (codes, scale) = norm.quantised.map(|form| (form.codes, form.scale)).unzip();
        let columns = norm.x.columns / norm.groups;
        let spec = self
            .spec("rowwise/norm.cu", "norm_rows")
            .define("COLUMNS", columns)
            .define_if(norm.groups > 1, "GROUPS", norm.groups)
            .define("EPS", float(norm.eps))
            .define_if(norm.layer, "LAYER", "")
            .define_if(is_f32(&norm.x), "X_F32", "")
            .define_if(y.is_some(), "ADD", "")
            .define_if(y.as_ref().is_some_and(is_f32), "Y_F32", "")
            .define_if(norm.out.as_ref().is_some_and(is_f32), "OUTPUT_F32", "")
            .define_if(norm.quantised.is_some(), "QUANTISE", "")
            .define_if(norm.quantised.is_some_and(|form| form.by_block), "QUANTISE_BLOCK", "")
            .define_if(norm.quantised.is_some() && norm.out.is_some(), "KEEP_OUTPUT", "");
        let args = vec![
            buffer(norm.out),
            buffer(sum),
            Arg::Buffer(norm.x),
            buffer(y),
            Arg::Weight(norm.gain),
            norm.bias.map_or(Arg::Null, Arg::Weight),
            buffer(codes),
            buffer(scale),
            Arg::Count(count(&norm.x)),
            Arg::U32(norm.x.stride as u32),
            Arg::U32(y.map_or(0, |y| y.stride as u32)),
        ];
        Call::new(spec, threads(columns, 32), Grid::X { per: 1, y: norm.groups as u32 }, count(&norm.x), args)
    }

    fn elementwise(&self, function: Elementwise, x: &Operand, y: Option<&Operand>, out: &Operand) -> Call {
        let (operation, activation) = match function {
            Elementwise::Activate(activation) => (0, activation_number(Some(activation))),
            Elementwise::Add => (1, 0),
            Elementwise::Mul => (2, 0),
            Elementwise::Convert => (0, 0),
            Elementwise::SoftCap(_) => (0, SOFT_CAP),
        };
        let cap = if let Elementwise::SoftCap(cap) = function { Some(cap) } else { None };
        let spec = self
            .spec("rowwise/elementwise.cu", "elementwise")
            .define("COLUMNS", x.columns)
            .define("OPERATION", operation)
            .define("ACTIVATION", activation)
            .define_if(cap.is_some(), "CAP", cap.map_or(String::new(), float))
            .define_if(is_f32(x), "X_F32", "")
            .define_if(y.is_some_and(is_f32), "Y_F32", "")
            .define_if(is_f32(out), "OUTPUT_F32", "");
        let args = vec![Arg::Buffer(*out), Arg::Buffer(*x), buffer(y.copied())];
        self.pieces(spec, out, args, &[out, x, y.unwrap_or(x)])
    }
}

/// The argument of an operand that may be absent.
fn buffer(operand: Option<Operand>) -> Arg {
    operand.map_or(Arg::Null, Arg::Buffer)
}

fn is_f32(operand: &Operand) -> bool {
    operand.dtype == DType::F32
}
