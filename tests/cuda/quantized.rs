//! Quantised Hugging Face checkpoints on the GPU against the CPU backend, which dequantises the same codes.

use trtllm::builder::BuildOptions;
use trtllm::engine::Target;

use crate::common::quantized::{Models, Scheme, VOCABULARY};
use crate::{compare, cut, gpu, some_tokens};

/// From nine rows on activations are e4m3 with a scale for each row or 128 columns: 2^-4 of their own size at worst, 2^-5.7 in
/// the mean, where the dequantising CPU has none of that; over the few layers here that adds up to less than a tenth.
const TOLERANCE: f64 = 0.1;

#[test]
fn checkpoints_of_every_scheme() {
    if !gpu() {
        return;
    }
    for scheme in Scheme::ALL {
        let models = Models::new(scheme, 9);
        let engines = [Target::Cuda, Target::Cpu]
            .map(|target| models.engine(true, &BuildOptions { target, tune: false, ..BuildOptions::default() }));
        let tokens = some_tokens(60, VOCABULARY, 3);
        for pieces in [vec![], vec![1; 60], vec![5, 20, 30], vec![40, 1, 8, 1]] {
            compare(&format!("{scheme:?}"), &engines, &tokens, &cut(60, &pieces), TOLERANCE);
        }
    }
}
