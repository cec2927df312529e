//! A plan as this backend runs it: works, each of them one or two kernels, over operands in the workspace.

mod flow;
mod fusion;
mod lowering;

#[cfg(test)]
mod tests;

use crate::engine::{Plan, Rows, View};
use crate::types::{Activation, AttentionSpec, DType, RopeSpec};

pub(super) use lowering::{Choice, Works};

/// Columns of a buffer as a kernel sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operand {
    /// Index into [`Works::buffers`].
    pub(super) buffer: usize,
    pub(super) rows: Rows,
    /// Columns of the whole buffer: the row stride in elements.
    pub(super) stride: usize,
    pub(super) start: usize,
    pub(super) columns: usize,
    pub(super) dtype: DType,
}

impl Operand {
    /// Columns of a plan's value, whose buffer has the value's index.
    fn of(plan: &Plan, view: View) -> Self {
        let value = &plan.values[view.value];
        Self {
            buffer: view.value,
            rows: value.rows,
            stride: value.columns,
            start: view.start,
            columns: view.columns,
            dtype: value.dtype,
        }
    }
}

/// A matrix in the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Buffer {
    pub(super) rows: Rows,
    pub(super) columns: usize,
    pub(super) dtype: DType,
}

/// An operand's e4m3 form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quantised {
    pub(super) codes: Operand,
    /// f32: a column for each row, or with `by_block` for each 128 columns of the codes.
    pub(super) scale: Operand,
    pub(super) by_block: bool,
}

/// RMS norm applied to a linear layer's operand while it is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Prologue {
    pub(super) gain: usize,
    pub(super) eps: f32,
}

/// A linear layer with all that runs in its kernel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Linear {
    pub(super) x: Operand,
    /// Scales of an e4m3 operand: by row, or by row and 128 columns where the weights have scales of blocks.
    pub(super) x_scale: Option<Operand>,
    /// One matrix, or gate and up.
    pub(super) weights: Vec<usize>,
    pub(super) biases: Vec<usize>,
    pub(super) activation: Option<Activation>,
    pub(super) norm: Option<Prologue>,
    pub(super) residual: Option<Operand>,
    pub(super) out: Operand,
}

impl Linear {
    /// Every operand that is read.
    pub(super) fn reads(&self) -> Vec<Operand> {
        [Some(self.x), self.x_scale, self.residual].into_iter().flatten().collect()
    }
}

/// A norm by itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Norm {
    pub(super) layer: bool,
    pub(super) eps: f32,
    /// Parts of a row, as long as the gain, that are normed by themselves.
    pub(super) groups: usize,
    pub(super) x: Operand,
    /// What is added first, and where the sum goes.
    pub(super) add: Option<(Operand, Operand)>,
    pub(super) gain: usize,
    pub(super) bias: Option<usize>,
    /// `None` where only the e4m3 form is read.
    pub(super) out: Option<Operand>,
    pub(super) quantised: Option<Quantised>,
}

/// Attention over the paged cache.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Attention {
    pub(super) spec: AttentionSpec,
    pub(super) rope: Option<RopeSpec>,
    pub(super) q: Operand,
    /// New keys and values that the attention appends itself; `None` where they are in the cache already.
    pub(super) kv: Option<(Operand, Operand)>,
    pub(super) angles: Option<Operand>,
    pub(super) out: Operand,
}

/// Two operands or one, element by element.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Elementwise {
    Add,
    Mul,
    Activate(Activation),
    /// `cap * tanh(x / cap)`.
    SoftCap(f32),
    /// To the output's type.
    Convert,
}

/// What one or two kernels do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Work {
    Embedding { table: usize, by_position: bool, scale: f32, out: Operand },
    Angles { frequencies: usize, scale: f32, out: Operand },
    Linear(Linear),
    Norm(Norm),
    Elementwise { function: Elementwise, x: Operand, y: Option<Operand>, out: Operand },
    Rope { spec: RopeSpec, x: Operand, angles: Operand, out: Operand },
    Append { spec: AttentionSpec, k: Operand, v: Operand },
    Attention(Attention),
    Gather { x: Operand, out: Operand },
    Quantise { x: Operand, out: Quantised },
}

impl Work {
    /// Every operand that is read, then every one that is written.
    pub(super) fn operands(&self) -> (Vec<Operand>, Vec<Operand>) {
        match self {
            Work::Embedding { out, .. } | Work::Angles { out, .. } => (vec![], vec![*out]),
            Work::Linear(l) => (l.reads(), vec![l.out]),
            Work::Norm(n) => {
                let (y, sum) = n.add.unzip();
                let (codes, scale) = n.quantised.map(|form| (form.codes, form.scale)).unzip();
                let writes = [n.out, sum, codes, scale];
                ([Some(n.x), y].into_iter().flatten().collect(), writes.into_iter().flatten().collect())
            }
            Work::Elementwise { x, y, out, .. } => ([Some(*x), *y].into_iter().flatten().collect(), vec![*out]),
            Work::Rope { x, angles, out, .. } => (vec![*x, *angles], vec![*out]),
            Work::Append { k, v, .. } => (vec![*k, *v], vec![]),
            Work::Attention(a) => {
                let kv = a.kv.into_iter().flat_map(|(k, v)| [k, v]);
                ([a.q].into_iter().chain(kv).chain(a.angles).collect(), vec![a.out])
            }
            Work::Gather { x, out } => (vec![*x], vec![*out]),
            Work::Quantise { x, out } => (vec![*x], vec![out.codes, out.scale]),
        }
    }
}
