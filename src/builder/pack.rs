//! Packs weights: rows of recipes, a chunk at a time on several threads, into the layout and element type that the plan
//! says. While one batch of chunks is packed, the one before it is written.

use std::ops::Range;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use super::encode::{Encoded, encode};
use super::recipe::Evaluator;
use super::stored::kept_scales;
use crate::checkpoint::WeightSource;
use crate::engine::{EngineWriter, PANEL, Packing, Placement, WeightSpec};
use crate::error::{Error, Result};
use crate::network::Recipe;
use crate::types::DType;

/// Elements of a chunk, about: one thread holds them packed.
const CHUNK: usize = 2 << 20;
const MOST_THREADS: usize = 16;

/// Packs the weights into the writer and fills in their checksums; `recipes` has one for each weight, `None` for the scales
/// of the weight before it. `done` is called with the bytes of every chunk and may end the build with its error.
///
/// # Errors
/// What the source, the writer or `done` says; `Internal` when the bytes are not those that the plan announced.
pub(super) fn pack_weights(
    source: &dyn WeightSource,
    recipes: &[Option<Recipe>],
    specs: &mut [WeightSpec],
    writer: &mut EngineWriter<'_>,
    done: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let weights = open(source, recipes, specs)?;
    let chunks: Vec<Chunk<'_>> = weights.iter().flat_map(Weight::chunks).collect();
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(MOST_THREADS));
    let mut output = Output { writer, scales: Vec::new(), placements: Vec::with_capacity(specs.len()) };
    std::thread::scope(|scope| {
        let mut packed = Vec::new();
        for batch in chunks.chunks(threads) {
            let running = batch.iter().map(|chunk| chunk.start(scope)).collect();
            output.write_all(std::mem::replace(&mut packed, running), done)?;
        }
        output.write_all(packed, done)
    })?;
    let placements = output.placements;
    drop(chunks);
    for (spec, placement) in specs.iter_mut().zip(placements) {
        if (placement.offset, placement.bytes) != (spec.offset, spec.bytes) {
            return Err(Error::internal(format!("weight `{}`", spec.name), "it was not packed where the plan says"));
        }
        spec.checksum = placement.checksum;
    }
    Ok(())
}

/// A weight to be packed: how it is made, and its own scales where they go into the engine with its codes.
struct Weight<'a> {
    evaluator: Evaluator<'a>,
    spec: WeightSpec,
    kept: Option<Vec<f32>>,
}

fn open<'a>(
    source: &'a dyn WeightSource,
    recipes: &'a [Option<Recipe>],
    specs: &[WeightSpec],
) -> Result<Vec<Weight<'a>>> {
    let made = recipes.iter().zip(specs).filter_map(|(recipe, spec)| Some((recipe.as_ref()?, spec)));
    made.map(|(recipe, spec)| {
        let evaluator = Evaluator::new(source, recipe, &spec.name, &spec.shape)?;
        let quantized = spec.dtype == DType::E4M3;
        let kept = quantized.then(|| kept_scales(source, recipe)).flatten().map(|(_, scales)| scales);
        Ok(Weight { evaluator, spec: spec.clone(), kept })
    })
    .collect()
}

impl Weight<'_> {
    /// Row ranges of about [`CHUNK`] elements, whole panels where there are panels.
    fn chunks(&self) -> impl Iterator<Item = Chunk<'_>> {
        let (rows, columns) = (self.evaluator.rows(), self.evaluator.columns().max(1));
        let step = match self.spec.packing {
            Packing::RowMajor => (CHUNK / columns).max(1),
            Packing::Panels => (CHUNK / columns / PANEL).max(1) * PANEL,
        };
        (0..rows).step_by(step).map(move |start| Chunk { weight: self, rows: start..(start + step).min(rows) })
    }
}

/// Some rows of one weight.
#[derive(Clone)]
struct Chunk<'a> {
    weight: &'a Weight<'a>,
    rows: Range<usize>,
}

/// A chunk and the thread that packs it.
type Running<'scope, 'a> = (Chunk<'a>, Result<ScopedJoinHandle<'scope, Result<Encoded>>>);

impl<'a> Chunk<'a> {
    fn start<'scope>(&self, scope: &'scope Scope<'scope, '_>) -> Running<'scope, 'a>
    where
        'a: 'scope,
    {
        let Chunk { weight, rows } = self.clone();
        let thread = Builder::new()
            .name("trtllm-pack".into())
            .spawn_scoped(scope, move || encode(&weight.evaluator, rows, &weight.spec, weight.kept.is_some()))
            .map_err(|error| Error::ThreadFailed { what: "trtllm-pack".into(), why: error.to_string() });
        (self.clone(), thread)
    }

    fn is_last(&self) -> bool {
        self.rows.end == self.weight.evaluator.rows()
    }
}

/// Takes chunks in their order.
struct Output<'w, 's> {
    writer: &'w mut EngineWriter<'s>,
    /// Made for the weight that is being written.
    scales: Vec<f32>,
    placements: Vec<Placement>,
}

impl Output<'_, '_> {
    fn write_all(&mut self, packed: Vec<Running<'_, '_>>, done: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        for (chunk, thread) in packed {
            let panicked = |_| Error::Panic { what: "trtllm-pack".into(), why: "packing panicked".into() };
            let encoded = thread?.join().map_err(panicked)??;
            let bytes = encoded.bytes.len() as u64;
            self.write(&chunk, encoded)?;
            done(bytes)?;
        }
        Ok(())
    }

    fn write(&mut self, chunk: &Chunk<'_>, encoded: Encoded) -> Result<()> {
        let Weight { spec, kept, .. } = chunk.weight;
        if chunk.rows.start == 0 {
            self.writer.begin_weight(spec.packing)?;
            self.scales.clear();
        }
        self.writer.write(&encoded.bytes)?;
        self.scales.extend(encoded.scales);
        if chunk.is_last() {
            self.placements.push(self.writer.end_weight()?);
            if spec.scale.is_some() {
                let scales = kept.as_ref().unwrap_or(&self.scales);
                self.writer.begin_weight(Packing::RowMajor)?;
                self.writer.write(&scales.iter().flat_map(|scale| scale.to_le_bytes()).collect::<Vec<u8>>())?;
                self.placements.push(self.writer.end_weight()?);
            }
        }
        Ok(())
    }
}
