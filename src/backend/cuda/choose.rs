//! The calls of a plan, for every class of step: what a builder compiles and a program binds.

use std::collections::BTreeSet;

use super::attention::Attend;
use super::call::Call;
use super::kernel::KernelSpec;
use super::linear::{Layer, MOST_STREAMED};
use super::rowwise::Rowwise;
use super::sample;
use super::target::CudaTarget;
use super::work::{Choice, Work, Works};
use super::workspace::Workspace;
use crate::engine::{Limits, Plan, Precision, Rows};
use crate::types::DType;

/// Row counts up to which linear layers are chosen anew.
const STEPS: [usize; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// Steps of at most `tokens` tokens.
pub(super) struct Class {
    pub(super) tokens: usize,
    pub(super) works: Works,
    pub(super) workspace: Workspace,
    /// In order; each call in forms for at most so many rows.
    pub(super) calls: Vec<Vec<(usize, Call)>>,
    /// The two kernels that sample.
    pub(super) sampling: [Call; 2],
}

/// The classes of a plan for steps within `limits`.
pub(super) fn classes(plan: &Plan, limits: &Limits, target: &CudaTarget) -> Vec<Class> {
    let tokens = sizes(limits.tokens);
    tokens.iter().map(|tokens| class(plan, limits, target, *tokens)).collect()
}

/// Every specialisation that a plan needs on `target`, whatever the limits of the session.
pub fn specialisations(plan: &Plan, target: &CudaTarget) -> BTreeSet<KernelSpec> {
    let most = 2 * STEPS[STEPS.len() - 1];
    let limits = Limits { tokens: most, logit_rows: most, rows: most, kv_blocks: 1 };
    let classes = classes(plan, &limits, target);
    let works = classes.iter().flat_map(|class| class.calls.iter().flatten().map(|(_, call)| call));
    works.chain(classes.iter().flat_map(|class| &class.sampling)).map(|call| call.spec.clone()).collect()
}

/// The 16-bit type of a plan.
pub(super) fn half(plan: &Plan) -> DType {
    if plan.precision == Precision::F16 { DType::F16 } else { DType::BF16 }
}

fn sizes(most: usize) -> Vec<usize> {
    STEPS.into_iter().filter(|size| *size < most).chain([most]).collect()
}

fn class(plan: &Plan, limits: &Limits, target: &CudaTarget, tokens: usize) -> Class {
    let few = tokens <= MOST_STREAMED && !target.invariant;
    let quantise = !few && !target.invariant && target.arch.has_wgmma();
    // A norm for each block costs more than a kernel of its own from about eight rows on.
    let works = Works::new(plan, Choice { norm_prologue: tokens <= 4 && few, quantise });
    let workspace = Workspace::new(&works, limits);
    let calls = works.works.iter().flat_map(|work| calls(plan, limits, target, work, tokens)).collect();
    let sampling = sample::calls(works.logits);
    Class { tokens, works, workspace, calls, sampling }
}

fn calls(plan: &Plan, limits: &Limits, target: &CudaTarget, work: &Work, tokens: usize) -> Vec<Vec<(usize, Call)>> {
    let half = half(plan);
    let attend = Attend { target, plan, half };
    let rowwise = Rowwise { half };
    let one = |call: Call| vec![vec![(usize::MAX, call)]];
    match work {
        Work::Linear(linear) => {
            let layer = Layer::new(plan, linear, half);
            let form = |rows: usize| (rows, layer.call(target, layer.tactic(target, rows), rows));
            match linear.out.rows {
                Rows::Tokens => vec![vec![form(tokens)]],
                Rows::LogitRows => vec![sizes(limits.logit_rows.min(tokens)).into_iter().map(form).collect()],
            }
        }
        Work::Attention(attention) => {
            attend.calls(attention, tokens).into_iter().map(|c| vec![(usize::MAX, c)]).collect()
        }
        Work::Append { spec, k, v } => one(attend.append(spec, None, *k, *v, None)),
        other => one(rowwise.call(other)),
    }
}
