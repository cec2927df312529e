//! CPU backend, first cut: every operation in its plainest form, one thread.

use std::str::FromStr;

use half::bf16;

use super::{Batch, Bindings, Buffer, Device, Kernel, Region};
use crate::engine::{BLOCK_TOKENS, Limits, PANEL, Packing, Plan, View};
use crate::error::{Error, Result};
use crate::types::{Activation, AttentionSpec, DType, Op, RopeSpec};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    Portable,
}
impl FromStr for Isa {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        if s == "portable" { Ok(Isa::Portable) } else { Err(Error::argument("isa", format!("`{s}` is unknown"))) }
    }
}
pub struct CpuConfig {
    pub threads: usize,
    pub isa: Option<Isa>,
}
pub struct CpuDevice;
impl CpuDevice {
    pub fn new(_config: CpuConfig) -> Result<Self> {
        Ok(CpuDevice)
    }
}
struct HostBuffer(Vec<u64>, Region);
impl Buffer for HostBuffer {
    fn region(&self) -> Region {
        self.1
    }
}
impl Device for CpuDevice {
    fn name(&self) -> String {
        "cpu".into()
    }
    fn allocate(&self, bytes: usize, _what: &str) -> Result<Box<dyn Buffer>> {
        let data = vec![0u64; bytes.div_ceil(8) + 8];
        let address = (data.as_ptr() as usize).next_multiple_of(64);
        Ok(Box::new(HostBuffer(data, Region { address, bytes })))
    }
    unsafe fn bind(&self, bytes: &[u8], _what: &str) -> Result<Box<dyn Buffer>> {
        Ok(Box::new(HostBuffer(vec![], Region { address: bytes.as_ptr() as usize, bytes: bytes.len() })))
    }
    unsafe fn read<'a>(&self, region: Region, count: usize, _staging: &'a mut Vec<f32>) -> Result<&'a [f32]> {
        Ok(unsafe { std::slice::from_raw_parts(region.address as *const f32, count) })
    }
    fn scratch_bytes(&self, _plan: &Plan, _limits: &Limits) -> usize {
        0
    }
    fn prepare(&self, plan: &Plan, step: usize, bindings: &Bindings, _l: &Limits) -> Result<Box<dyn Kernel>> {
        Ok(Box::new(Plain { plan: plan.clone(), step, bindings: bindings.clone() }))
    }
}
struct Plain {
    plan: Plan,
    step: usize,
    bindings: Bindings,
}
impl Plain {
    fn row(&self, view: View, row: usize) -> *mut f32 {
        let value = &self.plan.values[view.value];
        let base = self.bindings.slots[value.slot].address as *mut f32;
        unsafe { base.add(row * value.columns + view.start) }
    }
    fn get(&self, view: View, row: usize) -> Vec<f32> {
        unsafe { std::slice::from_raw_parts(self.row(view, row), view.columns).to_vec() }
    }
    fn put(&self, view: View, row: usize, x: &[f32]) {
        unsafe { std::slice::from_raw_parts_mut(self.row(view, row), view.columns).copy_from_slice(x) }
    }
    fn weight(&self, i: usize, n: usize, k: usize) -> f32 {
        let id = self.plan.steps[self.step].weights[i];
        let spec = &self.plan.weights[id];
        let base = self.bindings.weights[id].address;
        let columns = spec.shape.get(1).copied().unwrap_or(1);
        let (n, k) = if spec.shape.len() == 1 { (k, 0) } else { (n, k) };
        let index = match (spec.packing, spec.dtype) {
            (Packing::RowMajor, _) => n * columns + k,
            (_, DType::F32) => {
                (n / PANEL) * columns.next_multiple_of(2) * PANEL + k * PANEL + n % PANEL
            }
            _ => (n / PANEL) * columns.next_multiple_of(2) * PANEL + (k / 2) * PANEL * 2 + (n % PANEL) * 2 + k % 2,
        };
        unsafe {
            match spec.dtype {
                DType::F32 => *(base as *const f32).add(index),
                _ => (*(base as *const bf16).add(index)).to_f32(),
            }
        }
    }
    fn vector(&self, i: usize, n: usize) -> Vec<f32> {
        (0..n).map(|k| self.weight(i, 0, k)).collect()
    }
    fn linear(&self, w: usize, x: &[f32], n: usize) -> f32 {
        x.iter().enumerate().fold(0.0, |sum, (k, x)| sum + x * self.weight(w, n, k))
    }
    fn cache(&self, a: &AttentionSpec, block: u32, head: usize, token: usize, d: usize, v: bool) -> *mut u8 {
        let group = &self.plan.kv_groups[a.group];
        let size = group.dtype.bytes();
        let plane = a.kv_heads * a.head_dim * BLOCK_TOKENS;
        let at = ((a.layer * self.bindings.kv_blocks + block as usize) * 2 + usize::from(v)) * plane
            + (head * BLOCK_TOKENS + token) * a.head_dim
            + d;
        (self.bindings.kv[a.group].address + at * size) as *mut u8
    }
    fn kv_get(&self, a: &AttentionSpec, p: *mut u8) -> f32 {
        unsafe {
            match self.plan.kv_groups[a.group].dtype {
                DType::F32 => *p.cast::<f32>(),
                _ => (*p.cast::<bf16>()).to_f32(),
            }
        }
    }
    fn append(&self, batch: &Batch, a: &AttentionSpec, k: &[Vec<f32>], v: &[Vec<f32>]) {
        for (r, row) in batch.rows.iter().enumerate() {
            let table = batch.table(r, a.group, self.plan.kv_groups.len());
            for i in 0..row.len {
                let pos = row.context + i;
                for h in 0..a.kv_heads {
                    for d in 0..a.head_dim {
                        for (x, is_v) in [(k, false), (v, true)] {
                            let p = self.cache(a, table[pos / BLOCK_TOKENS], h, pos % BLOCK_TOKENS, d, is_v);
                            let x = x[row.start + i][h * a.head_dim + d];
                            unsafe {
                                match self.plan.kv_groups[a.group].dtype {
                                    DType::F32 => *p.cast::<f32>() = x,
                                    _ => *p.cast::<bf16>() = bf16::from_f32(x),
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    fn attend(&self, batch: &Batch, a: &AttentionSpec, q: &[Vec<f32>], out: View) {
        for (r, row) in batch.rows.iter().enumerate() {
            let table = batch.table(r, a.group, self.plan.kv_groups.len());
            for i in 0..row.len {
                let pos = row.context + i;
                let first = self.plan.kv_groups[a.group].window.map_or(0, |w| (pos + 1).saturating_sub(w));
                let mut y = vec![0.0f32; a.heads * a.head_dim];
                for h in 0..a.heads {
                    let g = h / (a.heads / a.kv_heads);
                    let at = |p: usize, d: usize, v| self.kv_get(a, self.cache(a, table[p / 16], g, p % 16, d, v));
                    let s: Vec<f32> = (first..=pos)
                        .map(|p| {
                            let dot: f32 =
                                (0..a.head_dim).map(|d| q[row.start + i][h * a.head_dim + d] * at(p, d, false)).sum();
                            dot * a.scale
                        })
                        .collect();
                    let m = s.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let e: Vec<f32> = s.iter().map(|s| (s - m).exp()).collect();
                    let z: f32 = e.iter().sum();
                    for d in 0..a.head_dim {
                        y[h * a.head_dim + d] = (first..=pos).map(|p| e[p - first] * at(p, d, true)).sum::<f32>() / z;
                    }
                }
                self.put(out, row.start + i, &y);
            }
        }
    }
}
fn act(a: Activation, x: f32) -> f32 {
    let d = f64::from(x);
    (match a {
        Activation::Silu => d / (1.0 + (-d).exp()),
        Activation::Relu => d.max(0.0),
        Activation::GeluTanh => 0.5 * d * (1.0 + (0.797_884_560_802_865_4 * (d + 0.044715 * d * d * d)).tanh()),
        Activation::Gelu => 0.5 * d * (1.0 + unsafe { erf(d / std::f64::consts::SQRT_2) }),
    }) as f32
}
unsafe extern "C" {
    fn erf(x: f64) -> f64;
}
fn rope(x: &mut [f32], angles: &[f32], r: &RopeSpec) {
    let half = r.rotary_dim / 2;
    for head in x.chunks_mut(r.head_dim) {
        for i in 0..half {
            let (c, s) = (angles[i], angles[half + i]);
            let (a, b) = (head[i], head[i + half]);
            head[i] = a * c - b * s;
            head[i + half] = b * c + a * s;
        }
    }
}
impl Kernel for Plain {
    unsafe fn launch(&mut self, batch: &Batch) -> Result<()> {
        let step = &self.plan.steps[self.step];
        let out = step.outputs.first().copied();
        let rows = match out.map(|v| self.plan.values[v.value].rows) {
            Some(crate::engine::Rows::LogitRows) => batch.logit_rows.len(),
            _ => batch.tokens.len(),
        };
        let all = |i: usize| -> Vec<Vec<f32>> { (0..rows).map(|t| self.get(step.inputs[i], t)).collect() };
        match &step.op {
            Op::CacheAppend(a) => self.append(batch, a, &all(0), &all(1)),
            Op::Attention(a) => self.attend(batch, a, &all(0), out.unwrap()),
            Op::FusedAttention { attention, rope: r } => {
                let (mut q, mut k) = (all(0), all(1));
                if let Some(r) = r {
                    for (t, angles) in all(3).iter().enumerate() {
                        rope(&mut q[t], angles, r);
                        rope(&mut k[t], angles, r);
                    }
                }
                self.append(batch, attention, &k, &all(2));
                self.attend(batch, attention, &q, out.unwrap());
            }
            op => {
                for t in 0..rows {
                    let x = |i: usize| self.get(step.inputs[i], t);
                    let out = out.unwrap();
                    let n = out.columns;
                    let norm = |x: &[f32], eps: f32, layer: bool| -> Vec<f32> {
                        let len = x.len() as f32;
                        let mean = if layer { x.iter().sum::<f32>() / len } else { 0.0 };
                        let var = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / len;
                        let g = self.vector(0, x.len());
                        let b = if layer { self.vector(1, x.len()) } else { vec![0.0; x.len()] };
                        (0..x.len()).map(|i| (x[i] - mean) / (var + eps).sqrt() * g[i] + b[i]).collect()
                    };
                    let y: Vec<f32> = match op {
                        Op::Embedding => (0..n).map(|k| self.weight(0, batch.tokens[t] as usize, k)).collect(),
                        Op::PositionEmbedding => {
                            (0..n).map(|k| self.weight(0, batch.positions[t] as usize, k)).collect()
                        }
                        Op::RopeAngles { scale } => {
                            let f = self.vector(0, n / 2);
                            let a = |i: usize| f64::from(batch.positions[t] as f32 * f[i]);
                            (0..n)
                                .map(|i| if i < n / 2 { a(i).cos() as f32 * scale } else { a(i - n / 2).sin() as f32 * scale })
                                .collect()
                        }
                        Op::Linear { bias, activation } => {
                            let x = x(0);
                            (0..n)
                                .map(|n| {
                                    let y = self.linear(0, &x, n) + if *bias { self.weight(1, 0, n) } else { 0.0 };
                                    activation.map_or(y, |a| act(a, y))
                                })
                                .collect()
                        }
                        Op::GatedLinear { bias, activation } => {
                            let x = x(0);
                            (0..n)
                                .map(|n| {
                                    let b = |i| if *bias { self.weight(i, 0, n) } else { 0.0 };
                                    act(*activation, self.linear(0, &x, n) + b(2)) * (self.linear(1, &x, n) + b(3))
                                })
                                .collect()
                        }
                        Op::RmsNorm { eps } => norm(&x(0), *eps, false),
                        Op::LayerNorm { eps } => norm(&x(0), *eps, true),
                        Op::AddRmsNorm { eps } | Op::AddLayerNorm { eps } => {
                            let sum: Vec<f32> = std::iter::zip(x(0), x(1)).map(|(a, b)| a + b).collect();
                            self.put(step.outputs[1], t, &norm(&sum, *eps, matches!(op, Op::AddLayerNorm { .. })));
                            sum
                        }
                        Op::Add => std::iter::zip(x(0), x(1)).map(|(a, b)| a + b).collect(),
                        Op::Mul => std::iter::zip(x(0), x(1)).map(|(a, b)| a * b).collect(),
                        Op::Activate { activation } => x(0).into_iter().map(|x| act(*activation, x)).collect(),
                        Op::Rope(r) => {
                            let mut y = x(0);
                            rope(&mut y, &x(1), r);
                            y
                        }
                        Op::GatherRows => self.get(step.inputs[0], batch.logit_rows[t] as usize),
                        other => return Err(Error::Unsupported { what: other.name().into(), why: "cpu".into() }),
                    };
                    self.put(out, t, &y);
                }
            }
        }
        Ok(())
    }
}
