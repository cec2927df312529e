//! Result shapes of each operation, with symbolic rows. An error names the operand; the caller adds the node.

use super::{CacheGroup, Dim, LOGIT_ROWS, TOKENS};
use crate::error::{Error, Result};
use crate::types::{AttentionSpec, DType, Op, RopeSpec};

/// An operand's type.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub dtype: DType,
    pub shape: &'a [Dim],
}

type Inferred = Vec<(DType, Vec<Dim>)>;

/// Dtypes and shapes of the results of `op`.
pub(super) fn infer(op: &Op, inputs: &[Operand], weights: &[&[usize]], caches: &[CacheGroup]) -> Result<Inferred> {
    let on = Operands { inputs, weights };
    on.count(op)?;
    match op {
        Op::Embedding { .. } | Op::PositionEmbedding => {
            if let Op::Embedding { scale } = op {
                finite("scale", *scale)?;
            }
            let (rows, width) = (on.tokens(0)?, on.weight_matrix(0)?.1);
            Ok(result(rows, width))
        }
        Op::RopeAngles { scale } => {
            finite("scale", *scale)?;
            let (rows, half) = (on.tokens(0)?, on.weight_vector(0, None)?);
            Ok(result(rows, 2 * half))
        }
        Op::Linear { bias, .. } => {
            let (rows, depth) = on.matrix(0)?;
            let width = on.weight_rows(0, depth)?;
            if *bias {
                on.weight_vector(1, Some(width))?;
            }
            Ok(result(rows, width))
        }
        Op::GatedLinear { bias, .. } => {
            let (rows, depth) = on.matrix(0)?;
            let width = on.weight_rows(0, depth)?;
            if on.weight_rows(1, depth)? != width {
                return Err(invalid("weight 1", format!("must have {width} rows like weight 0")));
            }
            for operand in if *bias { 2..4 } else { 0..0 } {
                on.weight_vector(operand, Some(width))?;
            }
            Ok(result(rows, width))
        }
        Op::RmsNorm { eps } => {
            let (rows, width) = on.normed_parts(*eps)?;
            Ok(result(rows, width))
        }
        Op::LayerNorm { eps } => {
            let (rows, width) = on.normed(*eps)?;
            Ok(result(rows, width))
        }
        Op::AddRmsNorm { eps } | Op::AddLayerNorm { eps } => {
            let (rows, width) = on.normed(*eps)?;
            on.same(1, rows, width)?;
            Ok([result(rows, width), result(rows, width)].concat())
        }
        Op::Add | Op::Mul => {
            let (rows, width) = on.matrix(0)?;
            on.same(1, rows, width)?;
            Ok(result(rows, width))
        }
        Op::Activate { .. } => {
            let (rows, width) = on.matrix(0)?;
            Ok(result(rows, width))
        }
        Op::SoftCap { cap } => {
            positive("cap", *cap)?;
            let (rows, width) = on.matrix(0)?;
            Ok(result(rows, width))
        }
        Op::Rope(spec) => {
            let (rows, width) = on.matrix(0)?;
            on.angles(1, rows, *spec)?;
            if !width.is_multiple_of(spec.head_dim) {
                return Err(invalid("input 0", format!("{width} columns are not whole heads of {}", spec.head_dim)));
            }
            Ok(result(rows, width))
        }
        Op::Slice { start, columns } => {
            let (rows, width) = on.matrix(0)?;
            match start.checked_add(*columns) {
                Some(end) if end <= width && *columns > 0 => Ok(result(rows, *columns)),
                _ => Err(invalid("input 0", format!("columns {start}+{columns} do not lie within {width}"))),
            }
        }
        Op::CacheAppend(spec) => {
            let columns = on.cached(spec, caches, [0, 1])?;
            Ok(result(columns, 0))
        }
        Op::Attention(spec) => {
            let width = attended(spec, caches)?;
            let rows = on.tokens_by(0, width)?;
            on.same(1, rows, 0)?;
            Ok(result(rows, width))
        }
        Op::FusedAttention { attention, rope } => {
            let width = attended(attention, caches)?;
            let rows = on.tokens_by(0, width)?;
            on.cached(attention, caches, [1, 2])?;
            if let Some(spec) = rope {
                on.angles(3, rows, *spec)?;
                if spec.head_dim != attention.head_dim {
                    return Err(invalid("rope", format!("head_dim {} is not {}", spec.head_dim, attention.head_dim)));
                }
            }
            Ok(result(rows, width))
        }
        Op::GatherRows => {
            let (rows, width) = on.matrix(0)?;
            if *rows != Dim::Named(TOKENS.into()) {
                return Err(invalid("input 0", format!("must have rows `{TOKENS}`, not {rows}")));
            }
            Ok(result(&Dim::Named(LOGIT_ROWS.into()), width))
        }
    }
}

