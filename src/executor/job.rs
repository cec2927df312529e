//! A request inside the executor: checked, in tokens, and then with all that it has said.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::executor::output::{Delta, Output};
use crate::executor::plan::PlannedRow;
use crate::executor::task::{Flying, Task, TaskId};
use crate::executor::{FinishReason, RequestId, RequestStats, Response};
use crate::kv::PrefixKey;
use crate::sampling::{Sampler, SamplingParams};
use crate::text::Tokenizer;
use crate::types::heap;

/// An accepted request.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: RequestId,
    pub(super) prompt: Vec<u32>,
    /// `max_tokens` is cut to what the sequence limit leaves.
    pub(super) params: Arc<SamplingParams>,
    pub(super) stream: bool,
    pub(super) key: PrefixKey,
    pub(super) context_logits: bool,
    pub(super) generation_logits: bool,
    pub(super) submitted: Instant,
    pub(super) deadline: Option<Instant>,
}

impl Job {
    /// The task of one of its sequences, with memory for all its tokens. Prompt logits must all be computed, so they
    /// exclude cached blocks.
    fn task(&self, sequence: u32) -> Result<Task> {
        let wants_context = self.context_logits && sequence == 0;
        let most = self.prompt.len() + self.params.max_tokens as usize;
        let mut tokens = heap::vector(most, "tokens")?;
        tokens.extend_from_slice(&self.prompt);
        Ok(Task {
            id: TaskId { request: self.id, sequence },
            tokens,
            key: self.key.clone(),
            reuse: !self.context_logits,
            logits_from: if wants_context { 0 } else { usize::MAX },
            most,
            flying: Flying::default(),
        })
    }
}

/// What all sequences of a model share.
pub(super) struct Voice {
    pub(super) eos: Arc<[u32]>,
    pub(super) tokenizer: Option<Tokenizer>,
}

/// A sequence that is being generated.
pub(super) struct Speaker {
    pub(super) sampler: Sampler,
    pub(super) output: Output,
}

impl Speaker {
    fn new(job: &Job, sequence: u32, voice: &Voice) -> Result<Self> {
        let params = job.params.clone();
        Ok(Self {
            sampler: Sampler::new(job.params.clone(), sequence, &job.prompt, &voice.eos)?,
            output: Output::new(params, voice.eos.clone(), voice.tokenizer.as_ref(), &job.prompt, job.stream)?,
        })
    }
}

/// A request in progress.
pub(super) struct Active {
    pub(super) job: Job,
    pub(super) stats: RequestStats,
    /// By sequence as far as they have begun; `None` once complete.
    speakers: Vec<Option<Speaker>>,
    unfinished: u32,
    scheduled: bool,
    /// Prompt positions whose logits were kept so far.
    context_kept: usize,
    context_logits: Vec<f32>,
}

impl Active {
    pub(super) fn new(job: Job) -> Self {
        let stats = RequestStats { prompt_tokens: job.prompt.len(), ..RequestStats::default() };
        Self {
            unfinished: job.params.n,
            job,
            stats,
            speakers: Vec::new(),
            scheduled: false,
            context_kept: 0,
            context_logits: Vec::new(),
        }
    }

    /// Lets the next of its sequences begin. All memory that it will need is taken here, but for what it says in pieces.
    ///
    /// # Errors
    /// `OutOfMemory`; what the tokenizer says of the prompt.
    pub(super) fn begin_sequence(&mut self, voice: &Voice) -> Result<Task> {
        let sequence = self.speakers.len() as u32;
        heap::reserve(&mut self.speakers, (self.job.params.n - sequence) as usize, "sequences")?;
        let (speaker, task) = (Speaker::new(&self.job, sequence, voice)?, self.job.task(sequence)?);
        self.speakers.push(Some(speaker));
        Ok(task)
    }

    /// Sequences that have begun, complete or not.
    pub(super) fn begun(&self) -> u32 {
        self.speakers.len() as u32
    }

    /// The sampler of a sequence that is not complete.
    pub(super) fn sampler(&self, sequence: u32) -> Option<&Sampler> {
        self.speakers.get(sequence as usize)?.as_ref().map(|speaker| &speaker.sampler)
    }

