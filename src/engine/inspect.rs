//! An engine described for people and tools, without loading its weights.

use std::path::Path;

use serde_json::{Value, json};

use super::format::{Header, SectionKind, VERSION};
use super::read::Front;
use super::{KvGroup, Plan, Section, Step, View, WeightSpec};
use crate::error::Result;
use crate::types::{AttentionSpec, DType, Op};

/// JSON of an engine file: format, model, sections, every step with its operation, shapes, what was fused into it, its
/// memory and precision, weights, workspace, KV groups, totals, and how it was built. Weights are not read.
///
/// # Errors
/// As [`super::Engine::open`], for everything but the weights.
pub fn inspect(path: &Path) -> Result<String> {
    let front = Front::open(path).map_err(|error| error.within(&path.display().to_string()))?;
    Ok(describe(&front.header, &front.plan, front.texts[SectionKind::Record.index()].as_deref()))
}

/// `record` is the section of that name: as it is, `null` where it is absent or no JSON.
pub(super) fn describe(header: &Header, plan: &Plan, record: Option<&[u8]>) -> String {
    let steps: Vec<Value> =
        plan.steps.iter().enumerate().map(|(index, step)| describe_step(plan, index, step)).collect();
    let description = json!({
        "format_version": VERSION,
        "target": plan.target,
        "precision": plan.precision,
        "invariant": plan.invariant,
        "file_bytes": header.file_bytes(),
        "model": plan.model,
        "sections": describe_sections(header),
        "steps": steps,
        "weights": plan.weights.iter().map(describe_weight).collect::<Vec<_>>(),
        "values": plan.values,
        "slots": plan.slots,
        "kv_groups": plan.kv_groups.iter().map(describe_group).collect::<Vec<_>>(),
        "outputs": plan.outputs.iter().map(|output| describe_output(plan, &output.name, output.value)).collect::<Vec<_>>(),
        "totals": describe_totals(plan),
        "build": record.and_then(|json| serde_json::from_slice::<Value>(json).ok()),
    });
    format!("{description:#}")
}

fn describe_sections(header: &Header) -> Vec<Value> {
    let describe = |section: &Section| {
        // Weights have a checksum each.
        let checksum = (section.kind != SectionKind::Weights).then(|| format!("{:016x}", section.checksum));
        json!({ "kind": section.kind.name(), "offset": section.offset, "bytes": section.bytes, "checksum": checksum })
    };
    header.sections.iter().map(describe).collect()
}

fn describe_step(plan: &Plan, index: usize, step: &Step) -> Value {
    let weight_bytes: u64 = step.weights.iter().map(|weight| plan.weights[*weight].bytes).sum();
    let output_bytes: usize = step.outputs.iter().map(|view| plan.values[view.value].row_bytes()).sum();
    json!({
        "index": index,
        "name": step.name,
        "op": step.op,
        "fused": step.fused,
        "inputs": step.inputs.iter().map(|view| describe_view(plan, view)).collect::<Vec<_>>(),
        "weights": step.weights.iter().map(|weight| describe_operand(plan, *weight)).collect::<Vec<_>>(),
        "outputs": step.outputs.iter().map(|view| describe_view(plan, view)).collect::<Vec<_>>(),
        "memory": { "weight_bytes": weight_bytes, "output_bytes_per_row": output_bytes },
        "precision": step_precision(plan, step),
    })
}

fn describe_operand(plan: &Plan, index: usize) -> Value {
    let weight = &plan.weights[index];
    json!({
        "index": index,
        "name": weight.name,
        "shape": weight.shape,
        "dtype": weight.dtype,
        "packing": weight.packing,
        "scales": weight.scale.map(|scale| scale.granularity),
        "bytes": weight.bytes,
    })
}

fn describe_weight(weight: &WeightSpec) -> Value {
    json!({
        "name": weight.name,
        "shape": weight.shape,
        "dtype": weight.dtype,
        "bytes": weight.bytes,
        "scales_index": weight.scale.map(|scale| scale.weight),
        "checksum": weight.checksum,
    })
}

/// The narrowest element type among the weights and the cache that the step reads; f32 without any.
fn step_precision(plan: &Plan, step: &Step) -> DType {
    let weights = step.weights.iter().map(|weight| plan.weights[*weight].dtype);
    let cache = attention_of(&step.op).map(|spec| plan.kv_groups[spec.group].dtype);
    weights.chain(cache).min_by_key(|dtype| dtype.bytes()).unwrap_or(DType::F32)
}

fn describe_view(plan: &Plan, view: &View) -> Value {
    let value = &plan.values[view.value];
    json!({ "value": value.name, "index": view.value, "rows": value.rows, "dtype": value.dtype, "start": view.start, "columns": view.columns })
}

fn describe_output(plan: &Plan, name: &str, index: usize) -> Value {
    let value = &plan.values[index];
    json!({ "name": name, "index": index, "rows": value.rows, "dtype": value.dtype, "columns": value.columns })
}

fn describe_group(group: &KvGroup) -> Value {
    json!({
        "layers": group.layers,
        "kv_heads": group.kv_heads,
        "head_dim": group.head_dim,
        "dtype": group.dtype,
        "window": group.window,
        "bytes_per_token": group.token_bytes(),
        "bytes_per_block": group.block_bytes(),
    })
}

fn describe_totals(plan: &Plan) -> Value {
    json!({
        "steps": plan.steps.len(),
        "weights": plan.weights.len(),
        "weight_bytes": plan.weights_bytes(),
        "workspace_bytes_per_token": plan.slots.iter().map(|slot| slot.bytes_per_token).sum::<usize>(),
        "workspace_bytes_per_logit_row": plan.slots.iter().map(|slot| slot.bytes_per_logit_row).sum::<usize>(),
        "kv_bytes_per_token": plan.kv_groups.iter().map(KvGroup::token_bytes).sum::<usize>(),
    })
}

fn attention_of(op: &Op) -> Option<&AttentionSpec> {
    match op {
        Op::CacheAppend(spec) | Op::Attention(spec) | Op::FusedAttention { attention: spec, .. } => Some(spec),
        _ => None,
    }
}