/// `(inputs, weights)` that an operation takes.
pub(super) fn arity(op: &Op) -> (usize, usize) {
    match op {
        Op::Embedding { .. } | Op::PositionEmbedding | Op::RopeAngles { .. } | Op::RmsNorm { .. } => (1, 1),
        Op::Linear { bias, .. } => (1, 1 + usize::from(*bias)),
        Op::GatedLinear { bias, .. } => (1, if *bias { 4 } else { 2 }),
        Op::LayerNorm { .. } => (1, 2),
        Op::AddRmsNorm { .. } => (2, 1),
        Op::AddLayerNorm { .. } => (2, 2),
        Op::Activate { .. } | Op::SoftCap { .. } | Op::Slice { .. } | Op::GatherRows => (1, 0),
        Op::Add | Op::Mul | Op::Rope(_) | Op::CacheAppend(_) | Op::Attention(_) => (2, 0),
        Op::FusedAttention { rope, .. } => (3 + usize::from(rope.is_some()), 0),
    }
}

fn result(rows: &Dim, columns: usize) -> Inferred {
    vec![(DType::F32, vec![rows.clone(), Dim::Fixed(columns)])]
}

/// Columns of q and of the result; checks the spec against its cache.
fn attended(spec: &AttentionSpec, caches: &[CacheGroup]) -> Result<usize> {
    finite("scale", spec.scale)?;
    if let Some(cap) = spec.soft_cap {
        positive("soft_cap", cap)?;
    }
    let group = caches
        .get(spec.group)
        .ok_or_else(|| invalid("cache group", format!("{} of {} groups", spec.group, caches.len())))?;
    if spec.layer >= group.layers.len() {
        return Err(invalid("cache layer", format!("{} of {} layers", spec.layer, group.layers.len())));
    }
    if (spec.kv_heads, spec.head_dim) != (group.kv_heads, group.head_dim) {
        return Err(invalid("cache group", "kv_heads or head_dim differ from the operation's".to_string()));
    }
    if spec.kv_heads == 0 || spec.head_dim == 0 || spec.heads == 0 || !spec.heads.is_multiple_of(spec.kv_heads) {
        return Err(invalid("heads", format!("{} heads over {} kv heads", spec.heads, spec.kv_heads)));
    }
    product("heads", spec.heads, spec.head_dim)
}

fn product(what: &str, a: usize, b: usize) -> Result<usize> {
    a.checked_mul(b).ok_or_else(|| invalid(what, format!("{a} x {b} overflows")))
}

fn finite(what: &str, value: f32) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(invalid(what, format!("{value} is not finite"))) }
}

fn not_negative(what: &str, value: f32) -> Result<()> {
    match value.is_finite() && value >= 0.0 {
        true => Ok(()),
        false => Err(invalid(what, format!("{value} is not a finite number >= 0"))),
    }
}

fn positive(what: &str, value: f32) -> Result<()> {
    match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => Err(invalid(what, format!("{value} is not a finite number > 0"))),
    }
}

fn invalid(what: impl Into<String>, why: impl Into<String>) -> Error {
    Error::InvalidNetwork { what: what.into(), why: why.into() }
}

/// The operands of one node, with checks that name them.
struct Operands<'a> {
    inputs: &'a [Operand<'a>],
    weights: &'a [&'a [usize]],
}

impl<'a> Operands<'a> {
    fn count(&self, op: &Op) -> Result<()> {
        let (inputs, weights) = arity(op);
        if self.inputs.len() != inputs {
            return Err(invalid(op.name(), format!("takes {inputs} inputs, not {}", self.inputs.len())));
        }
        if self.weights.len() != weights {
            return Err(invalid(op.name(), format!("takes {weights} weights, not {}", self.weights.len())));
        }
        Ok(())
    }

