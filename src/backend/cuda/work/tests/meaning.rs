//! What works compute, as text: whatever moves where, it is what the plan's steps say.

use super::super::{Attention, Elementwise, Linear, Operand, Quantised, Work, Works};
use crate::engine::{Plan, Rows, View};
use crate::types::{AttentionSpec, DType, Op};

fn linear(weights: &[usize], biases: &[usize], activation: impl std::fmt::Debug, x: &str) -> String {
    format!("linear{weights:?}{biases:?}{activation:?}({x})")
}

fn norm(layer: bool, weights: [Option<usize>; 2], eps: f32, x: &str) -> String {
    format!("norm{layer}{weights:?}{eps}({x})")
}

/// In one order, as `x + y` is `y + x`.
fn sum(x: &str, y: &str) -> String {
    if x <= y { format!("({x} + {y})") } else { format!("({y} + {x})") }
}

fn attention(spec: AttentionSpec, rope: impl std::fmt::Debug, inputs: &[String]) -> String {
    format!("attention{spec:?}{rope:?}({})", inputs.join(", "))
}

fn columns(of: &str, start: usize, columns: usize, width: usize) -> String {
    if columns == width { of.to_string() } else { format!("{of}[{start}..{}]", start + columns) }
}

/// The logits of a plan.
pub(super) fn of_plan(plan: &Plan) -> String {
    let mut values = vec![String::new(); plan.values.len()];
    let mut cache = String::new();
    for step in &plan.steps {
        let read =
            |view: &View| columns(&values[view.value], view.start, view.columns, plan.values[view.value].columns);
        let x: Vec<String> = step.inputs.iter().map(read).collect();
        let w = &step.weights;
        let weights = [w.first().copied(), w.get(1).copied()];
        let made = match &step.op {
            Op::Linear { activation, .. } => vec![linear(&w[..1], &w[1..], activation, &x[0])],
            Op::GatedLinear { activation, .. } => vec![linear(&w[..2], &w[2..], Some(activation), &x[0])],
            Op::RmsNorm { eps } => vec![norm(false, weights, *eps, &x[0])],
            Op::LayerNorm { eps } => vec![norm(true, weights, *eps, &x[0])],
            Op::AddRmsNorm { eps } => vec![sum(&x[0], &x[1]), norm(false, weights, *eps, &sum(&x[0], &x[1]))],
            Op::AddLayerNorm { eps } => vec![sum(&x[0], &x[1]), norm(true, weights, *eps, &sum(&x[0], &x[1]))],
            Op::Add => vec![sum(&x[0], &x[1])],
            Op::Mul => vec![format!("({} * {})", x[0], x[1])],
            Op::Activate { activation } => vec![format!("{activation:?}({})", x[0])],
            Op::CacheAppend(spec) => {
                cache = format!("cache{spec:?}({}, {})", x[0], x[1]);
                vec![]
            }
            Op::Attention(spec) => vec![attention(*spec, (), &[x[0].clone(), cache.clone()])],
            Op::FusedAttention { attention: spec, rope } => vec![attention(*spec, rope, &x)],
            Op::Embedding { scale } => vec![format!("embedding{w:?}false{scale}")],
            Op::PositionEmbedding => vec![format!("embedding{w:?}true1")],
            Op::RopeAngles { scale } => vec![format!("angles{w:?}{scale}")],
            Op::Rope(spec) => vec![format!("rope{spec:?}({}, {})", x[0], x[1])],
            Op::GatherRows => vec![format!("gather({})", x[0])],
            Op::SoftCap { cap } => vec![format!("cap{cap}({})", x[0])],
            Op::Slice { .. } => unreachable!("a plan has views"),
        };
        std::iter::zip(&step.outputs, made).for_each(|(view, made)| values[view.value] = made);
    }
    let logits = plan.outputs.iter().find(|output| output.name == "logits").expect("every plan has logits");
    values[logits.value].clone()
}

/// Buffers with what was written to them.
struct Machine<'w> {
    works: &'w Works,
    buffers: Vec<Option<String>>,
    cache: String,
}

/// The logits of works, and of every other buffer what it holds in the end.
///
/// # Panics
/// When a work reads what nobody wrote, operands do not fit their buffers, or codes and scales do not belong together.
pub(super) fn of_works(plan: &Plan, works: &Works) -> (String, Vec<Option<String>>) {
    let mut machine = Machine { works, buffers: vec![None; works.buffers.len()], cache: String::new() };
    works.works.iter().for_each(|work| machine.run(plan, work));
    (machine.read(&works.logits), machine.buffers)
}

