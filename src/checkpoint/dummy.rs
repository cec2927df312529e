//! Weights without a checkpoint, for measuring big shapes: every value is a function of seed, tensor name and index.

use std::collections::HashMap;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::source::{WeightSource, matrix};
use crate::error::{Error, Result};
use crate::types::DType;

/// Standard deviation of the values, that of a fresh model.
const DEVIATION: f32 = 0.02;

/// Tensors of known names and shapes with normal(0, 0.02) values; vectors named `*.weight` (gains of norms) are around 1.
#[derive(Debug, Clone)]
pub struct Dummy {
    tensors: HashMap<String, Vec<usize>>,
    seed: u64,
}

impl Dummy {
    /// A source that holds exactly `tensors`.
    #[must_use]
    pub fn new(tensors: impl IntoIterator<Item = (String, Vec<usize>)>, seed: u64) -> Self {
        Self { tensors: tensors.into_iter().collect(), seed }
    }
}

impl WeightSource for Dummy {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).cloned()
    }

    fn dtype(&self) -> Option<DType> {
        None
    }

    fn read(&self, name: &str, rows: Range<usize>, columns: Range<usize>, out: &mut [f32]) -> Result<()> {
        let missing = || Error::InvalidCheckpoint { what: format!("tensor `{name}`"), why: "it is missing".into() };
        let shape = self.tensors.get(name).ok_or_else(missing)?;
        let (height, width) = matrix(shape);
        if rows.end > height || columns.end > width || out.len() != rows.len() * columns.len() {
            let why = format!("rows {rows:?} and columns {columns:?} are not in shape {shape:?}");
            return Err(Error::InvalidCheckpoint { what: format!("tensor `{name}`"), why });
        }
        let key = xxh3_64_with_seed(name.as_bytes(), self.seed);
        let mean = if shape.len() == 1 && name.ends_with(".weight") { 1.0 } else { 0.0 };
        for (row, out) in rows.zip(out.chunks_mut(columns.len().max(1))) {
            let first = (row * width + columns.start) as u64;
            for (index, out) in out.iter_mut().enumerate() {
                *out = mean + normal(key, first + index as u64);
            }
        }
        Ok(())
    }
}

/// A sum of four 16-bit uniforms, scaled: close to normal within three deviations and a few operations a value.
fn normal(key: u64, index: u64) -> f32 {
    const LANES: u64 = 0x0000_ffff_0000_ffff;
    const MEAN: i32 = 2 * 0xffff;
    const SCALE: f32 = DEVIATION / 37_837.226;
    let bits = mix(key.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let pairs = (bits & LANES) + (bits >> 16 & LANES);
    let sum = (pairs as u32).wrapping_add((pairs >> 32) as u32);
    (sum as i32 - MEAN) as f32 * SCALE
}

/// The finaliser of splitmix64.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_normal_and_do_not_depend_on_how_they_are_read() {
        let dummy = Dummy::new([("w".to_string(), vec![300, 400]), ("ln.weight".to_string(), vec![1000])], 7);
        let mut all = vec![0.0; 300 * 400];
        dummy.read("w", 0..300, 0..400, &mut all).expect("reads");
        let mut block = vec![0.0; 2 * 3];
        dummy.read("w", 10..12, 5..8, &mut block).expect("reads");
        assert_eq!(block[..3], all[10 * 400 + 5..][..3]);
        assert_eq!(block[3..], all[11 * 400 + 5..][..3]);

        let moment = |power: i32| all.iter().map(|x| f64::from(*x / DEVIATION).powi(power)).sum::<f64>() / 120_000.0;
        assert!(moment(1).abs() < 0.01 && (moment(2) - 1.0).abs() < 0.01, "{} {}", moment(1), moment(2));
        assert!((moment(4) - 2.7).abs() < 0.1, "kurtosis of four uniforms: {}", moment(4));

        let mut gain = vec![0.0; 1000];
        dummy.read("ln.weight", 0..1000, 0..1, &mut gain).expect("reads");
        assert!((gain.iter().sum::<f32>() / 1000.0 - 1.0).abs() < 0.01);
    }

    #[test]
    fn seed_and_name_choose_the_values() {
        let read = |seed, name: &str| {
            let mut out = vec![0.0; 8];
            Dummy::new([(name.to_string(), vec![8, 1])], seed).read(name, 0..8, 0..1, &mut out).expect("reads");
            out
        };
        assert_eq!(read(1, "a"), read(1, "a"));
        assert_ne!(read(1, "a"), read(2, "a"));
        assert_ne!(read(1, "a"), read(1, "b"));
    }
}
