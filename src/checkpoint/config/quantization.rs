//! Which quantised checkpoints are read: e4m3 weights with one scale per tensor, per row or per block of 128 x 128. The
//! tensors themselves say which of these it is; here the others are refused by name.

use super::SCALE_BLOCK;
use super::fields::Fields;
use crate::error::{Error, Result};

/// Refuses a `quantization_config` of another scheme.
///
/// # Errors
/// `Unsupported` naming the scheme; `InvalidConfig` naming a malformed field.
pub(super) fn check(config: &Fields) -> Result<()> {
    let Some(quantization) = config.object("quantization_config")? else {
        return Ok(());
    };
    match quantization.text("quant_method")?.unwrap_or("unnamed") {
        "fp8" => check_fp8(&quantization),
        "compressed-tensors" => check_compressed(&quantization),
        "fbgemm_fp8" => Ok(()),
        method => Err(unsupported(method)),
    }
}

fn check_fp8(fields: &Fields) -> Result<()> {
    match fields.text("fmt")? {
        None | Some("e4m3") => check_block(fields, "weight_block_size", "fp8"),
        Some(format) => Err(unsupported(&format!("fp8 {format}"))),
    }
}

fn check_compressed(fields: &Fields) -> Result<()> {
    match fields.text("format")? {
        Some("float-quantized") => {}
        format => return Err(unsupported(&format!("compressed-tensors {}", format.unwrap_or("without format")))),
    }
    if let Some(sparsity) = fields.object("sparsity_config")? {
        let format = sparsity.text("format")?.unwrap_or("dense");
        if format != "dense" {
            return Err(unsupported(&format!("compressed-tensors {format}")));
        }
    }
    let groups = fields.object("config_groups")?.ok_or_else(|| fields.invalid("config_groups", "is missing"))?;
    groups.names().try_for_each(|name| {
        let group = groups.object(name)?.ok_or_else(|| groups.invalid(name, "must be an object"))?;
        match group.object("weights")? {
            Some(weights) => check_weights(&weights),
            None => Ok(()),
        }
    })
}

fn check_weights(weights: &Fields) -> Result<()> {
    let bits = weights.count("num_bits", Some(8), 1..=64)?;
    let kind = weights.text("type")?.unwrap_or("int");
    let strategy = weights.text("strategy")?.unwrap_or("tensor");
    match (kind, bits, strategy) {
        ("float", 8, "tensor" | "channel") => Ok(()),
        ("float", 8, "block") => check_block(weights, "block_structure", "compressed-tensors"),
        _ => Err(unsupported(&format!("compressed-tensors {kind}{bits} per {strategy}"))),
    }
}

fn check_block(fields: &Fields, name: &str, method: &str) -> Result<()> {
    let side = Some(SCALE_BLOCK as u64);
    let sides = match fields.get(name) {
        None => return Ok(()),
        Some(value) => value.as_array().ok_or_else(|| fields.invalid(name, "must be a list"))?,
    };
    match sides.as_slice() {
        [rows, columns] if rows.as_u64() == side && columns.as_u64() == side => Ok(()),
        _ => Err(unsupported(&format!("{method} {name} other than [{SCALE_BLOCK}, {SCALE_BLOCK}]"))),
    }
}

fn unsupported(scheme: &str) -> Error {
    Error::Unsupported {
        what: format!("quantization_config `{scheme}`"),
        why: "plain weights, fp8, fbgemm_fp8 and float-quantized compressed-tensors of 8 bits are read".into(),
    }
}
