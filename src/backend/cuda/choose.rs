//! The calls of a plan, for every class of step: what a builder compiles and a program binds.

use std::collections::{BTreeMap, BTreeSet};

use super::attention::Attend;
use super::call::Call;
use super::kernel::KernelSpec;
use super::linear::Layer;
use super::rowwise::Rowwise;
use super::sample;
use super::tactics::Tactics;
use super::target::CudaTarget;
use super::work::{Choice, Linear, Work, Works};
use super::workspace::Workspace;
use crate::engine::{Limits, Plan, Rows};

/// Row counts for which kernels are chosen; the last stands for all above.
const STEPS: [usize; 13] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 8192];
/// Most rows of logits for which a tuner looks.
const MOST_TUNED_LOGITS: usize = 512;
/// Most rows of 16-bit operands on e4m3 weights where tensor cores of one type are the alternative.
const MOST_UNQUANTISED: usize = 8;
/// Most rows whose norms run in the linear layers: each block computes them, which soon costs more than a kernel.
const MOST_NORMED: usize = 4;

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

impl Class {
    /// Every call in every form, those of sampling included.
    pub(super) fn all_calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().flatten().map(|(_, call)| call).chain(&self.sampling)
    }
}

/// What the choice of kernels follows.
#[derive(Clone, Copy)]
pub struct Selector<'a> {
    pub plan: &'a Plan,
    pub target: &'a CudaTarget,
    /// What was measured; none of it has to be there.
    pub tactics: &'a Tactics,
}

impl Selector<'_> {
    /// Every specialisation that the plan needs, whatever the limits of the session.
    #[must_use]
    pub fn specialisations(&self) -> BTreeSet<KernelSpec> {
        self.specialisations_within(&Self::widest())
    }

    /// Those that a session within `limits` needs.
    #[must_use]
    pub fn specialisations_within(&self, limits: &Limits) -> BTreeSet<KernelSpec> {
        self.classes(limits).iter().flat_map(Class::all_calls).filter_map(|call| call.spec().cloned()).collect()
    }

    /// The classes of the plan for steps within `limits`.
    pub(super) fn classes(&self, limits: &Limits) -> Vec<Class> {
        sizes(limits.tokens).into_iter().map(|size| self.class(limits, size)).collect()
    }

    /// Every linear layer with the row counts that tactics are chosen for. Layers of one key are one.
    pub(super) fn layers(&self) -> Vec<(Linear, BTreeSet<usize>)> {
        // Beyond, logits take more memory than their speed is worth.
        let most = Limits { logit_rows: MOST_TUNED_LOGITS, ..Self::widest() };
        let mut layers = BTreeMap::new();
        for size in sizes(most.tokens) {
            for work in self.works(size.chosen_for).works {
                let Work::Linear(linear) = work else { continue };
                let sizes = linear_sizes(&linear, &most, size);
                let key = Layer::new(self.plan, &linear, self.plan.precision.base()).key();
                let (_, rows) = layers.entry(key).or_insert_with(|| (linear, BTreeSet::new()));
                rows.extend(sizes.into_iter().map(|size| size.chosen_for));
            }
        }
        layers.into_values().collect()
    }

    /// Limits that reach every size.
    fn widest() -> Limits {
        let most = STEPS[STEPS.len() - 1];
        Limits { tokens: most, logit_rows: most, rows: most, kv_blocks: 1 }
    }

    fn works(&self, tokens: usize) -> Works {
        let target = self.target;
        let quantise = tokens > MOST_UNQUANTISED && !target.invariant && target.arch.has_wgmma();
        Works::new(self.plan, Choice { norm_prologue: tokens <= MOST_NORMED && !target.invariant, quantise })
    }

    fn class(&self, limits: &Limits, size: Size) -> Class {
        let works = self.works(size.chosen_for);
        let workspace = Workspace::new(&works, limits);
        let calls = works.works.iter().flat_map(|work| self.calls(limits, work, size)).collect();
        let sampling = sample::calls(works.logits, self.target.arch, size.chosen_for);
        Class { tokens: size.most, works, workspace, calls, sampling }
    }

    fn calls(&self, limits: &Limits, work: &Work, size: Size) -> Vec<Vec<(usize, Call)>> {
        let Self { plan, target, tactics } = *self;
        let half = plan.precision.base();
        let attend = Attend { target, plan, half };
        let rowwise = Rowwise { half };
        let one = |call: Call| vec![vec![(usize::MAX, call)]];
        match work {
            Work::Linear(linear) => {
                let layer = Layer::new(plan, linear, half);
                let form = |size: Size| {
                    let tactic = layer.tactic(target, tactics, size.chosen_for);
                    (size.most, layer.call(target, tactic, size.most.max(size.chosen_for)))
                };
                vec![linear_sizes(linear, limits, size).into_iter().map(form).collect()]
            }
            Work::Attention(attention) => {
                attend.calls(attention, size.chosen_for).into_iter().map(|c| vec![(usize::MAX, c)]).collect()
            }
            Work::Append { spec, k, v } => one(attend.append(spec, None, *k, *v, None)),
            other => one(rowwise.call(other)),
        }
    }
}

/// The sizes for which a layer's kernel is chosen apart in steps of one size.
fn linear_sizes(linear: &Linear, limits: &Limits, size: Size) -> Vec<Size> {
    match linear.out.rows {
        Rows::Tokens => vec![size],
        Rows::LogitRows => sizes(limits.logit_rows.min(size.most)),
    }
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