    /// Whether somebody wants the raw logits that a sequence's next token is sampled from, be it as the prompt's last.
    pub(super) fn wants_logits(&self, sequence: u32) -> bool {
        let context = self.job.context_logits && sequence == 0 && self.context_kept < self.job.prompt.len();
        context || self.job.generation_logits
    }

    pub(super) fn speaker(&mut self, sequence: u32) -> Result<&mut Speaker> {
        let speaker = self.speakers.get_mut(sequence as usize).and_then(Option::as_mut);
        speaker.ok_or_else(|| Error::internal("executor", "a complete sequence was scheduled"))
    }

    /// A row of this request is in the next step.
    pub(super) fn note_scheduled(&mut self, row: &PlannedRow, now: Instant) {
        if !self.scheduled {
            self.scheduled = true;
            self.stats.queued = now.saturating_duration_since(self.job.submitted);
            self.stats.cached_tokens = row.context;
        }
    }

    /// Keeps the prompt's logits among those of a row, each position once. Returns the first position whose logits are
    /// still to come.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn keep_context_logits(&mut self, row: &PlannedRow, logits: &[f32], vocab_size: usize) -> Result<usize> {
        let (first, end) = (row.context + row.len - row.logits, row.context + row.len);
        let kept = self.context_kept.max(first)..end.min(self.job.prompt.len());
        if !kept.is_empty() {
            let missing = (self.job.prompt.len() - kept.start) * vocab_size;
            heap::reserve(&mut self.context_logits, missing, "returned logits")?;
            self.context_logits
                .extend_from_slice(&logits[(kept.start - first) * vocab_size..(kept.end - first) * vocab_size]);
            self.context_kept = kept.end;
        }
        Ok(self.context_kept)
    }

    /// A token was sampled.
    pub(super) fn note_token(&mut self, now: Instant) {
        if self.stats.generated_tokens == 0 {
            self.stats.first_token = now.saturating_duration_since(self.job.submitted);
        }
        self.stats.generated_tokens += 1;
    }

    /// What a sequence said since its last response, and what it says next is collected in `blank`; with `finish` it is
    /// complete.
    pub(super) fn respond(
        &mut self,
        sequence: u32,
        finish: Option<FinishReason>,
        blank: Delta,
        now: Instant,
    ) -> Response {
        let speaker = self.speakers.get_mut(sequence as usize);
        let delta = speaker.and_then(Option::as_mut).map(|s| s.output.take(blank)).unwrap_or_default();
        if finish.is_some() {
            self.unfinished -= 1;
            self.speakers[sequence as usize] = None;
        }
        let last = self.unfinished == 0;
        Response {
            request: self.job.id,
            sequence,
            text: delta.text,
            tokens: delta.tokens,
            logprobs: delta.logprobs,
            context_logits: if sequence == 0 { std::mem::take(&mut self.context_logits) } else { Vec::new() },
            generation_logits: delta.logits,
            finish,
            error: None,
            last,
            stats: if last { self.final_stats(now) } else { RequestStats::default() },
        }
    }

    /// Ends every sequence that is not complete; the last of these responses is the request's last.
    pub(super) fn end(mut self, finish: FinishReason, error: Option<Error>, now: Instant, out: &mut Vec<Response>) {
        self.context_logits = Vec::new();
        let before = out.len();
        for sequence in 0..self.begun() {
            // What is held back is delivered; the request is over anyway if it has no text.
            if self.speaker(sequence).map(|s| s.output.close()).is_ok() {
                out.push(Response {
                    error: error.clone(),
                    ..self.respond(sequence, Some(finish), Delta::default(), now)
                });
            }
        }
        let stats = self.final_stats(now);
        match out[before..].last_mut() {
            Some(response) => (response.last, response.stats) = (true, stats),
            None => out.push(Response { stats, ..Response::ending(self.job.id, finish, error) }),
        }
    }

    /// Whether all sequences are complete.
    pub(super) fn is_complete(&self) -> bool {
        self.unfinished == 0
    }

    fn final_stats(&self, now: Instant) -> RequestStats {
        RequestStats { total: self.elapsed(now), ..self.stats }
    }

    fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.job.submitted)
    }
}
