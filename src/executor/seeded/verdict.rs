//! What a request said in company, against what it says alone.

use std::time::Instant;

use super::coverage::Coverage;
use crate::executor::alone::{Speech, expected_logits, speech};
use crate::executor::core::Core;
use crate::executor::fake::id;
use crate::executor::intake::Intake;
use crate::executor::job::Job;
use crate::executor::{FinishReason, Request, RequestId, Response};
use crate::sampling::TokenLogprob;

/// A request, and what was heard of it.
pub(super) struct Hearing {
    pub(super) id: RequestId,
    pub(super) prompt: Vec<u32>,
    /// Its sampling as the executor has cut it.
    pub(super) request: Request,
    pub(super) responses: Vec<Response>,
    /// It was cancelled, or the executor was shut down.
    pub(super) may_be_cut: bool,
    /// Its callback fails, so that its end may not be heard.
    fails: bool,
}

/// All that one sequence said.
#[derive(Debug, PartialEq)]
struct Said {
    tokens: Vec<u32>,
    text: String,
    /// Of each token and of the most likely ones in its place.
    logprobs: Vec<(TokenLogprob, Vec<TokenLogprob>)>,
    logits: Vec<f32>,
    finish: Option<FinishReason>,
}

impl Said {
    fn of(responses: &[Response], sequence: u32) -> Self {
        let ours = || responses.iter().filter(|response| response.sequence == sequence);
        Self {
            tokens: ours().flat_map(|r| r.tokens.clone()).collect(),
            text: ours().map(|r| r.text.as_str()).collect(),
            logprobs: ours().flat_map(|r| r.logprobs.iter()).map(|info| (info.chosen, info.top.to_vec())).collect(),
            logits: ours().flat_map(|r| r.generation_logits.clone()).collect(),
            finish: ours().find_map(|r| r.finish),
        }
    }

    /// Whether it may be what was said until a request was cut short. Text that waited for the rest of a stop string is
    /// let go then, so that it is not compared.
    fn begins(&self, whole: &Self) -> bool {
        whole.tokens.starts_with(&self.tokens)
            && whole.logprobs.starts_with(&self.logprobs)
            && whole.logits.starts_with(&self.logits)
    }
}

impl Hearing {
    pub(super) fn new(job: &Job, request: &Request, fails: bool) -> Self {
        let request = Request { sampling: (*job.params).clone(), time_limit: None, ..request.clone() };
        let may_be_cut = job.deadline.is_some();
        Self { id: job.id, prompt: job.prompt.clone(), request, responses: Vec::new(), may_be_cut, fails }
    }

    pub(super) fn hear(&mut self, response: Response) {
        assert!(!self.is_over(), "a response after the last: {response:?}");
        let ended = |r: &Response| r.sequence == response.sequence && r.finish.is_some();
        assert!(!self.responses.iter().any(ended), "a response after the sequence's last: {response:?}");
        self.responses.push(response);
    }

    /// Whether its last response was taken.
    pub(super) fn is_over(&self) -> bool {
        self.responses.last().is_some_and(|response| response.last)
    }

    /// Tokens heard so far.
    pub(super) fn tokens(&self) -> usize {
        self.responses.iter().map(|response| response.tokens.len()).sum()
    }

    /// Compares with the same request alone on `core`.
    pub(super) fn check(&self, core: &mut Core, intake: &Intake, windows: &[Option<usize>], coverage: &mut Coverage) {
        let alone = self.alone(core, intake);
        let speeches = self.check_alone(&alone, windows);
        self.check_end(coverage);
        let fails = alone.iter().any(|response| response.finish == Some(FinishReason::Error));
        for (sequence, speech) in (0..).zip(&speeches) {
            let (ours, whole) = (Said::of(&self.responses, sequence), Said::of(&alone, sequence));
            self.check_sequence(&ours, &whole, speech, fails);
        }
        self.check_context(windows);
        self.cover(coverage);
    }

