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

/// Row counts for which kernels are chosen; the last stands for all above.
const STEPS: [usize; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 2048];

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
    sizes(limits.tokens).into_iter().map(|size| class(plan, limits, target, size)).collect()
}

/// Every specialisation that a plan needs on `target`, whatever the limits of the session.
pub fn specialisations(plan: &Plan, target: &CudaTarget) -> BTreeSet<KernelSpec> {
    let most = STEPS[STEPS.len() - 1];
    specialisations_within(plan, target, &Limits { tokens: most, logit_rows: most, rows: most, kv_blocks: 1 })
}

/// Those that a session within `limits` needs.
pub fn specialisations_within(plan: &Plan, target: &CudaTarget, limits: &Limits) -> BTreeSet<KernelSpec> {
    let classes = classes(plan, limits, target);
    let works = classes.iter().flat_map(|class| class.calls.iter().flatten().map(|(_, call)| call));
    works.chain(classes.iter().flat_map(|class| &class.sampling)).map(|call| call.spec.clone()).collect()
}

/// The 16-bit type of a plan.
pub(super) fn half(plan: &Plan) -> DType {
    if plan.precision == Precision::F16 { DType::F16 } else { DType::BF16 }
}

/// Most rows of a size, and for how many its kernels are chosen.
#[derive(Debug, Clone, Copy)]
struct Size {
    most: usize,
    chosen_for: usize,
}

/// Sizes up to `most` rows. What is chosen does not depend on `most`.
fn sizes(most: usize) -> Vec<Size> {
    let smaller = STEPS.into_iter().filter(|step| *step < most);
    let next = STEPS.into_iter().find(|step| *step >= most).unwrap_or(STEPS[STEPS.len() - 1]);
    let last = Size { most, chosen_for: next };
    smaller.map(|step| Size { most: step, chosen_for: step }).chain([last]).collect()
}

fn class(plan: &Plan, limits: &Limits, target: &CudaTarget, size: Size) -> Class {
    let tokens = size.chosen_for;
    let few = tokens <= MOST_STREAMED && !target.invariant;
    let quantise = !few && !target.invariant && target.arch.has_wgmma();
    // A norm for each block costs more than a kernel of its own from about eight rows on.
    let works = Works::new(plan, Choice { norm_prologue: tokens <= 4 && few, quantise });
    let workspace = Workspace::new(&works, limits);
    let calls = works.works.iter().flat_map(|work| calls(plan, limits, target, work, size)).collect();
    let sampling = sample::calls(works.logits);
    Class { tokens: size.most, works, workspace, calls, sampling }
}

fn calls(plan: &Plan, limits: &Limits, target: &CudaTarget, work: &Work, size: Size) -> Vec<Vec<(usize, Call)>> {
    let half = half(plan);
    let attend = Attend { target, plan, half };
    let rowwise = Rowwise { half };
    let one = |call: Call| vec![vec![(usize::MAX, call)]];
    match work {
        Work::Linear(linear) => {
            let layer = Layer::new(plan, linear, half);
            let form = |size: Size| {
                let call = layer.call(target, layer.tactic(target, size.chosen_for), size.most.max(size.chosen_for));
                (size.most, call)
            };
            match linear.out.rows {
                Rows::Tokens => vec![vec![form(size)]],
                Rows::LogitRows => vec![sizes(limits.logit_rows.min(size.most)).into_iter().map(form).collect()],
            }
        }
        Work::Attention(attention) => {
            attend.calls(attention, size.chosen_for).into_iter().map(|c| vec![(usize::MAX, c)]).collect()
        }
        Work::Append { spec, k, v } => one(attend.append(spec, None, *k, *v, None)),
        other => one(rowwise.call(other)),
    }
}
