//! Turns what a client submits into a job, or refuses it. Runs on the client's thread.

use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::executor::job::Job;
use crate::executor::{Input, Request, RequestId};
use crate::kv::{MAX_SALT_BYTES, PrefixKey};
use crate::sampling::SamplingParams;
use crate::text::{ChatTemplate, Tokenizer};

/// Longest text or chat input, in bytes.
pub const MAX_INPUT_BYTES: usize = 16 << 20;
/// Most bytes of returned logits that one request may ask for.
pub const MAX_LOGITS_BYTES: usize = 1 << 30;

/// What requests are checked against.
pub(super) struct Intake {
    pub(super) vocab_size: usize,
    /// Most tokens of a sequence, prompt and output.
    pub(super) sequence_tokens: usize,
    /// Most tokens of a sequence that the whole cache can hold.
    pub(super) pool_tokens: usize,
    pub(super) tokenizer: Option<Tokenizer>,
    pub(super) template: Option<ChatTemplate>,
}

impl Intake {
    /// Checks everything and tokenises.
    pub(super) fn accept(&self, id: RequestId, request: Request, now: Instant) -> Result<Job> {
        request.sampling.validate(self.vocab_size)?;
        self.check_options(&request)?;
        let prompt = self.prompt(request.input)?;
        self.check_prompt(&prompt)?;
        let params = self.fit(request.sampling, prompt.len())?;
        self.check_logits(&params, prompt.len(), request.return_context_logits, request.return_generation_logits)?;
        Ok(Job {
            id,
            prompt,
            params: Arc::new(params),
            stream: request.stream,
            key: PrefixKey { adapter: 0, salt: request.salt },
            context_logits: request.return_context_logits,
            generation_logits: request.return_generation_logits,
            submitted: now,
            deadline: request.time_limit.and_then(|limit| now.checked_add(limit)),
        })
    }

    fn check_options(&self, request: &Request) -> Result<()> {
        if request.salt.len() > MAX_SALT_BYTES {
            return Err(Error::argument("salt", format!("{} bytes, at most {MAX_SALT_BYTES}", request.salt.len())));
        }
        if self.tokenizer.is_none() && !request.sampling.stop_strings.is_empty() {
            return Err(Error::argument("stop_strings", "the engine has no tokenizer, so that there is no text"));
        }
        Ok(())
    }

    fn prompt(&self, input: Input) -> Result<Vec<u32>> {
        match input {
            Input::Tokens(tokens) => Ok(tokens),
            Input::Text(text) => self.encode(&text, true),
            // A chat template writes the special tokens itself.
            Input::Chat(messages) => self.encode(&self.render(&messages)?, false),
        }
    }

    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        check_length(text)?;
        let Some(tokenizer) = &self.tokenizer else {
            return Err(Error::argument("input", "the engine has no tokenizer; submit token ids"));
        };
        tokenizer.encode(text, add_special_tokens)
    }

    fn render(&self, messages: &str) -> Result<String> {
        check_length(messages)?;
        let Some(template) = &self.template else {
            return Err(Error::argument("input", "the engine has no chat template"));
        };
        let messages =
            serde_json::from_str(messages).map_err(|e| Error::argument("input", format!("messages: {e}")))?;
        template.render(&messages, None, true)
    }

    fn check_prompt(&self, prompt: &[u32]) -> Result<()> {
        if prompt.is_empty() {
            return Err(Error::argument("input", "the prompt has no tokens"));
        }
        if let Some(id) = prompt.iter().find(|id| **id as usize >= self.vocab_size) {
            let why = format!("token id {id} is outside the vocabulary of {}", self.vocab_size);
            return Err(Error::argument("input", why));
        }
        Ok(())
    }

    /// Cuts `max_tokens` to what the sequence limit leaves.
    fn fit(&self, mut params: SamplingParams, prompt_tokens: usize) -> Result<SamplingParams> {
        let room = self.sequence_tokens.saturating_sub(prompt_tokens);
        if room == 0 {
            let limit = self.sequence_tokens;
            return Err(too_large(format!("{prompt_tokens} prompt tokens leave no room for output within {limit}")));
        }
        params.max_tokens = params.max_tokens.min(u32::try_from(room).unwrap_or(u32::MAX));
        let total = prompt_tokens + params.max_tokens as usize;
        if total > self.pool_tokens {
            return Err(too_large(format!("{total} tokens, the whole cache holds {}", self.pool_tokens)));
        }
        Ok(params)
    }

    fn check_logits(&self, params: &SamplingParams, prompt_tokens: usize, context: bool, output: bool) -> Result<()> {
        let rows = if context { prompt_tokens } else { 0 };
        let rows = rows + if output { params.max_tokens as usize * params.n as usize } else { 0 };
        let bytes = rows.saturating_mul(self.vocab_size).saturating_mul(size_of::<f32>());
        if bytes > MAX_LOGITS_BYTES {
            return Err(too_large(format!("{bytes} bytes of returned logits, at most {MAX_LOGITS_BYTES}")));
        }
        Ok(())
    }
}

