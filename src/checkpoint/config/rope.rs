//! Rotary embedding parameters: `rope_theta` and `rope_scaling` of transformers 4, `rope_parameters` of 5.

use super::MAX_POSITIONS;
use super::fields::Fields;
use crate::error::{Error, Result};

/// Base period and scaling of rotary embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeConfig {
    /// Above 1.
    pub theta: f64,
    pub scaling: RopeScaling,
}

/// How frequencies are stretched for contexts longer than the pretraining.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    Default,
    /// All frequencies divided by `factor`.
    Linear {
        factor: f64,
    },
    /// Low frequencies divided by `factor`, high ones kept, a ramp between; factors positive, low below high.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_max_positions: usize,
    },
    Yarn(Yarn),
}

/// Yarn's parameters, with defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yarn {
    pub factor: f64,
    /// Rotations over the original context above which a dimension is kept.
    pub beta_fast: f64,
    /// Rotations below which it is interpolated.
    pub beta_slow: f64,
    pub original_max_positions: usize,
    /// Multiplies cosine and sine.
    pub attention_factor: f64,
    /// Round the ramp's ends to whole dimensions.
    pub truncate: bool,
}

const DEFAULT_THETA: f64 = 10_000.0;
/// Factors stay where f32 arithmetic neither overflows nor vanishes.
const FACTOR: &str = "a number in 1e-6..=1e6";

/// Reads the rope parameters of a model with `max_positions`.
pub(super) fn read(fields: &Fields, max_positions: usize) -> Result<RopeConfig> {
    let theta = theta(fields)?;
    // As in transformers, a non-empty `rope_scaling` takes the place of `rope_parameters`.
    let rope = match fields.object("rope_scaling")?.filter(|rope| !rope.is_empty()) {
        Some(rope) => Some(rope),
        None => fields.object("rope_parameters")?,
    };
    let Some(rope) = rope else {
        return Ok(RopeConfig { theta: theta.unwrap_or(DEFAULT_THETA), scaling: RopeScaling::Default });
    };
    let theta = self::theta(&rope)?.or(theta).unwrap_or(DEFAULT_THETA);
    full_rotation(fields)?;
    full_rotation(&rope)?;
    Ok(RopeConfig { theta, scaling: scaling(fields, &rope, max_positions)? })
}

fn theta(fields: &Fields) -> Result<Option<f64>> {
    fields.real("rope_theta", |x| x > 1.0 && x < 1e30, "a finite number above 1")
}

fn full_rotation(fields: &Fields) -> Result<()> {
    match fields.real("partial_rotary_factor", |x| x > 0.0 && x <= 1.0, "a number above 0, at most 1")? {
        None | Some(1.0) => Ok(()),
        Some(part) => Err(Error::Unsupported {
            what: format!("partial_rotary_factor {part}"),
            why: "this family rotates whole heads".into(),
        }),
    }
}

fn scaling(fields: &Fields, rope: &Fields, max_positions: usize) -> Result<RopeScaling> {
    let name = match rope.text("rope_type")? {
        Some(name) => Some(name),
        None => rope.text("type")?,
    };
    let factor = || rope.needed_real("factor", is_factor, FACTOR);
    match name {
        None | Some("default") => Ok(RopeScaling::Default),
        Some("linear") => Ok(RopeScaling::Linear { factor: factor()? }),
        Some("llama3") => llama3(rope, factor()?, original(fields, rope, max_positions)?),
        Some("yarn") => {
            let original = original(fields, rope, max_positions)?;
            let factor = match rope.get("factor") {
                Some(_) => factor()?,
                None => max_positions as f64 / original as f64,
            };
            yarn(rope, factor, original).map(RopeScaling::Yarn)
        }
        Some(other) => Err(Error::Unsupported {
            what: format!("rope type `{other}`"),
            why: "default, linear, llama3 and yarn are there".into(),
        }),
    }
}

/// Context of the pretraining; a model that states it beside the rope parameters means that one.
fn original(fields: &Fields, rope: &Fields, max_positions: usize) -> Result<usize> {
    const NAME: &str = "original_max_position_embeddings";
    let place = if fields.get(NAME).is_some() { fields } else { rope };
    place.count(NAME, u64::try_from(max_positions).ok(), 1..=MAX_POSITIONS)
}

fn llama3(rope: &Fields, factor: f64, original_max_positions: usize) -> Result<RopeScaling> {
    let low_freq_factor = rope.needed_real("low_freq_factor", is_factor, FACTOR)?;
    let high_freq_factor = rope.needed_real("high_freq_factor", is_factor, FACTOR)?;
    if low_freq_factor >= high_freq_factor {
        return Err(rope.invalid("high_freq_factor", format!("{high_freq_factor} is not above {low_freq_factor}")));
    }
    Ok(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions })
}

fn yarn(rope: &Fields, factor: f64, original_max_positions: usize) -> Result<Yarn> {
    let option = |name: &str| rope.real(name, |x| (0.0..=1e6).contains(&x), "a number in 0..=1e6");
    // Zero means unset for these four, as it does in transformers.
    let set = |name: &str| option(name).map(|value| value.filter(|x| *x != 0.0));
    let (mscale, mscale_all_dim) = (set("mscale")?, set("mscale_all_dim")?);
    let attention_factor = match (option("attention_factor")?, mscale, mscale_all_dim) {
        (Some(factor), ..) => factor,
        (None, Some(mscale), Some(all_dim)) => magnitude(factor, mscale) / magnitude(factor, all_dim),
        _ => magnitude(factor, 1.0),
    };
    let (beta_fast, beta_slow) = (set("beta_fast")?.unwrap_or(32.0), set("beta_slow")?.unwrap_or(1.0));
    if beta_fast < beta_slow {
        return Err(rope.invalid("beta_fast", format!("{beta_fast} is below beta_slow {beta_slow}")));
    }
    let truncate = rope.flag("truncate", true)?;
    Ok(Yarn { factor, beta_fast, beta_slow, original_max_positions, attention_factor, truncate })
}

/// Yarn's growth of attention magnitude with the stretch.
fn magnitude(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

fn is_factor(x: f64) -> bool {
    (1e-6..=1e6).contains(&x)
}
