//! Drives a build through its phases; the output appears whole at its end or not at all.

use std::fmt;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::formats::Formats;
use super::kernels::{self, Kernels};
use super::lower::{Lowered, lower};
use super::pack;
use super::record::Record;
use crate::backend::cuda::Arch;
use crate::checkpoint::{Dummy, Folder, MAX_CONFIG_BYTES, ModelConfig, WeightSource};
use crate::engine::{EngineWriter, ModelInfo, Plan, Precision, SectionKind, Target};
use crate::error::{Error, Result};
use crate::models;
use crate::network::Graph;
use crate::passes::{self, PassSet};

/// What an engine is built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A Hugging Face folder.
    Checkpoint(PathBuf),
    /// A `config.json` with made-up weights; the engine has no tokenizer.
    Dummy { config: PathBuf, seed: u64 },
}

/// How to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildOptions {
    /// The device class that the engine is for.
    pub target: Target,
    /// `None` keeps what the checkpoint stores: fp8 for one that is quantised so, f32 for f32 on a CPU, f16 for f16 on
    /// CUDA, else bf16.
    pub precision: Option<Precision>,
    /// Of the KV cache: fp8, or what the engine has anyway (`None`): f32, f16, or bf16.
    pub kv_precision: Option<Precision>,
    /// Of the last linear of an fp8 or int8 engine: the engine's own, or bf16 (`None`).
    pub head_precision: Option<Precision>,
    /// On CUDA: a request's bits depend on nothing but itself.
    pub invariant: bool,
    /// Archs whose kernels go into a CUDA engine; none: that of the first device, or sm_90a without one.
    pub archs: Vec<Arch>,
    /// On CUDA: measure which kernels are the fastest where the first device is of one of these archs.
    pub tune: bool,
    /// Names of passes that shall not run.
    pub disabled_passes: Vec<String>,
    /// Most tokens of a request; `None` is what the model was made for, which is also the limit. A model with rotary
    /// frequencies for short and for long contexts has those that this many positions ask for.
    pub max_positions: Option<usize>,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self {
            target: Target::Cpu,
            precision: None,
            kv_precision: None,
            head_precision: None,
            invariant: false,
            archs: Vec::new(),
            tune: true,
            disabled_passes: Vec::new(),
            max_positions: None,
        }
    }
}

/// Part of a build, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Read,
    Network,
    Passes,
    Kernels,
    Weights,
    Write,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Read => "reading the checkpoint",
            Phase::Network => "building the network",
            Phase::Passes => "optimising",
            Phase::Kernels => "tuning and compiling kernels",
            Phase::Weights => "packing weights",
            Phase::Write => "writing the engine",
        })
    }
}

/// Hears of every phase at its beginning and end (fractions 0 and 1) and in between; `Break` cancels the build.
pub type Progress<'a> = &'a mut dyn FnMut(Phase, f32) -> ControlFlow<()>;

/// Builds an engine file at `output`, replacing a file that is there. Peak memory is a few weight chunks, whatever the
/// model's size.
///
/// # Errors
/// `InvalidArgument` naming an option; what reading the checkpoint, building the network or writing says; `Cancelled` when
/// `progress` said `Break`. Except for a directory that could not be synced, `output` is untouched after an error.
pub fn build(source: &Source, output: &Path, options: &BuildOptions, progress: Progress<'_>) -> Result<()> {
    let mut report = |phase, fraction| match progress(phase, fraction) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => {
            Err(Error::Cancelled { what: "build".into(), why: format!("the progress callback said so while {phase}") })
        }
    };
    let passes = pass_set(options)?;

    report(Phase::Read, 0.0)?;
    let input = Input::open(source)?.serving(options.max_positions)?;
    report(Phase::Read, 1.0)?;

    report(Phase::Network, 0.0)?;
    let mut graph = input.graph()?;
    report(Phase::Network, 1.0)?;

    report(Phase::Passes, 0.0)?;
    let nodes = graph.nodes.len();
    let passes = passes::run(&mut graph, passes)?;
    let lowered = lower_graph(&graph, &input, options)?;
    report(Phase::Passes, 1.0)?;

    let kernels = match lowered.plan.target {
        Target::Cpu => None,
        Target::Cuda => {
            report(Phase::Kernels, 0.0)?;
            let kernels = kernels::compile(&lowered.plan, &options.archs, options.tune, &mut |fraction| {
                report(Phase::Kernels, fraction)
            })?;
            report(Phase::Kernels, 1.0)?;
            Some(kernels)
        }
    };
    let (writer, lowered) = pack_weights(lowered, &input, output, &mut |fraction| report(Phase::Weights, fraction))?;

    report(Phase::Write, 0.0)?;
    lowered.plan.validate().map_err(|error| Error::internal("builder", error.to_string()))?;
    let mut made = Vec::new();
    let kernels = kernels.map(|Kernels { cubins, tactics, record }| {
        made.push((SectionKind::Kernels, cubins));
        made.extend(tactics.map(|tactics| (SectionKind::Tactics, tactics)));
        record
    });
    made.push((SectionKind::Record, Record::new(nodes, passes, kernels).to_json()?));
    let texts = input.files.iter().chain(&made).map(|(kind, content)| (*kind, content.as_slice()));
    writer.finish(&lowered.plan, &texts.collect::<Vec<_>>())?;
    // The file is there: a wish to cancel comes too late.
    let _ = report(Phase::Write, 1.0);
    Ok(())
}

