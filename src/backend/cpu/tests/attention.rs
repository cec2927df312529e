use super::*;
use crate::engine::BLOCK_TOKENS;
use crate::types::{AttentionSpec, RopeSpec};

#[derive(Clone, Copy, Debug)]
struct Shape {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    dtype: DType,
    window: Option<usize>,
    rope: bool,
    soft_cap: Option<f32>,
}

/// One request: its tokens' queries, keys, values and angles.
struct Request {
    length: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    angles: Vec<f32>,
    /// Blocks of its table, anywhere in the pool.
    table: Vec<u32>,
}

const LAYERS: usize = 2;
const BLOCKS: usize = 64;

impl Shape {
    fn spec(&self) -> AttentionSpec {
        let Shape { heads, kv_heads, head_dim, soft_cap, .. } = *self;
        AttentionSpec { group: 0, layer: 1, heads, kv_heads, head_dim, scale: 0.7 / (head_dim as f32).sqrt(), soft_cap }
    }

    fn rotation(&self) -> RopeSpec {
        RopeSpec { head_dim: self.head_dim, rotary_dim: self.head_dim }
    }

    fn group(&self) -> KvGroup {
        let Shape { kv_heads, head_dim, dtype, window, .. } = *self;
        KvGroup { layers: (0..LAYERS).collect(), kv_heads, head_dim, dtype, window }
    }

    /// Requests of these lengths, whose tables deal out shuffled blocks.
    fn requests(&self, lengths: &[usize], seed: u64) -> Vec<Request> {
        let mut numbers = Numbers::new(seed);
        let mut blocks: Vec<u32> = (0..BLOCKS as u32).collect();
        for i in (1..BLOCKS).rev() {
            blocks.swap(i, numbers.below(i + 1));
        }
        let request = |length: &usize| {
            let sizes = [self.heads, self.kv_heads, self.kv_heads].map(|heads| length * heads * self.head_dim);
            let [q, k, v] = sizes.map(|size| numbers.vec(size));
            let half = self.head_dim / 2;
            let angle = |i: usize| (i / self.head_dim) as f32 * 0.5f32.powi((i % half) as i32);
            let angles = (0..length * self.head_dim)
                .map(|i| if i % self.head_dim < half { angle(i).cos() } else { angle(i).sin() })
                .collect();
            Request {
                length: *length,
                q,
                k,
                v,
                angles,
                table: blocks.split_off(blocks.len() - length.div_ceil(BLOCK_TOKENS)),
            }
        };
        lengths.iter().map(request).collect()
    }

    /// What a token's row of `columns` per head gives after rotation, in f32 as kernels rotate: another way of rounding would
    /// now and then end at the other side of a narrow type's tie.
    fn rotated(&self, x: &[f32], request: &Request, heads: usize) -> Vec<f64> {
        let mut x = x.to_vec();
        if self.rope {
            let half = self.head_dim / 2;
            for (index, head) in x.chunks_mut(self.head_dim).enumerate() {
                let angles = &request.angles[index / heads * self.head_dim..];
                for i in 0..half {
                    let (cos, sin) = (angles[i], angles[half + i]);
                    (head[i], head[i + half]) =
                        (head[i] * cos - head[i + half] * sin, head[i + half] * cos + head[i] * sin);
                }
            }
        }
        x.into_iter().map(f64::from).collect()
    }

