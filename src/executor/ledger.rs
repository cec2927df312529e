//! All unfinished requests: what happens to them between steps, and what a row of logits does to one.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::executor::job::{Active, Job, Voice};
use crate::executor::output::Delta;
use crate::executor::plan::{PlannedRow, StepPlan};
use crate::executor::scheduler::Scheduler;
use crate::executor::stats::Totals;
use crate::executor::step::RowOutput;
use crate::executor::task::TaskId;
use crate::executor::{FinishReason, RequestId, Response};
use crate::sampling::{Sampler, Scratch};
use crate::types::heap;

/// Requests, the scheduler that holds their sequences, and totals over those that ended.
pub(super) struct Ledger {
    pub(super) scheduler: Scheduler,
    pub(super) totals: Totals,
    requests: BTreeMap<RequestId, Active>,
    voice: Voice,
    vocab_size: usize,
    scratch: Scratch,
    /// Memory for what sequences say next.
    blanks: Vec<Delta>,
}

impl Ledger {
    /// Keeps the memory of up to `blanks` responses.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn new(scheduler: Scheduler, voice: Voice, vocab_size: usize, blanks: usize) -> Result<Self> {
        Ok(Self {
            scheduler,
            totals: Totals::default(),
            requests: BTreeMap::new(),
            voice,
            vocab_size,
            scratch: Scratch::new(vocab_size)?,
            blanks: heap::vector(blanks, "responses")?,
        })
    }

    /// Responses whose memory is kept.
    pub(super) fn blanks(&self) -> usize {
        self.blanks.capacity()
    }

    /// Takes memory back that clients have no more use for.
    pub(super) fn recycle(&mut self, blanks: &mut Vec<Delta>) {
        let room = self.blanks.capacity() - self.blanks.len();
        self.blanks.extend(blanks.drain(..).take(room));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Takes a request in; its first sequence waits for its turn.
    pub(super) fn add(&mut self, job: Job, now: Instant, out: &mut Vec<Response>) {
        let (id, mut active) = (job.id, Active::new(job));
        let begun = active.begin_sequence(&self.voice);
        self.requests.insert(id, active);
        match begun {
            Ok(task) => self.scheduler.add(task),
            Err(error) => self.fail(id, error, now, out),
        }
    }

    /// Ends a request early; nothing happens if it has ended already.
    pub(super) fn end(&mut self, id: RequestId, finish: FinishReason, now: Instant, out: &mut Vec<Response>) {
        self.close(id, finish, None, now, out);
    }

    /// Ends a request with an error; what it computed is not reused.
    pub(super) fn fail(&mut self, id: RequestId, error: Error, now: Instant, out: &mut Vec<Response>) {
        let error = error.within(&format!("request {}", id.0));
        self.close(id, FinishReason::Error, Some(error), now, out);
    }

    /// Ends every request.
    pub(super) fn end_all(&mut self, finish: FinishReason, now: Instant, out: &mut Vec<Response>) {
        while let Some(id) = self.requests.keys().next().copied() {
            self.end(id, finish, now, out);
        }
    }

    /// Ends every request with an error.
    pub(super) fn fail_all(&mut self, error: &Error, now: Instant, out: &mut Vec<Response>) {
        while let Some(id) = self.requests.keys().next().copied() {
            self.fail(id, error.clone(), now, out);
        }
    }

    /// Ends the requests whose time is over.
    pub(super) fn expire(&mut self, now: Instant, out: &mut Vec<Response>) {
        let over = |a: &Active| a.job.deadline.is_some_and(|deadline| deadline <= now);
        while let Some(id) = self.requests.values().find(|a| over(a)).map(|a| a.job.id) {
            self.end(id, FinishReason::TimeLimit, now, out);
        }
    }

    /// Records who takes part in the next step and who had to give way.
    pub(super) fn note_plan(&mut self, plan: &StepPlan, now: Instant) {
        for row in &plan.rows {
            if let Some(active) = self.requests.get_mut(&row.task.request) {
                active.note_scheduled(row, now);
            }
        }
        for task in &plan.preempted {
            self.totals.preemptions += 1;
            if let Some(active) = self.requests.get_mut(&task.request) {
                active.stats.preemptions += 1;
            }
        }
    }

    /// The sampler of a row's sequence, and whether the raw logits of its last token are wanted.
    pub(super) fn sampler(&self, row: &PlannedRow) -> Option<(&Sampler, bool)> {
        let active = self.requests.get(&row.task.request)?;
        Some((active.sampler(row.task.sequence)?, active.wants_logits(row.task.sequence)))
    }

    /// Takes what a step gave for one of its rows, which is nothing to a sequence that has ended while the row was in
    /// flight. A request that cannot go on fails alone.
    pub(super) fn advance(&mut self, row: &PlannedRow, output: RowOutput, now: Instant, out: &mut Vec<Response>) {
        if !self.scheduler.land(row) {
            return;
        }
        let result = if row.samples { self.say(row, output, now, out) } else { self.fill(row, output.logits) };
        if let Err(error) = result {
            self.fail(row.task.request, error, now, out);
        }
    }

    /// A row's step has failed.
    pub(super) fn fail_row(&mut self, row: &PlannedRow, error: &Error, now: Instant, out: &mut Vec<Response>) {
        if self.scheduler.land(row) {
            self.fail(row.task.request, error.clone(), now, out);
        }
    }

    /// A part of a prompt was computed.
    fn fill(&mut self, row: &PlannedRow, logits: &[f32]) -> Result<()> {
        if let Some(active) = self.requests.get_mut(&row.task.request) {
            keep_context_logits(active, &mut self.scheduler, row, logits, self.vocab_size)?;
        }
        self.scheduler.commit(row)
    }

    /// A sequence says its next token. The row is committed only after its logits were found sound.
    fn say(&mut self, row: &PlannedRow, output: RowOutput, now: Instant, out: &mut Vec<Response>) -> Result<()> {
        let Some(active) = self.requests.get_mut(&row.task.request) else { return Ok(()) };
        keep_context_logits(active, &mut self.scheduler, row, output.logits, self.vocab_size)?;
        let keeps_logits = active.job.generation_logits;
        let speaker = active.speaker(row.task.sequence)?;
        let logits = &output.logits[output.logits.len().saturating_sub(self.vocab_size)..];
        let sampled = match output.token {
            Some(token) => speaker.sampler.accept(token, logits, &mut self.scratch)?,
            None => speaker.sampler.sample(logits, &mut self.scratch)?,
        };
        self.scheduler.commit(row)?;
        if keeps_logits {
            speaker.output.push_logits(logits)?;
        }
        let token = sampled.token;
        let finish = speaker.output.push(sampled)?;
        active.note_token(now);
        self.totals.generated_tokens += 1;
        match finish {
            Some(_) => drop(self.scheduler.remove(row.task, false)),
            None => self.scheduler.push(row.task, token),
        }
        // Once a prompt is in the cache, the request's other sequences begin and find it there.
        while active.begun() < active.job.params.n {
            self.scheduler.add(active.begin_sequence(&self.voice)?);
        }
        if active.job.stream || finish.is_some() {
            let blank =
                if finish.is_none() { self.blanks.pop().unwrap_or_else(Delta::small) } else { Delta::default() };
            out.push(active.respond(row.task.sequence, finish, blank, now));
        }
        if active.is_complete() {
            self.requests.remove(&row.task.request);
            self.totals.completed += 1;
        }
        Ok(())
    }

    fn close(
        &mut self,
        id: RequestId,
        finish: FinishReason,
        error: Option<Error>,
        now: Instant,
        out: &mut Vec<Response>,
    ) {
        let Some(active) = self.requests.remove(&id) else { return };
        for sequence in 0..active.begun() {
            self.scheduler.remove(TaskId { request: id, sequence }, error.is_some());
        }
        self.totals.count(finish);
        active.end(finish, error, now, out);
    }
}

fn keep_context_logits(
    active: &mut Active,
    scheduler: &mut Scheduler,
    row: &PlannedRow,
    logits: &[f32],
    vocab_size: usize,
) -> Result<()> {
    if !active.job.context_logits || row.task.sequence != 0 {
        return Ok(());
    }
    let next = active.keep_context_logits(row, logits, vocab_size)?;
    let from = if next < active.job.prompt.len() { next } else { usize::MAX };
    scheduler.want_logits_from(row.task, from);
    Ok(())
}