/// The plan that [`build`] would make, without packing a weight: its checksums are empty.
///
/// # Errors
/// As [`build`].
pub fn plan(source: &Source, options: &BuildOptions) -> Result<Plan> {
    let input = Input::open(source)?.serving(options.max_positions)?;
    let mut graph = input.graph()?;
    passes::run(&mut graph, pass_set(options)?)?;
    Ok(lower_graph(&graph, &input, options)?.plan)
}

/// The graph of a source, before any pass.
///
/// # Errors
/// What reading the checkpoint or building the network says.
pub fn network(source: &Source) -> Result<Graph> {
    Input::open(source)?.graph()
}

fn pass_set(options: &BuildOptions) -> Result<PassSet> {
    options.disabled_passes.iter().try_fold(PassSet::all(), |set, name| set.with(name, false))
}

fn lower_graph(graph: &Graph, input: &Input, options: &BuildOptions) -> Result<Lowered> {
    let formats = Formats::choose(options, input.weights.dtype().or(input.config.dtype))?;
    let mut lowered = lower(graph, model_info(&input.config), formats, &*input.weights)?;
    lowered.plan.invariant = options.invariant;
    Ok(lowered)
}

fn model_info(config: &ModelConfig) -> ModelInfo {
    ModelInfo {
        architecture: config.architecture.clone(),
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        layers: config.layers,
        max_positions: config.served_positions,
        eos_token_ids: config.eos_token_ids.clone(),
        bos_token_id: config.bos_token_id,
    }
}

/// Packs every weight into a new writer; afterwards the plan has its checksums.
fn pack_weights(
    mut lowered: Lowered,
    input: &Input,
    output: &Path,
    report: &mut dyn FnMut(f32) -> Result<()>,
) -> Result<(EngineWriter<'static>, Lowered)> {
    let mut writer = EngineWriter::create(output)?;
    let total = lowered.plan.weights_bytes().max(1);
    let mut packed = 0;
    report(0.0)?;
    pack::pack_weights(&*input.weights, &lowered.recipes, &mut lowered.plan.weights, &mut writer, &mut |bytes| {
        packed += bytes;
        report((packed as f32 / total as f32).min(1.0))
    })?;
    report(1.0)?;
    Ok((writer, lowered))
}

/// An opened source.
struct Input {
    config: ModelConfig,
    weights: Box<dyn WeightSource>,
    files: Vec<(SectionKind, Vec<u8>)>,
}

impl Input {
    fn open(source: &Source) -> Result<Self> {
        match source {
            Source::Checkpoint(path) => Self::checkpoint(path),
            Source::Dummy { config, seed } => Self::dummy(config, *seed),
        }
    }

    /// The same with at most `positions` in use, or as many as the model was made for.
    fn serving(mut self, positions: Option<usize>) -> Result<Self> {
        let most = self.config.max_positions;
        let positions = positions.unwrap_or(most);
        if !(1..=most).contains(&positions) {
            return Err(Error::argument(
                "max_positions",
                format!("{positions} is not in 1..={most}, the model's own limit"),
            ));
        }
        self.config.served_positions = positions;
        Ok(self)
    }

    fn graph(&self) -> Result<Graph> {
        models::build(&self.config, &|name: &str| self.weights.shape(name))
    }

    fn checkpoint(path: &Path) -> Result<Self> {
        let mut folder = Folder::open(path)?;
        let config = ModelConfig::parse(&folder.config, folder.generation_config.as_deref())?;
        let files = [
            (SectionKind::Config, Some(std::mem::take(&mut folder.config))),
            (SectionKind::GenerationConfig, folder.generation_config.take()),
            (SectionKind::Tokenizer, folder.tokenizer.take()),
            (SectionKind::TokenizerConfig, folder.tokenizer_config.take()),
            (SectionKind::ChatTemplate, folder.chat_template.take()),
        ];
        let files = files.into_iter().filter_map(|(kind, content)| Some((kind, content?))).collect();
        Ok(Self { config, weights: Box::new(folder), files })
    }

    fn dummy(path: &Path, seed: u64) -> Result<Self> {
        let io = |error: std::io::Error| Error::io(path.display().to_string(), &error);
        let mut json = Vec::new();
        std::fs::File::open(path).map_err(io)?.take(MAX_CONFIG_BYTES as u64 + 1).read_to_end(&mut json).map_err(io)?;
        let config = ModelConfig::parse(&json, None)?;
        let weights = Box::new(Dummy::new(models::wanted_tensors(&config)?, seed));
        Ok(Self { config, weights, files: vec![(SectionKind::Config, json)] })
    }
}