    /// Rows of a vector of ids or positions.
    fn tokens(&self, at: usize) -> Result<&'a Dim> {
        match (self.inputs[at].dtype, self.inputs[at].shape) {
            (DType::I32, [rows]) => Ok(rows),
            (dtype, shape) => {
                Err(invalid(format!("input {at}"), format!("must be i32[tokens], not {}", typed(dtype, shape))))
            }
        }
    }

    fn matrix(&self, at: usize) -> Result<(&'a Dim, usize)> {
        match (self.inputs[at].dtype, self.inputs[at].shape) {
            (DType::F32, [rows, Dim::Fixed(columns)]) => Ok((rows, *columns)),
            (dtype, shape) => {
                Err(invalid(format!("input {at}"), format!("must be an f32 matrix, not {}", typed(dtype, shape))))
            }
        }
    }

    fn same(&self, at: usize, rows: &Dim, columns: usize) -> Result<()> {
        let (r, c) = self.matrix(at)?;
        if (r, c) == (rows, columns) {
            return Ok(());
        }
        Err(invalid(format!("input {at}"), format!("is [{r}, {c}] where [{rows}, {columns}] is needed")))
    }

    /// Rows of input `at`, which has one row per token and `columns` columns.
    fn tokens_by(&self, at: usize, columns: usize) -> Result<&'a Dim> {
        let rows = self.matrix(at)?.0;
        self.same(at, &Dim::Named(TOKENS.into()), columns)?;
        Ok(rows)
    }

    /// Rows of k and v at `at`, which fit the cache.
    fn cached(&self, spec: &AttentionSpec, caches: &[CacheGroup], at: [usize; 2]) -> Result<&'a Dim> {
        attended(spec, caches)?;
        let columns = product("kv_heads", spec.kv_heads, spec.head_dim)?;
        self.tokens_by(at[0], columns)?;
        self.tokens_by(at[1], columns)
    }

    fn angles(&self, at: usize, rows: &Dim, spec: RopeSpec) -> Result<()> {
        if spec.rotary_dim == 0 || spec.rotary_dim % 2 == 1 || spec.rotary_dim > spec.head_dim {
            return Err(invalid("rope", format!("{} rotary dimensions of {}", spec.rotary_dim, spec.head_dim)));
        }
        self.same(at, rows, spec.rotary_dim)
    }

    /// Rows and columns of input 0 of a norm, whose weights are as wide.
    fn normed(&self, eps: f32) -> Result<(&'a Dim, usize)> {
        not_negative("eps", eps)?;
        let (rows, width) = self.matrix(0)?;
        for at in 0..self.weights.len() {
            self.weight_vector(at, Some(width))?;
        }
        Ok((rows, width))
    }

    /// Rows and columns of input 0 of a norm over parts of a row, each as wide as weight 0.
    fn normed_parts(&self, eps: f32) -> Result<(&'a Dim, usize)> {
        not_negative("eps", eps)?;
        let ((rows, width), part) = (self.matrix(0)?, self.weight_vector(0, None)?);
        match width.is_multiple_of(part) {
            true => Ok((rows, width)),
            false => Err(invalid("weight 0", format!("its {part} elements do not divide {width} columns"))),
        }
    }

    fn weight_matrix(&self, at: usize) -> Result<(usize, usize)> {
        match self.weights[at] {
            [rows, columns] => Ok((*rows, *columns)),
            shape => Err(invalid(format!("weight {at}"), format!("must be a matrix, not {shape:?}"))),
        }
    }

    /// Rows of weight `at`, which has `columns` columns.
    fn weight_rows(&self, at: usize, columns: usize) -> Result<usize> {
        match self.weight_matrix(at)? {
            (rows, c) if c == columns => Ok(rows),
            (_, c) => Err(invalid(format!("weight {at}"), format!("has {c} columns where the input has {columns}"))),
        }
    }

    /// Length of weight `at`, which is `wanted` when given.
    fn weight_vector(&self, at: usize, wanted: Option<usize>) -> Result<usize> {
        match (self.weights[at], wanted) {
            ([n], None) => Ok(*n),
            ([n], Some(w)) if *n == w => Ok(w),
            (shape, Some(w)) => Err(invalid(format!("weight {at}"), format!("must be [{w}], not {shape:?}"))),
            (shape, None) => Err(invalid(format!("weight {at}"), format!("must be a vector, not {shape:?}"))),
        }
    }
}

/// A type as printed: `f32[tokens, 64]`.
pub(super) fn typed(dtype: DType, shape: &[Dim]) -> String {
    let dims = shape.iter().map(Dim::to_string).collect::<Vec<_>>();
    format!("{dtype}[{}]", dims.join(", "))
}

impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Named(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Activation;

    fn rows() -> Dim {
        Dim::Named(TOKENS.into())
    }

    fn caches() -> Vec<CacheGroup> {
        vec![CacheGroup { layers: vec![0], kv_heads: 2, head_dim: 4, window: None }]
    }

    fn spec() -> AttentionSpec {
        AttentionSpec { group: 0, layer: 0, heads: 4, kv_heads: 2, head_dim: 4, scale: 0.5, soft_cap: None }
    }

    /// Infers with f32 matrices of `columns` rows-by-token; a width of 0 in first place of `ids` means i32[tokens].
    fn check(op: Op, columns: &[usize], weights: &[&[usize]]) -> Result<Vec<usize>> {
        let shapes = columns.iter().map(|c| vec![rows(), Dim::Fixed(*c)]).collect::<Vec<_>>();
        let inputs = shapes.iter().map(|shape| Operand { dtype: DType::F32, shape }).collect::<Vec<_>>();
        let inferred = infer(&op, &inputs, weights, &caches())?;
        Ok(inferred
            .into_iter()
            .map(|(_, shape)| match shape.as_slice() {
                [_, Dim::Fixed(n)] => *n,
                other => panic!("{other:?}"),
            })
            .collect())
    }

    fn culprit(result: Result<Vec<usize>>) -> String {
        match result {
            Err(Error::InvalidNetwork { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn shapes_of_results() {
        let rope = RopeSpec { head_dim: 4, rotary_dim: 4 };
        let silu = Activation::Silu;
        assert_eq!(check(Op::Linear { bias: true, activation: None }, &[8], &[&[6, 8], &[6]]).unwrap(), [6]);
        let gated = Op::GatedLinear { bias: true, activation: silu };
        assert_eq!(check(gated, &[8], &[&[6, 8], &[6, 8], &[6], &[6]]).unwrap(), [6]);
        assert_eq!(check(Op::AddLayerNorm { eps: 1e-5 }, &[8, 8], &[&[8], &[8]]).unwrap(), [8, 8]);
        assert_eq!(check(Op::Rope(rope), &[16, 4], &[]).unwrap(), [16]);
        assert_eq!(check(Op::CacheAppend(spec()), &[8, 8], &[]).unwrap(), [0]);
        assert_eq!(check(Op::Attention(spec()), &[16, 0], &[]).unwrap(), [16]);
        let fused = Op::FusedAttention { attention: spec(), rope: Some(rope) };
        assert_eq!(check(fused, &[16, 8, 8, 4], &[]).unwrap(), [16]);
        assert_eq!(check(Op::Slice { start: 3, columns: 5 }, &[8], &[]).unwrap(), [5]);
        assert_eq!(check(Op::RmsNorm { eps: 1e-5 }, &[12], &[&[4]]).unwrap(), [12]);
        assert_eq!(check(Op::SoftCap { cap: 30.0 }, &[8], &[]).unwrap(), [8]);
    }

    #[test]
    fn a_wrong_operand_is_named() {
        let linear = Op::Linear { bias: true, activation: None };
        assert_eq!(culprit(check(linear.clone(), &[8], &[&[6, 7], &[6]])), "weight 0");
        assert_eq!(culprit(check(linear.clone(), &[8], &[&[6, 8], &[5]])), "weight 1");
        assert_eq!(culprit(check(linear, &[8], &[&[6, 8]])), "linear");
        assert_eq!(culprit(check(Op::Add, &[8, 9], &[])), "input 1");
        assert_eq!(culprit(check(Op::Embedding { scale: 1.0 }, &[8], &[&[4, 4]])), "input 0");
        assert_eq!(culprit(check(Op::RmsNorm { eps: f32::NAN }, &[8], &[&[8]])), "eps");
        assert_eq!(culprit(check(Op::RmsNorm { eps: 1e-5 }, &[12], &[&[5]])), "weight 0");
        assert_eq!(culprit(check(Op::RmsNorm { eps: 1e-5 }, &[12], &[&[0]])), "weight 0");
        assert_eq!(culprit(check(Op::AddRmsNorm { eps: 1e-5 }, &[12, 12], &[&[4]])), "weight 0");
        assert_eq!(culprit(check(Op::SoftCap { cap: 0.0 }, &[8], &[])), "cap");
        assert_eq!(culprit(check(Op::Embedding { scale: f32::INFINITY }, &[8], &[&[4, 4]])), "scale");
        assert_eq!(culprit(check(Op::Slice { start: usize::MAX, columns: 2 }, &[8], &[])), "input 0");
        assert_eq!(culprit(check(Op::Rope(RopeSpec { head_dim: 4, rotary_dim: 3 }), &[8, 3], &[])), "rope");
        assert_eq!(culprit(check(Op::CacheAppend(spec()), &[8, 4], &[])), "input 1");
        let no_cache = AttentionSpec { group: 1, ..spec() };
        assert_eq!(culprit(check(Op::Attention(no_cache), &[16, 0], &[])), "cache group");
        let no_layer = AttentionSpec { layer: 1, ..spec() };
        assert_eq!(culprit(check(Op::Attention(no_layer), &[16, 0], &[])), "cache layer");
        let uncapped = AttentionSpec { soft_cap: Some(f32::NAN), ..spec() };
        assert_eq!(culprit(check(Op::Attention(uncapped), &[16, 0], &[])), "soft_cap");
        let uneven = AttentionSpec { heads: 3, ..spec() };
        assert_eq!(culprit(check(Op::Attention(uneven), &[12, 0], &[])), "heads");
    }

    #[test]
    fn rows_are_gathered_once() {
        let shape = [Dim::Named(LOGIT_ROWS.into()), Dim::Fixed(8)];
        let input = Operand { dtype: DType::F32, shape: &shape };
        assert!(infer(&Op::GatherRows, &[input], &[], &[]).is_err());
    }
}