    fn expected(&self, request: &Request) -> Vec<f64> {
        let d = self.head_dim;
        let stored = |x: f64| if self.dtype == DType::F32 { x } else { f64::from(round(x as f32, self.dtype)) };
        let q = self.rotated(&request.q, request, self.heads);
        let k: Vec<f64> = self.rotated(&request.k, request, self.kv_heads).into_iter().map(stored).collect();
        let v: Vec<f64> = request.v.iter().map(|v| stored(f64::from(*v))).collect();
        let mut result = Vec::new();
        for (token, q) in q.chunks(self.heads * d).enumerate() {
            let keys = (token + 1).saturating_sub(self.window.unwrap_or(usize::MAX))..token + 1;
            for (head, q) in q.chunks(d).enumerate() {
                let at = |position: usize| (position * self.kv_heads + head / (self.heads / self.kv_heads)) * d;
                let dot = |p: usize| std::iter::zip(q, &k[at(p)..]).map(|(q, k)| q * k).sum::<f64>();
                let cap = |x: f64| self.soft_cap.map(f64::from).map_or(x, |cap| cap * (x / cap).tanh());
                let score = |p: usize| cap(dot(p) * f64::from(self.spec().scale));
                let weights: Vec<f64> = keys.clone().map(|p| score(p).exp()).collect();
                let total: f64 = weights.iter().sum();
                result.extend((0..d).map(|i| {
                    std::iter::zip(keys.clone(), &weights).map(|(p, w)| w * v[at(p) + i]).sum::<f64>() / total
                }));
            }
        }
        result
    }

    #[allow(clippy::needless_range_loop, reason = "a step cuts across all requests")]
    /// Runs the requests in steps; `cuts[r]` are the tokens of request `r` in each step (0 leaves it out).
    fn run(&self, device: &CpuDevice, requests: &[Request], cuts: &[Vec<usize>], fused: bool) -> Vec<Vec<f32>> {
        let mut results: Vec<Vec<f32>> = requests.iter().map(|_| Vec::new()).collect();
        let mut done = vec![0; requests.len()];
        let mut pool = None;
        let steps = cuts[0].len();
        for step in 0..steps {
            let mut batch = Batch { table_starts: vec![0], ..Batch::default() };
            let mut inputs: [Vec<f32>; 4] = Default::default();
            let part =
                |x: &[f32], width: usize, from: usize, count: usize| x[from * width..(from + count) * width].to_vec();
            for (index, request) in requests.iter().enumerate().filter(|(index, _)| cuts[*index][step] > 0) {
                let (context, len) = (done[index], cuts[index][step]);
                batch.rows.push(BatchRow { start: batch.tokens.len(), len, context });
                batch.tokens.extend(vec![0; len]);
                batch.positions.extend((context..context + len).map(|p| p as u32));
                let left = (context + 1).saturating_sub(self.window.unwrap_or(usize::MAX)) / BLOCK_TOKENS;
                batch
                    .tables
                    .extend(request.table.iter().enumerate().map(|(at, id)| if at < left { u32::MAX } else { *id }));
                batch.table_starts.push(batch.tables.len());
                let d = self.head_dim;
                inputs[0].extend(part(&request.q, self.heads * d, context, len));
                inputs[1].extend(part(&request.k, self.kv_heads * d, context, len));
                inputs[2].extend(part(&request.v, self.kv_heads * d, context, len));
                inputs[3].extend(part(&request.angles, d, context, len));
            }
            let out = self.step(device, &batch, inputs, &mut pool, fused);
            let mut rows = batch.rows.iter();
            for (index, done) in done.iter_mut().enumerate().filter(|(index, _)| cuts[*index][step] > 0) {
                let row = rows.next().unwrap();
                results[index].extend(part(&out, self.heads * self.head_dim, row.start, row.len));
                *done += row.len;
            }
        }
        results
    }

    fn step(
        &self,
        device: &CpuDevice,
        batch: &Batch,
        [q, k, v, angles]: [Vec<f32>; 4],
        pool: &mut Option<Vec<u32>>,
        fused: bool,
    ) -> Vec<f32> {
        let (wide, narrow) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut run = |case: Case| {
            let mut case = case.kv(self.group(), BLOCKS);
            if let Some(pool) = pool.take() {
                case.pools[0] = pool;
            }
            case.run(device, batch).unwrap();
            *pool = Some(std::mem::take(&mut case.pools[0]));
            case
        };
        let tokens = batch.tokens.len();
        if fused {
            let op = Op::FusedAttention { attention: self.spec(), rope: self.rope.then(|| self.rotation()) };
            let mut case = Case::new(op).input(wide, &q).input(narrow, &k).input(narrow, &v);
            if self.rope {
                case = case.input(self.head_dim, &angles);
            }
            return run(case.output(Rows::Tokens, tokens, wide)).result(0).to_vec();
        }
        let rotated = |x: Vec<f32>, width: usize| {
            let case = Case::new(Op::Rope(self.rotation())).input(width, &x).input(self.head_dim, &angles);
            let mut case = case.output(Rows::Tokens, tokens, width);
            case.run(device, batch).unwrap();
            case.result(0).to_vec()
        };
        let (q, k) = if self.rope { (rotated(q, wide), rotated(k, narrow)) } else { (q, k) };
        run(Case::new(Op::CacheAppend(self.spec())).input(narrow, &k).input(narrow, &v));
        run(Case::new(Op::Attention(self.spec())).input(wide, &q).output(Rows::Tokens, tokens, wide)).result(0).to_vec()
    }

