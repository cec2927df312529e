//! Rotary embedding parameters: `rope_theta` and `rope_scaling` of transformers 4, `rope_parameters` of 5.

use super::fields::Fields;
use super::{MAX_POSITIONS, ModelConfig};
use crate::error::{Error, Result};

/// Base period and scaling of rotary embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Above 1.
    pub theta: f64,
    /// Leading dimensions of a head that rotate; even, at least 2.
    pub rotary_dim: usize,
    pub scaling: RopeScaling,
}

/// How frequencies are stretched for contexts longer than the pretraining.
#[derive(Debug, Clone, PartialEq)]
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
    Long(LongRope),
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

/// Stretches for contexts up to the pretraining's and for longer ones, one for each frequency.
#[derive(Debug, Clone, PartialEq)]
pub struct LongRope {
    /// Both have `rotary_dim / 2` positive numbers.
    pub short: Vec<f64>,
    pub long: Vec<f64>,
    pub original_max_positions: usize,
    /// Multiplies cosine and sine, also of short contexts.
    pub attention_factor: f64,
}

pub(super) const DEFAULT_THETA: f64 = 10_000.0;
/// Factors stay where f32 arithmetic neither overflows nor vanishes.
const FACTOR: &str = "a number in 1e-6..=1e6";

/// The rope of a model with one for all layers that rotates whole heads.
pub(super) fn read(fields: &Fields, config: &ModelConfig) -> Result<RopeConfig> {
    let theta = theta(fields, "rope_theta")?.unwrap_or(DEFAULT_THETA);
    whole(fields, parameters(fields)?.as_ref(), theta, config)
}

/// The rope that `rope` describes, or the default one with `theta`, of whole heads.
pub(super) fn whole(fields: &Fields, rope: Option<&Fields>, theta: f64, config: &ModelConfig) -> Result<RopeConfig> {
    for place in [Some(fields), rope].into_iter().flatten() {
        if let Some(part) = partial_factor(place)?.filter(|part| *part < 1.0) {
            let what = format!("partial_rotary_factor {part}");
            return Err(Error::Unsupported { what, why: "this family rotates whole heads".into() });
        }
    }
    described(fields, rope, theta, config, |rope, _| scaling(fields, rope, config.max_positions))
}

/// The rope that `rope` describes, with the scaling that is read from it for so many dimensions that rotate; or the
/// default one with `theta`.
pub(super) fn described(
    fields: &Fields,
    rope: Option<&Fields>,
    theta: f64,
    config: &ModelConfig,
    scaling: impl FnOnce(&Fields, usize) -> Result<RopeScaling>,
) -> Result<RopeConfig> {
    let rotary_dim = rotary_dim(fields, rope.unwrap_or(fields), config.head_dim)?;
    let Some(rope) = rope else {
        return Ok(RopeConfig { theta, rotary_dim, scaling: RopeScaling::Default });
    };
    let theta = self::theta(rope, "rope_theta")?.unwrap_or(theta);
    Ok(RopeConfig { theta, rotary_dim, scaling: scaling(rope, rotary_dim)? })
}

/// As in transformers, a non-empty `rope_scaling` takes the place of `rope_parameters`.
pub(super) fn parameters<'a>(fields: &Fields<'a>) -> Result<Option<Fields<'a>>> {
    match fields.object("rope_scaling")?.filter(|rope| !rope.is_empty()) {
        Some(rope) => Ok(Some(rope)),
        None => fields.object("rope_parameters"),
    }
}

pub(super) fn theta(fields: &Fields, name: &str) -> Result<Option<f64>> {
    fields.real(name, |x| x > 1.0 && x < 1e30, "a finite number above 1")
}

/// The type of scaling that `rope` names.
pub(super) fn kind<'a>(rope: &Fields<'a>) -> Result<Option<&'a str>> {
    match rope.text("rope_type")? {
        Some(name) => Ok(Some(name)),
        None => rope.text("type"),
    }
}

/// Dimensions of a head that rotate, by the factor in `rope`, or else beside it.
fn rotary_dim(fields: &Fields, rope: &Fields, head_dim: usize) -> Result<usize> {
    let (inside, beside) = (partial_factor(rope)?, partial_factor(fields)?);
    let rotary_dim = (head_dim as f64 * inside.or(beside).unwrap_or(1.0)) as usize;
    if rotary_dim == 0 || rotary_dim % 2 == 1 {
        let place = if inside.is_some() { rope } else { fields };
        let why = format!("rotates {rotary_dim} dimensions of {head_dim}, which are no pairs");
        return Err(place.invalid("partial_rotary_factor", why));
    }
    Ok(rotary_dim)
}

fn partial_factor(fields: &Fields) -> Result<Option<f64>> {
    fields.real("partial_rotary_factor", |x| x > 0.0 && x <= 1.0, "a number above 0, at most 1")
}

fn scaling(fields: &Fields, rope: &Fields, max_positions: usize) -> Result<RopeScaling> {
    let factor = || rope.needed_real("factor", is_factor, FACTOR);
    match kind(rope)? {
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

/// The parameters of a model with `max_positions` that was pretrained with `original` ones, at least 2.
pub(super) fn long(rope: &Fields, rotary_dim: usize, max_positions: usize, original: usize) -> Result<LongRope> {
    let stretches = |name: &str| rope.needed_reals(name, rotary_dim / 2, is_factor, FACTOR);
    let factor = rope.real("factor", is_factor, FACTOR)?.unwrap_or(max_positions as f64 / original as f64);
    let grown = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original as f64).ln()).sqrt() };
    Ok(LongRope {
        short: stretches("short_factor")?,
        long: stretches("long_factor")?,
        original_max_positions: original,
        attention_factor: rope
            .real("attention_factor", |x| (0.0..=1e6).contains(&x), "a number in 0..=1e6")?
            .unwrap_or(grown),
    })
}

/// Yarn's growth of attention magnitude with the stretch.
fn magnitude(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

fn is_factor(x: f64) -> bool {
    (1e-6..=1e6).contains(&x)
}