fn check_length(text: &str) -> Result<()> {
    if text.len() > MAX_INPUT_BYTES {
        return Err(Error::argument("input", format!("{} bytes, at most {MAX_INPUT_BYTES}", text.len())));
    }
    Ok(())
}

fn too_large(why: String) -> Error {
    Error::RequestTooLarge { what: "request".into(), why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;
    use crate::executor::alone::VOCAB;
    use crate::executor::fake::{id, tokenizer};

    fn intake() -> Intake {
        Intake {
            vocab_size: VOCAB,
            sequence_tokens: 20,
            pool_tokens: 15,
            tokenizer: Some(tokenizer()),
            template: Some(ChatTemplate::new("{{ messages[0].content }}b", None, None).unwrap()),
        }
    }

    fn accept(intake: &Intake, input: Input, change: impl FnOnce(&mut Request)) -> Result<Job> {
        let mut request = Request::new(input);
        request.sampling.max_tokens = 4;
        change(&mut request);
        intake.accept(id(0), request, Instant::now())
    }

    fn refusal(input: Input, change: impl FnOnce(&mut Request)) -> Status {
        accept(&intake(), input, change).unwrap_err().status()
    }

    #[test]
    fn text_and_chat_become_tokens() {
        let prompt = |input| accept(&intake(), input, |_| {}).unwrap().prompt;
        assert_eq!(prompt(Input::Text("abt".into())), [0, 1, 19]);
        assert_eq!(prompt(Input::Chat(r#"[{"role": "user", "content": "ca"}]"#.into())), [2, 0, 1]);
    }

    #[test]
    fn impossible_requests_are_refused() {
        let tokens = |n: usize| Input::Tokens(vec![1; n]);
        let table = [
            (refusal(tokens(0), |_| {}), Status::InvalidArgument),
            (refusal(Input::Text(String::new()), |_| {}), Status::InvalidArgument),
            (refusal(Input::Tokens(vec![VOCAB as u32]), |_| {}), Status::InvalidArgument),
            (refusal(tokens(1), |r| r.sampling.n = 1 << 31), Status::InvalidArgument),
            (refusal(tokens(1), |r| r.salt = vec![0; 257]), Status::InvalidArgument),
            (refusal(Input::Text("a".repeat(MAX_INPUT_BYTES + 1)), |_| {}), Status::InvalidArgument),
            (refusal(Input::Chat("{".into()), |_| {}), Status::InvalidArgument),
            (refusal(Input::Chat("3".into()), |_| {}), Status::InvalidArgument),
            (refusal(tokens(20), |_| {}), Status::RequestTooLarge),
            (refusal(tokens(12), |_| {}), Status::RequestTooLarge),
        ];
        table.iter().for_each(|(got, expected)| assert_eq!(got, expected));
    }

    #[test]
    fn returned_logits_are_bounded() {
        let roomy = Intake { sequence_tokens: 1 << 24, pool_tokens: 1 << 24, ..intake() };
        let accept = |tokens| {
            accept(&roomy, Input::Tokens(vec![1]), |r| {
                r.sampling.max_tokens = tokens;
                r.return_generation_logits = true;
            })
        };
        let most = (MAX_LOGITS_BYTES / VOCAB / 4) as u32;
        assert!(accept(most).is_ok());
        assert_eq!(accept(most + 1).unwrap_err().status(), Status::RequestTooLarge);
    }

    #[test]
    fn the_sequence_limit_cuts_max_tokens() {
        let roomy = Intake { pool_tokens: 20, ..intake() };
        let job = accept(&roomy, Input::Tokens(vec![1; 18]), |r| r.sampling.max_tokens = u32::MAX).unwrap();
        assert_eq!(job.params.max_tokens, 2);
    }

    #[test]
    fn without_a_tokenizer_only_tokens_are_taken() {
        let mute = Intake { tokenizer: None, template: None, ..intake() };
        assert!(accept(&mute, Input::Tokens(vec![1]), |_| {}).is_ok());
        let stop = |r: &mut Request| r.sampling.stop_strings = vec!["x".into()];
        for error in [
            accept(&mute, Input::Text("a".into()), |_| {}).unwrap_err(),
            accept(&mute, Input::Chat("[]".into()), |_| {}).unwrap_err(),
            accept(&mute, Input::Tokens(vec![1]), stop).unwrap_err(),
        ] {
            assert_eq!(error.status(), Status::InvalidArgument);
        }
    }
}
