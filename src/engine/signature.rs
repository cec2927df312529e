//! What each operation expects of a step's operands: `Op`'s doc comments as a check.

use super::{Packing, Plan, Rows, Step, Target, View, WeightSpec};
use crate::types::{AttentionSpec, DType, Op, RopeSpec};

type Check<T = ()> = Result<T, String>;

/// A weight operand as an operation wants it.
enum Weight {
    /// `[N, K]`, in panels for a CPU.
    Matrix(usize, usize),
    /// At least `rows` rows of `columns`, in any packing.
    Table { rows: usize, columns: usize },
    /// f32 elements, row-major.
    Vector(usize),
}

/// Operands as an operation wants them: columns of the inputs and outputs, and weights.
struct Signature {
    inputs: Vec<usize>,
    weights: Vec<Weight>,
    outputs: Vec<usize>,
}

/// Checks a step whose views lie within their values.
pub(super) fn check_signature(plan: &Plan, step: &Step) -> Check {
    check_rows(plan, step)?;
    let wanted = signature(plan, step)?;
    check_columns(&step.inputs, &wanted.inputs, "input")?;
    check_columns(&step.outputs, &wanted.outputs, "output")?;
    if step.weights.len() != wanted.weights.len() {
        return Err(format!("it has {} weights instead of {}", step.weights.len(), wanted.weights.len()));
    }
    for (index, wanted) in step.weights.iter().zip(&wanted.weights) {
        check_weight(plan.target, plan.weights.get(*index).ok_or("a weight does not exist")?, wanted)?;
    }
    Ok(())
}

fn signature(plan: &Plan, step: &Step) -> Check<Signature> {
    let signature = match &step.op {
        Op::Embedding { scale } => {
            let columns = columns(&step.outputs, 0)?;
            ensure(scale.is_finite(), "its scale is not finite")?;
            new([], [Weight::Table { rows: plan.model.vocab_size, columns }], [columns])
        }
        Op::PositionEmbedding => {
            let columns = columns(&step.outputs, 0)?;
            new([], [Weight::Table { rows: plan.model.max_positions, columns }], [columns])
        }
        Op::RopeAngles { scale } => {
            let columns = columns(&step.outputs, 0)?;
            ensure(scale.is_finite() && columns.is_multiple_of(2), "angles need an even width and a finite scale")?;
            new([], [Weight::Vector(columns / 2)], [columns])
        }
        Op::Linear { bias, .. } => {
            let (k, n) = (columns(&step.inputs, 0)?, columns(&step.outputs, 0)?);
            new([k], [Weight::Matrix(n, k)].into_iter().chain(bias.then_some(Weight::Vector(n))), [n])
        }
        Op::GatedLinear { bias, .. } => {
            let (k, n) = (columns(&step.inputs, 0)?, columns(&step.outputs, 0)?);
            let biases = bias.then(|| [Weight::Vector(n), Weight::Vector(n)]);
            new([k], [Weight::Matrix(n, k), Weight::Matrix(n, k)].into_iter().chain(biases.into_iter().flatten()), [n])
        }
        Op::RmsNorm { eps } => rms_norm(plan, step, *eps)?,
        Op::LayerNorm { eps } => norm(step, *eps, 1, 2)?,
        Op::AddRmsNorm { eps } => norm(step, *eps, 2, 1)?,
        Op::AddLayerNorm { eps } => norm(step, *eps, 2, 2)?,
        Op::Add | Op::Mul => {
            let columns = columns(&step.inputs, 0)?;
            new([columns; 2], [], [columns])
        }
        Op::Activate { .. } | Op::GatherRows => {
            let columns = columns(&step.inputs, 0)?;
            new([columns], [], [columns])
        }
        Op::SoftCap { cap } => {
            let columns = columns(&step.inputs, 0)?;
            ensure(is_cap(*cap), "its cap is not a finite positive number")?;
            new([columns], [], [columns])
        }
        Op::Rope(rope) => {
            let columns = columns(&step.inputs, 0)?;
            check_rope(rope)?;
            ensure(columns.is_multiple_of(rope.head_dim), "its width is not a multiple of the head size")?;
            new([columns, rope.rotary_dim], [], [columns])
        }
        Op::Slice { .. } => return Err("a slice is a view and no step".into()),
        Op::CacheAppend(spec) => {
            let (_, kv) = check_attention(plan, spec)?;
            new([kv; 2], [], [])
        }
        Op::Attention(spec) => {
            let (q, _) = check_attention(plan, spec)?;
            new([q], [], [q])
        }
        Op::FusedAttention { attention, rope } => {
            let (q, kv) = check_attention(plan, attention)?;
            if let Some(rope) = rope {
                check_rope(rope)?;
                ensure(rope.head_dim == attention.head_dim, "rope and attention differ in head size")?;
            }
            new([q, kv, kv].into_iter().chain(rope.map(|rope| rope.rotary_dim)), [], [q])
        }
    };
    Ok(signature)
}

