//! Which kernel computes a linear layer, and how it is called.

mod gemv;
mod mma;
mod product;
mod wgmma;

use super::call::{Arg, Call, Count, Grid};
use super::kernel::KernelSpec;
use super::rowwise::{count, element, float};
use super::tactics::Tactics;
use super::target::CudaTarget;
use super::work::{Linear, Operand};
use crate::engine::{Granularity, Plan, WeightSpec};
use crate::types::{Activation, DType};
use gemv::{Gemv, MOST_STREAMED};
use mma::Mma;
use product::Product;
use serde::{Deserialize, Serialize};
use wgmma::Wgmma;

/// How a layer is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Tactic {
    /// Any shape, slowly.
    Generic,
    /// Few rows: weights stream through shared memory once.
    Gemv(Gemv),
    /// Tensor cores by `mma.sync`, on every arch.
    Mma(Mma),
    /// Tensor cores by `wgmma`, operands by the copy engine.
    Wgmma(Wgmma),
    /// The vendor's library.
    Product(Product),
}

impl Tactic {
    /// Whether one kernel, or the vendor's library, computes both.
    pub(super) fn is_of_kind(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// Fewest rows for which the warpgroup kernel may beat the streaming one; above, it does unless a measurement says otherwise.
const FEWEST_MULTIPLIED: usize = 8;

/// Whether the tensor-core kernels can read such an operand and such a weight.
pub(super) fn is_aligned(x: &Operand, n: usize, e4m3: bool) -> bool {
    x.columns.is_multiple_of(if e4m3 { 128 } else { 64 })
        && n.is_multiple_of(8)
        && x.stride.is_multiple_of(16)
        && x.start.is_multiple_of(16)
}

/// Numbers by which kernels know an activation.
pub(super) fn activation_number(activation: Option<Activation>) -> u32 {
    match activation {
        None => 0,
        Some(Activation::Silu) => 1,
        Some(Activation::Gelu) => 2,
        Some(Activation::GeluTanh) => 3,
        Some(Activation::Relu) => 4,
    }
}

/// A layer with its shape at hand.
pub(super) struct Layer<'a> {
    linear: &'a Linear,
    weight: &'a WeightSpec,
    n: usize,
    k: usize,
    half: DType,
}

impl<'a> Layer<'a> {
    pub(super) fn new(plan: &'a Plan, linear: &'a Linear, half: DType) -> Self {
        let weight = &plan.weights[linear.weights[0]];
        Self { linear, weight, n: linear.out.columns, k: linear.x.columns, half }
    }

    /// The tactic for at most `rows` rows: what was measured, or else the default.
    pub(super) fn tactic(&self, target: &CudaTarget, tactics: &Tactics, rows: usize) -> Tactic {
        let candidates = self.candidates(target, rows);
        // Tactics come from a file: only what this library would try itself, here, runs.
        let tuned = tactics.get(target.arch, &self.key(), rows).iter().find(|tuned| candidates.contains(tuned));
        *tuned.unwrap_or(&candidates[0])
    }

    /// Tactics worth a measurement, the default one first.
    pub(super) fn candidates(&self, target: &CudaTarget, rows: usize) -> Vec<Tactic> {
        if !is_aligned(&self.linear.x, self.n, self.is_e4m3()) {
            return vec![Tactic::Generic];
        }
        let quantised = self.linear.x_scale.is_some();
        let streams = rows <= MOST_STREAMED && !target.invariant && !quantised;
        // The tensor-core kernels know no norm, and the warpgroup kernel's operands have one type: the only one for codes.
        let multiplies = self.linear.norm.is_none();
        let warpgroups = target.arch.has_wgmma() && !target.invariant && (quantised || !self.is_e4m3());
        let streamed: Vec<Tactic> = match streams {
            true => self.gemvs(target, rows.next_power_of_two()).into_iter().map(Tactic::Gemv).collect(),
            false => Vec::new(),
        };
        let multiplied: Vec<Tactic> = match warpgroups {
            _ if !multiplies => Vec::new(),
            true if streams && rows < FEWEST_MULTIPLIED => Vec::new(),
            true => self.wgmmas(target, rows).into_iter().map(Tactic::Wgmma).collect(),
            false => self.mmas(target, rows).into_iter().map(Tactic::Mma).collect(),
        };
        let mut candidates = match warpgroups && rows > FEWEST_MULTIPLIED {
            true => [multiplied, streamed].concat(),
            false => [streamed, multiplied].concat(),
        };
        if candidates.is_empty() {
            candidates.push(Tactic::Generic);
        }
        candidates.extend(self.products(target, rows).into_iter().map(Tactic::Product));
        candidates
    }

