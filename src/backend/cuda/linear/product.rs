//! The vendor's library of matrix products, where it is there and has what the layer needs.

use serde::{Deserialize, Serialize};

use super::Layer;
use crate::backend::cuda::call::{Arg, Call, Shared};
use crate::backend::cuda::matmul::MatmulSpec;
use crate::backend::cuda::target::CudaTarget;

/// Fewest rows for which it is tried: below, weights are read once and nothing is multiplied to speak of.
const FEWEST: usize = 32;
/// How many of the library's own proposals are timed.
const PROPOSALS: u8 = 3;
/// What its makers advise for Hopper.
const WORKSPACE: usize = 32 << 20;

/// Which of the library's proposals, from its favourite on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::backend::cuda) struct Product {
    rank: u8,
}

impl Layer<'_> {
    pub(super) fn products(&self, target: &CudaTarget, rows: usize) -> Vec<Product> {
        let able = target.products && !target.invariant && rows >= FEWEST && self.is_plain();
        if able { (0..PROPOSALS).map(|rank| Product { rank }).collect() } else { Vec::new() }
    }

    /// Whether the layer is a product and a sum, with operands of one type.
    fn is_plain(&self) -> bool {
        let linear = self.linear;
        let uniform = linear.x_scale.is_some() || !self.is_e4m3();
        let bare = linear.activation.is_none() && linear.norm.is_none() && linear.biases.is_empty();
        self.matrices() == 1 && bare && uniform && !self.has_block_scales()
    }

    pub(super) fn product_call(&self, product: Product, most: usize) -> Call {
        let linear = self.linear;
        let spec = MatmulSpec {
            element: linear.x.dtype,
            out: linear.out.dtype,
            rows: most as u32,
            n: self.n,
            k: self.k,
            x_stride: linear.x.stride,
            out_stride: linear.out.stride,
            residual_stride: linear.residual.map(|residual| residual.stride),
            bias: false,
            workspace_bytes: WORKSPACE,
            rank: product.rank,
        };
        let args = vec![
            Arg::Buffer(linear.x),
            Arg::Weight(linear.weights[0]),
            Arg::Buffer(linear.out),
            self.residual_arg(),
            linear.x_scale.map_or(Arg::Null, Arg::Buffer),
            self.scale_arg(0),
            Arg::Null,
            Arg::Shared(Shared::Partial),
        ];
        Call::product(spec, self.count(), args)
    }
}