fn new(
    inputs: impl IntoIterator<Item = usize>,
    weights: impl IntoIterator<Item = Weight>,
    outputs: impl IntoIterator<Item = usize>,
) -> Signature {
    Signature {
        inputs: inputs.into_iter().collect(),
        weights: weights.into_iter().collect(),
        outputs: outputs.into_iter().collect(),
    }
}

fn norm(step: &Step, eps: f32, operands: usize, vectors: usize) -> Check<Signature> {
    let columns = columns(&step.inputs, 0)?;
    ensure(eps.is_finite() && eps >= 0.0, "eps is not a finite positive number")?;
    Ok(new(vec![columns; operands], (0..vectors).map(|_| Weight::Vector(columns)), vec![columns; operands]))
}

/// Each part of a row that is as wide as the gain is normed by itself.
fn rms_norm(plan: &Plan, step: &Step, eps: f32) -> Check<Signature> {
    let gain = step.weights.first().and_then(|weight| plan.weights.get(*weight)).ok_or("its gain does not exist")?;
    let [part] = *gain.shape.as_slice() else { return Err("its gain is no vector".into()) };
    let whole = norm(step, eps, 1, 1)?;
    ensure(whole.inputs.iter().all(|columns| columns.is_multiple_of(part)), "its gain does not divide its columns")?;
    Ok(Signature { weights: vec![Weight::Vector(part)], ..whole })
}

fn is_cap(cap: f32) -> bool {
    cap.is_finite() && cap > 0.0
}

fn check_rope(rope: &RopeSpec) -> Check {
    let sound =
        rope.head_dim > 0 && (1..=rope.head_dim).contains(&rope.rotary_dim) && rope.rotary_dim.is_multiple_of(2);
    ensure(sound, "its rotary dimensions do not fit the head")
}

/// Columns of q and of k or v.
fn check_attention(plan: &Plan, spec: &AttentionSpec) -> Check<(usize, usize)> {
    let group = plan.kv_groups.get(spec.group).ok_or("its kv group does not exist")?;
    ensure(spec.layer < group.layers.len(), "its layer is not in its kv group")?;
    let same = spec.kv_heads == group.kv_heads && spec.head_dim == group.head_dim;
    ensure(same, "its heads are not those of its kv group")?;
    ensure(spec.heads > 0 && spec.heads.is_multiple_of(spec.kv_heads), "kv heads do not divide query heads")?;
    ensure(spec.scale.is_finite(), "its scale is not finite")?;
    ensure(spec.soft_cap.is_none_or(is_cap), "its cap is not a finite positive number")?;
    let q = spec.heads.checked_mul(spec.head_dim).ok_or("its width overflows")?;
    Ok((q, spec.kv_heads * spec.head_dim))
}

fn check_rows(plan: &Plan, step: &Step) -> Check {
    let all =
        |views: &[View], rows| views.iter().all(|view| plan.values.get(view.value).is_some_and(|v| v.rows == rows));
    let same = |rows| all(&step.inputs, rows) && all(&step.outputs, rows);
    let sound = match step.op {
        Op::GatherRows => all(&step.inputs, Rows::Tokens) && all(&step.outputs, Rows::LogitRows),
        Op::Embedding { .. }
        | Op::PositionEmbedding
        | Op::RopeAngles { .. }
        | Op::CacheAppend(_)
        | Op::Attention(_)
        | Op::FusedAttention { .. } => same(Rows::Tokens),
        _ => same(Rows::Tokens) || same(Rows::LogitRows),
    };
    ensure(sound, "its operands differ in rows")
}

fn check_columns(views: &[View], wanted: &[usize], role: &str) -> Check {
    let found: Vec<usize> = views.iter().map(|view| view.columns).collect();
    match found == wanted {
        true => Ok(()),
        false => Err(format!("{role} columns are {found:?} instead of {wanted:?}")),
    }
}

fn check_weight(target: Target, weight: &WeightSpec, wanted: &Weight) -> Check {
    let float = matches!(weight.dtype, DType::F32 | DType::BF16 | DType::F16);
    let matrices = match target {
        Target::Cpu => Packing::Panels,
        Target::Cuda => Packing::RowMajor,
    };
    let sound = match (wanted, weight.shape.as_slice()) {
        (Weight::Matrix(n, k), [rows, columns]) => {
            let codes = match target {
                Target::Cpu => weight.dtype.is_scaled(),
                Target::Cuda => weight.dtype == DType::E4M3,
            };
            (float || codes) && weight.packing == matrices && (rows, columns) == (n, k)
        }
        (Weight::Table { rows: least, columns: wanted }, [rows, columns]) => {
            float && rows >= least && columns == wanted
        }
        (Weight::Vector(length), [elements]) => {
            weight.dtype == DType::F32 && weight.packing == Packing::RowMajor && elements == length
        }
        _ => false,
    };
    match sound {
        true => Ok(()),
        false => Err(format!("weight `{}` {:?} does not fit", weight.name, weight.shape)),
    }
}

fn columns(views: &[View], index: usize) -> Check<usize> {
    views.get(index).map(|view| view.columns).ok_or_else(|| "an operand is missing".into())
}

fn ensure(condition: bool, why: &str) -> Check {
    match condition {
        true => Ok(()),
        false => Err(why.into()),
    }
}
