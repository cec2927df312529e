//! The element types of an engine, decided from what was asked for and what the checkpoint holds.

use super::BuildOptions;
use crate::engine::{Precision, Target};
use crate::error::{Error, Result};
use crate::types::DType;

/// How an engine's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Formats {
    pub(super) target: Target,
    pub(super) precision: Precision,
    pub(super) kv: DType,
    /// Of the last linear's weight.
    pub(super) head: DType,
}

impl Formats {
    /// What the options ask for; `stored` is the element type of most of the source's weights.
    ///
    /// # Errors
    /// `Unsupported` for f32 and int8 on CUDA; `InvalidArgument` naming a KV or head precision that the engine's does not go with.
    pub(super) fn choose(options: &BuildOptions, stored: Option<DType>) -> Result<Self> {
        let (target, precision) = (options.target, options.precision.unwrap_or(natural(options.target, stored)));
        if !precision.runs_on(target) {
            let why = format!("bf16, f16 and fp8 are there; {precision} engines run on the cpu");
            return Err(Error::Unsupported { what: format!("precision {precision} on {target}"), why });
        }
        let part = |name: &str, asked: Option<Precision>, narrow: Precision| match asked {
            None => Ok(precision.base()),
            Some(asked) if asked.matrix() == precision.base() => Ok(precision.base()),
            Some(asked) if asked == narrow => Ok(narrow.matrix()),
            Some(asked) => Err(Error::argument(name, format!("{asked} does not go with an engine of {precision}"))),
        };
        Ok(Self {
            target,
            precision,
            kv: part("kv_precision", options.kv_precision, Precision::Fp8)?,
            head: part("head_precision", options.head_precision, precision)?,
        })
    }
}

/// The precision that keeps what the source stores.
fn natural(target: Target, stored: Option<DType>) -> Precision {
    match (target, stored) {
        (_, Some(DType::E4M3)) => Precision::Fp8,
        (Target::Cuda, Some(DType::F16)) => Precision::F16,
        (Target::Cpu, None | Some(DType::F32 | DType::I32)) => Precision::F32,
        _ => Precision::Bf16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formats(options: BuildOptions, stored: DType) -> Result<(Precision, DType, DType)> {
        Formats::choose(&options, Some(stored)).map(|formats| (formats.precision, formats.kv, formats.head))
    }

    #[test]
    fn what_is_not_asked_for_follows_the_checkpoint() -> Result<()> {
        let cuda = || BuildOptions { target: Target::Cuda, ..BuildOptions::default() };
        let [f32, f16, bf16] = [DType::F32, DType::F16, DType::BF16];
        assert_eq!(formats(BuildOptions::default(), f32)?, (Precision::F32, f32, f32));
        assert_eq!(formats(BuildOptions::default(), f16)?, (Precision::Bf16, bf16, bf16));
        assert_eq!(formats(BuildOptions::default(), DType::E4M3)?, (Precision::Fp8, bf16, bf16));
        assert_eq!(formats(cuda(), f32)?, (Precision::Bf16, bf16, bf16));
        assert_eq!(formats(cuda(), f16)?, (Precision::F16, f16, f16));
        Ok(())
    }

    #[test]
    fn cache_and_head_go_with_the_engine_or_are_refused_by_name() -> Result<()> {
        let with = |precision, kv, head| {
            let (kv_precision, head_precision) = (Some(kv), Some(head));
            let precision = Some(precision);
            formats(BuildOptions { precision, kv_precision, head_precision, ..BuildOptions::default() }, DType::BF16)
        };
        use Precision::{Bf16, F16, F32, Fp8, Int8, Int8W8a8};
        assert_eq!(with(Fp8, Fp8, Fp8)?, (Fp8, DType::E4M3, DType::E4M3));
        assert_eq!(with(Fp8, Bf16, Bf16)?, (Fp8, DType::BF16, DType::BF16));
        assert_eq!(with(F16, Fp8, F16)?, (F16, DType::E4M3, DType::F16));
        assert_eq!(with(Int8, Bf16, Int8)?, (Int8, DType::BF16, DType::I8));
        assert_eq!(with(Int8W8a8, Fp8, Int8W8a8)?, (Int8W8a8, DType::E4M3, DType::I8));
        assert_eq!(with(Int8W8a8, Bf16, Bf16)?, (Int8W8a8, DType::BF16, DType::BF16));
        for (precision, kv, head, culprit) in [
            (Bf16, F16, Bf16, "`kv_precision`"),
            (Fp8, F32, Bf16, "`kv_precision`"),
            (Bf16, Bf16, Fp8, "`head_precision`"),
            (Fp8, Fp8, F16, "`head_precision`"),
            (Int8, Int8, Bf16, "`kv_precision`"),
            (Int8, Bf16, Int8W8a8, "`head_precision`"),
            (Int8W8a8, Bf16, Fp8, "`head_precision`"),
            (Bf16, Bf16, Int8, "`head_precision`"),
        ] {
            let error = with(precision, kv, head).expect_err("refused");
            assert!(error.to_string().contains(culprit), "{error}");
        }
        for (precision, name) in [(F32, "f32"), (Int8, "int8"), (Int8W8a8, "int8_w8a8")] {
            let cuda = BuildOptions { target: Target::Cuda, precision: Some(precision), ..BuildOptions::default() };
            let error = formats(cuda, DType::F32).expect_err("refused");
            assert_eq!(error.status(), crate::Status::Unsupported);
            assert!(error.to_string().contains(&format!("precision {name} on cuda")), "{error}");
        }
        Ok(())
    }
}
