//! Field names and defaults of `Gemma3ForCausalLM`, the text model by itself.

use super::fields::Fields;
use super::gated::{self, Defaults};
use super::rope::{self, RopeConfig};
use super::{MAX_LAYERS, ModelConfig, gemma2};
use crate::error::{Error, Result};

const DEFAULTS: Defaults =
    Defaults { vocab_size: 262_208, max_positions: 131_072, ..gemma2::shared("Gemma3ForCausalLM") };
const GLOBAL_THETA: f64 = 1e6;
const LOCAL_THETA: f64 = 1e4;

pub(super) fn read(fields: &Fields) -> Result<ModelConfig> {
    let config = gated::read(fields, &DEFAULTS)?;
    let pattern = fields.count("sliding_window_pattern", Some(6), 1..=MAX_LAYERS)?;
    if fields.get("attn_logit_softcapping").is_some() {
        let why = "transformers leaves scores of this family as they are".into();
        return Err(Error::Unsupported { what: "attn_logit_softcapping".into(), why });
    }
    let [global, local] = ropes(fields, &config)?;
    Ok(ModelConfig {
        windows: gemma2::windows(fields, config.layers, pattern)?,
        logit_soft_cap: gated::soft_cap(fields, "final_logit_softcapping", None)?,
        rope: Some(global),
        local_rope: Some(local),
        ..gemma2::features(fields, config)?
    })
}

/// The ropes of layers that see everything and of those that slide: by layer type in transformers 5, else as
/// `rope_theta` with `rope_scaling` and as `rope_local_base_freq`.
fn ropes(fields: &Fields, config: &ModelConfig) -> Result<[RopeConfig; 2]> {
    let parameters = fields.object("rope_parameters")?;
    let of_type = |layer_type| parameters.as_ref().map_or(Ok(None), |types| types.object(layer_type));
    let scaled = fields.object("rope_scaling")?.filter(|rope| !rope.is_empty());
    let global = if scaled.is_some() { scaled } else { of_type("full_attention")? };
    let local = of_type("sliding_attention")?;
    let theta = |name, default| rope::theta(fields, name).map(|theta| theta.unwrap_or(default));
    Ok([
        rope::whole(fields, global.as_ref(), theta("rope_theta", GLOBAL_THETA)?, config)?,
        rope::whole(fields, local.as_ref(), theta("rope_local_base_freq", LOCAL_THETA)?, config)?,
    ])
}