    /// What tactics are kept by: all that a layer's kernels depend on.
    pub(super) fn key(&self) -> String {
        let quantised = self.linear.x_scale.map_or("", |_| " X_E4M3");
        self.spec("").macros() + quantised
    }

    /// Columns of its output and of its input.
    pub(super) fn shape(&self) -> [usize; 2] {
        [self.n, self.k]
    }

    /// The call of a tactic for at most `most` rows.
    pub(super) fn call(&self, target: &CudaTarget, tactic: Tactic, most: usize) -> Call {
        match tactic {
            Tactic::Generic => {
                let grid = Grid::Y { x: self.n.div_ceil(16) as u32, per: 4 };
                self.plain(self.spec("linear/generic.cu"), grid, 128, 0)
            }
            Tactic::Gemv(gemv) => self.gemv_call(target, gemv),
            Tactic::Mma(mma) => self.mma_call(mma),
            Tactic::Wgmma(wgmma) => self.wgmma_call(target, wgmma, most),
            Tactic::Product(product) => self.product_call(product, most),
        }
    }

    /// Matrices of the layer: 2 for gate and up.
    fn matrices(&self) -> usize {
        self.linear.weights.len()
    }

    fn is_e4m3(&self) -> bool {
        self.weight.dtype == DType::E4M3
    }

    fn has_block_scales(&self) -> bool {
        self.weight.scale.as_ref().is_some_and(|scale| scale.granularity == Granularity::Block)
    }

    fn count(&self) -> Count {
        count(&self.linear.out)
    }

    /// Tiles of `columns` rows of the matrices that cover all outputs.
    fn column_tiles(&self, columns: usize) -> usize {
        self.n.div_ceil(columns / self.matrices())
    }

    fn scale_arg(&self, index: usize) -> Arg {
        match self.linear.weights.get(index) {
            Some(weight) if self.is_e4m3() => Arg::Scale(*weight),
            _ => Arg::Null,
        }
    }

    fn bias_arg(&self, index: usize) -> Arg {
        self.linear.biases.get(index).map_or(Arg::Null, |bias| Arg::Weight(*bias))
    }

    fn residual_arg(&self) -> Arg {
        self.linear.residual.map_or(Arg::Null, Arg::Buffer)
    }

    /// A call with the arguments that all kernels but the warpgroup one share.
    fn plain(&self, spec: KernelSpec, grid: Grid, block: usize, shared: usize) -> Call {
        let linear = self.linear;
        let weight = |index: usize| linear.weights.get(index).map_or(Arg::Null, |weight| Arg::Weight(*weight));
        let args = vec![
            Arg::Buffer(linear.out),
            Arg::Buffer(linear.x),
            weight(0),
            weight(1),
            self.scale_arg(0),
            self.scale_arg(1),
            self.bias_arg(0),
            self.bias_arg(1),
            self.residual_arg(),
            linear.norm.map_or(Arg::Null, |norm| Arg::Weight(norm.gain)),
            Arg::Count(self.count()),
            Arg::U32(linear.x.stride as u32),
        ];
        Call::new(spec, block as u32, grid, self.count(), args).shared(shared as u32)
    }

    fn spec(&self, source: &'static str) -> KernelSpec {
        let linear = self.linear;
        element(KernelSpec::new(source, "linear"), self.half)
            .define("N", self.n)
            .define("K", self.k)
            .define("ACTIVATION", activation_number(linear.activation))
            .define_if(self.is_e4m3(), "WEIGHT_E4M3", "")
            .define_if(self.has_block_scales(), "SCALE_BLOCK", "")
            .define_if(linear.out.dtype == DType::F32, "OUTPUT_F32", "")
            .define_if(!linear.biases.is_empty(), "BIAS", "")
            .define_if(self.matrices() == 2, "GATED", "")
            .define_if(linear.residual.is_some(), "RESIDUAL", "")
            .define_if(linear.norm.is_some(), "NORM", "")
            .define_if(linear.norm.is_some(), "NORM_EPS", linear.norm.map_or(String::new(), |norm| float(norm.eps)))
    }
}