impl Machine<'_> {
    fn fits(&self, operand: &Operand) {
        let buffer = &self.works.buffers[operand.buffer];
        assert_eq!((operand.rows, operand.dtype), (buffer.rows, buffer.dtype), "{operand:?}");
        assert_eq!(operand.stride, buffer.columns, "{operand:?}");
        assert!(operand.start + operand.columns <= buffer.columns, "{operand:?}");
    }

    fn read(&self, operand: &Operand) -> String {
        self.fits(operand);
        let content = self.buffers[operand.buffer].as_ref();
        let content = content.unwrap_or_else(|| panic!("{operand:?} is read before it is written"));
        columns(content, operand.start, operand.columns, operand.stride)
    }

    fn write(&mut self, operand: &Operand, content: String) {
        self.fits(operand);
        assert_eq!((operand.start, operand.columns), (0, operand.stride), "{operand:?}");
        let before = self.buffers[operand.buffer].replace(content);
        assert_eq!(before, None, "{operand:?} is written twice");
    }

    fn write_quantised(&mut self, form: &Quantised, content: &str) {
        let scales = if form.by_block { form.codes.columns.div_ceil(128) } else { 1 };
        assert_eq!((form.codes.dtype, form.scale.dtype), (DType::E4M3, DType::F32));
        assert_eq!((form.scale.columns, form.scale.rows), (scales, form.codes.rows));
        self.write(&form.codes, format!("e4m3 {}: {content}", form.by_block));
        self.write(&form.scale, format!("scale {}: {content}", form.by_block));
    }

    /// The operand of a linear layer, and its norm.
    fn multiplied(&self, plan: &Plan, layer: &Linear) -> String {
        let x = self.read(&layer.x);
        let weight = &plan.weights[layer.weights[0]];
        assert_eq!(weight.shape, [layer.out.columns, layer.x.columns]);
        assert!(
            layer.norm.is_none_or(|norm| plan.weights[norm.gain].shape == [layer.x.columns]),
            "a prologue norms rows"
        );
        let Some(scale) = &layer.x_scale else {
            assert_ne!(layer.x.dtype, DType::E4M3, "codes need scales");
            assert_eq!(layer.x.dtype == DType::F32, layer.norm.is_some(), "a norm alone reads f32");
            return layer.norm.map_or(x.clone(), |prologue| norm(false, [Some(prologue.gain), None], prologue.eps, &x));
        };
        assert_eq!(layer.norm, None, "nobody norms codes");
        let by_block = weight.scale.expect("codes meet codes").granularity == crate::engine::Granularity::Block;
        let content = x.strip_prefix(&format!("e4m3 {by_block}: ")).expect("codes scaled as the weights are");
        assert_eq!(self.read(scale), format!("scale {by_block}: {content}"));
        content.to_string()
    }

    fn run(&mut self, plan: &Plan, work: &Work) {
        match work {
            Work::Embedding { table, by_position, scale, out } => {
                self.write(out, format!("embedding{:?}{by_position}{scale}", [table]))
            }
            Work::Angles { frequencies, scale, out } => self.write(out, format!("angles{:?}{scale}", [frequencies])),
            Work::Linear(layer) => {
                let y = linear(&layer.weights, &layer.biases, layer.activation, &self.multiplied(plan, layer));
                let y = layer.residual.map_or(y.clone(), |residual| sum(&self.read(&residual), &y));
                self.write(&layer.out, y);
            }
            Work::Norm(work) => {
                let mut x = self.read(&work.x);
                if let Some((y, into)) = &work.add {
                    x = sum(&x, &self.read(y));
                    self.write(into, x.clone());
                }
                assert_eq!(work.groups * plan.weights[work.gain].shape[0], work.x.columns);
                let y = norm(work.layer, [Some(work.gain), work.bias], work.eps, &x);
                assert!(work.out.is_some() || work.quantised.is_some(), "a norm writes something");
                work.quantised.iter().for_each(|form| self.write_quantised(form, &y));
                work.out.iter().for_each(|out| self.write(out, y.clone()));
            }
            Work::Elementwise { function, x, y, out } => {
                let (x, y) = (self.read(x), y.map(|y| self.read(&y)).unwrap_or_default());
                let made = match function {
                    Elementwise::Add => sum(&x, &y),
                    Elementwise::Mul => format!("({x} * {y})"),
                    Elementwise::Activate(activation) => format!("{activation:?}({x})"),
                    Elementwise::SoftCap(cap) => format!("cap{cap}({x})"),
                    Elementwise::Convert => x,
                };
                self.write(out, made);
            }
            Work::Rope { spec, x, angles, out } => {
                let made = format!("rope{spec:?}({}, {})", self.read(x), self.read(angles));
                self.write(out, made);
            }
            Work::Append { spec, k, v } => self.cache = format!("cache{spec:?}({}, {})", self.read(k), self.read(v)),
            Work::Attention(Attention { spec, rope, q, kv, angles, out }) => {
                let made = match kv {
                    Some((k, v)) => {
                        let inputs: Vec<_> = [q, k, v].into_iter().chain(angles).map(|of| self.read(of)).collect();
                        attention(*spec, rope, &inputs)
                    }
                    None => attention(*spec, (), &[self.read(q), self.cache.clone()]),
                };
                self.write(out, made);
            }
            Work::Gather { x, out } => {
                assert_eq!(out.rows, Rows::LogitRows);
                let made = format!("gather({})", self.read(x));
                self.write(out, made);
            }
            Work::Quantise { x, out } => {
                assert_eq!(x.dtype, DType::BF16);
                let content = self.read(x);
                self.write_quantised(out, &content);
            }
        }
    }
}
