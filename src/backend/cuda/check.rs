//! What the kernels ask of a plan and of a session's limits beyond what every plan keeps: a file may say anything.

use super::attention::tile_tokens;
use crate::engine::{BLOCK_TOKENS, Limits, Plan, Rows, Step, Target};
use crate::error::{Error, Result};
use crate::types::{DType, Op};

/// Most blocks of a grid along y and z.
const MOST_BLOCKS: usize = 65535;
/// Rows that a block of the generic linear kernel takes.
const GENERIC_ROWS: usize = 4;
/// Elements that kernels load and store at once.
const VECTOR: usize = 8;

/// # Errors
/// `Corrupt` for a plan without fitting logits, `Unsupported` for another precision or naming a weight or a value that no kernel reads.
pub fn plan(plan: &Plan) -> Result<()> {
    if !plan.precision.runs_on(Target::Cuda) {
        let what = format!("precision {}", plan.precision);
        return Err(Error::Unsupported { what, why: "kernels compute in 16 bits and fp8".into() });
    }
    logits(plan)?;
    plan.steps.iter().try_for_each(|step| weights(plan, step).and_then(|()| views(plan, step)))
}

fn logits(plan: &Plan) -> Result<()> {
    let refuse = |why: String| Err(Error::Corrupt { what: "plan".into(), why });
    let Some(output) = plan.outputs.iter().find(|output| output.name == "logits") else {
        return refuse("it has no output named `logits`".into());
    };
    let (value, vocabulary) = (&plan.values[output.value], plan.model.vocab_size);
    match (value.columns == vocabulary, value.rows, value.dtype) {
        (true, Rows::LogitRows, DType::F32) => Ok(()),
        _ => refuse(format!("logits are not a row of {vocabulary} f32 for each row that is wanted")),
    }
}

/// Matrices are of the plan's 16-bit type or codes, and gate and up are stored alike.
fn weights(plan: &Plan, step: &Step) -> Result<()> {
    let matrices = match step.op {
        Op::Linear { .. } | Op::Embedding { .. } | Op::PositionEmbedding => 1,
        Op::GatedLinear { .. } => 2,
        _ => return Ok(()),
    };
    let refuse = |weight: usize, why: String| {
        let what = format!("weight `{}`", plan.weights[weight].name);
        Err(Error::Unsupported { what, why })
    };
    let stored = |weight: usize| {
        let spec = &plan.weights[weight];
        (spec.dtype, spec.scale.map(|scale| scale.granularity))
    };
    let base = plan.precision.base();
    for &weight in &step.weights[..matrices] {
        let (dtype, scale) = stored(weight);
        let codes = scale.is_some() && matches!(step.op, Op::Linear { .. } | Op::GatedLinear { .. });
        if dtype != base && !codes {
            return refuse(weight, format!("it is {dtype}, which kernels of a plan in {base} do not read"));
        }
    }
    if matrices == 2 && stored(step.weights[0]) != stored(step.weights[1]) {
        let other = &plan.weights[step.weights[1]].name;
        return refuse(step.weights[0], format!("it is not stored as `{other}`, with which one kernel reads it"));
    }
    Ok(())
}

/// Where a row is a multiple of vectors, each of them is aligned.
fn views(plan: &Plan, step: &Step) -> Result<()> {
    for view in step.inputs.iter().chain(&step.outputs) {
        let value = &plan.values[view.value];
        let aligned = [view.start, value.columns].iter().all(|elements| elements.is_multiple_of(VECTOR));
        if view.columns.is_multiple_of(VECTOR) && !aligned {
            let what = format!("value `{}`", value.name);
            let why = format!("columns {} to {} of {}", view.start, view.start + view.columns, value.columns);
            return Err(Error::Unsupported { what, why: format!("step `{}` reads {why}, not aligned", step.name) });
        }
    }
    Ok(())
}

/// # Errors
/// `InvalidArgument` naming the limit that no launch reaches.
pub(super) fn limits(plan: &Plan, limits: &Limits) -> Result<()> {
    let at_most = |what: &str, value: usize, most: usize| match value <= most {
        true => Ok(()),
        false => Err(Error::argument(what, format!("is {value}, a GPU computes at most {most} in a step"))),
    };
    at_most("max_batch_size", limits.rows, MOST_BLOCKS)?;
    let by_tiles = (MOST_BLOCKS - limits.rows).saturating_mul(tile_tokens(plan));
    at_most("max_batch_tokens", limits.tokens, by_tiles.min(GENERIC_ROWS * MOST_BLOCKS))?;
    at_most("kv_tokens", limits.kv_blocks.saturating_mul(BLOCK_TOKENS), u32::MAX as usize)
}