    /// The logits of the prompt came whole, or not at all because the request did not come to its own end.
    fn check_context(&self, windows: &[Option<usize>]) {
        let ours: Vec<f32> = self.responses.iter().flat_map(|response| response.context_logits.clone()).collect();
        if !ours.is_empty() {
            let prefixes = (1..=self.prompt.len()).map(|end| &self.prompt[..end]);
            let all: Vec<f32> = prefixes.flat_map(|prefix| expected_logits(prefix, windows)).collect();
            assert!(ours == all, "context logits differ");
        }
        let came = ours.is_empty() != self.request.return_context_logits;
        assert!(came || self.may_be_cut || self.fails || self.failed(), "context logits: {}", ours.len());
    }

    fn check_sequence(&self, ours: &Said, whole: &Said, speech: &Speech, fails: bool) {
        let cut = !matches!(ours.finish, Some(FinishReason::Eos | FinishReason::Stop | FinishReason::Length));
        if fails {
            // NaN in one sequence ends its siblings too, wherever they are then: only arithmetic says how they would go on.
            assert!(speech.tokens.starts_with(&ours.tokens), "{ours:?} {speech:?}");
            assert!(cut || ours.finish == Some(FinishReason::Stop) || ours.finish == Some(speech.finish), "{ours:?}");
        } else if cut {
            assert!(self.may_be_cut || self.fails, "{ours:?}");
            assert!(ours.finish != Some(FinishReason::Error) && ours.begins(whole), "{ours:?} {whole:?}");
        } else {
            assert_eq!(ours, whole);
        }
    }

    fn failed(&self) -> bool {
        self.responses.iter().any(|response| response.finish == Some(FinishReason::Error))
    }

    fn alone(&self, core: &mut Core, intake: &Intake) -> Vec<Response> {
        let (now, mut out) = (Instant::now(), Vec::new());
        let job = intake.accept(id(0), self.request.clone(), now).expect("it was accepted in company");
        core.add(job, now, &mut out);
        while !core.is_idle() {
            core.step(now, &mut out).expect("the model has no faults");
        }
        out
    }

    /// The executor says of one request what plain arithmetic says.
    fn check_alone(&self, alone: &[Response], windows: &[Option<usize>]) -> Vec<Speech> {
        let params = &self.request.sampling;
        let speeches: Vec<Speech> = (0..params.n).map(|s| speech(&self.prompt, params, s, windows)).collect();
        let fails = speeches.iter().any(|speech| speech.finish == FinishReason::Error);
        for (sequence, speech) in (0..).zip(&speeches) {
            let said = Said::of(alone, sequence);
            if fails || !params.stop_strings.is_empty() {
                assert!(speech.tokens.starts_with(&said.tokens));
            } else {
                assert_eq!((&said.tokens, said.finish), (&speech.tokens, Some(speech.finish)));
            }
        }
        speeches
    }

    fn check_end(&self, coverage: &mut Coverage) {
        let Some(last) = self.responses.last().filter(|last| last.last) else {
            return assert!(self.fails, "no end of {:?}", self.id);
        };
        assert_eq!((last.stats.prompt_tokens, last.stats.generated_tokens), (self.prompt.len(), self.tokens()));
        coverage.add("cached prompt tokens", last.stats.cached_tokens as u64);
        coverage.note(match last.finish.expect("a last response ends its sequence") {
            FinishReason::Eos => "ends by EOS",
            FinishReason::Stop => "ends by a stop",
            FinishReason::Length => "ends by length",
            FinishReason::Cancelled => "ends by cancellation",
            FinishReason::TimeLimit => "ends by time",
            FinishReason::Error => "ends by NaN",
        });
    }

    fn cover(&self, coverage: &mut Coverage) {
        let any = |holds: fn(&Response) -> bool| u64::from(self.responses.iter().any(holds));
        coverage.note("requests");
        coverage.add("tokens", self.tokens() as u64);
        coverage.add("requests of several sequences", u64::from(self.request.sampling.n > 1));
        coverage.add("context logits", any(|response| !response.context_logits.is_empty()));
        coverage.add("generation logits", any(|response| !response.generation_logits.is_empty()));
        coverage.add("failed callbacks", u64::from(!self.is_over()));
        let joined = self.request.stream && self.responses.iter().any(|r| r.tokens.len() > 1 && r.finish.is_none());
        coverage.add("requests whose slow client got joined responses", u64::from(joined));
    }
}