    fn whole(requests: &[Request]) -> Vec<Vec<usize>> {
        requests.iter().map(|request| vec![request.length]).collect()
    }
}

fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for dtype in [DType::F32, DType::BF16, DType::F16, DType::E4M3] {
        for (heads, kv_heads, head_dim) in [(3, 3, 16), (4, 2, 64), (8, 2, 32), (8, 1, 24), (9, 1, 8), (2, 2, 256)] {
            for (window, rope, soft_cap) in [
                (None, true, None),
                (None, false, Some(0.75)),
                (Some(5), true, Some(50.0)),
                (Some(70), false, None),
                (Some(70), true, Some(2.0)),
            ] {
                shapes.push(Shape { heads, kv_heads, head_dim, dtype, window, rope, soft_cap });
            }
        }
    }
    shapes
}

#[test]
fn requests_side_by_side_agree_with_f64() {
    each_isa(|isa| {
        let device = device(isa, 2);
        for shape in shapes() {
            let requests = shape.requests(&[1, 37, 130, 16], 3);
            let results = shape.run(&device, &requests, &Shape::whole(&requests), true);
            for (request, result) in std::iter::zip(&requests, &results) {
                assert_close(result, &shape.expected(request), 3e-6, &format!("{isa} {shape:?}"));
            }
        }
    });
}

#[test]
fn fused_and_unfused_have_the_same_bits() {
    each_isa(|isa| {
        let device = device(isa, 2);
        for shape in shapes() {
            let requests = shape.requests(&[20, 33], 4);
            let cuts = Shape::whole(&requests);
            let (fused, plain) =
                (shape.run(&device, &requests, &cuts, true), shape.run(&device, &requests, &cuts, false));
            assert_same_bits(&fused.concat(), &plain.concat(), &format!("{isa} {shape:?}"));
        }
    });
}

#[test]
fn bits_do_not_depend_on_chunks_neighbours_or_threads() {
    each_isa(|isa| {
        let devices = [1, 2, 3].map(|threads| device(isa, threads));
        let mut numbers = Numbers::new(8);
        for shape in shapes() {
            let requests = shape.requests(&[141, 20, 77], 5);
            let alone: Vec<Vec<f32>> = requests
                .iter()
                .map(|request| {
                    shape.run(&devices[0], std::slice::from_ref(request), &[vec![request.length]], true).concat()
                })
                .collect();
            for (index, device) in devices.iter().enumerate() {
                let steps = 1 + numbers.below(12);
                let cuts: Vec<Vec<usize>> =
                    requests.iter().map(|request| random_cuts(&mut numbers, request.length, steps)).collect();
                let results = shape.run(device, &requests, &cuts, true);
                for (result, alone) in std::iter::zip(&results, &alone) {
                    let what = format!("{isa} {shape:?}, {} threads, {cuts:?}", index + 1);
                    assert_same_bits(result, alone, &what);
                }
            }
        }
    });
}

/// Cuts a length into at most `steps` parts, single tokens among them.
fn random_cuts(numbers: &mut Numbers, length: usize, steps: usize) -> Vec<usize> {
    let mut left = length;
    let mut cuts: Vec<usize> = (1..steps)
        .map(|_| {
            let most = if numbers.below(2) == 0 { 2 } else { left + 1 };
            let cut = numbers.below(most.min(left + 1));
            left -= cut;
            cut
        })
        .collect();
    cuts.push(left);
    cuts
}
