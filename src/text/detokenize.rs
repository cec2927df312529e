//! Ids to text one token at a time, for streaming.

use super::tokenizer::Tokenizer;
use crate::error::Result;

/// Tokens of the prompt that give the first generated token its context.
const CONTEXT: usize = 8;
/// Largest window without a clean end; only streams of broken UTF-8 reach it.
const MAX_WINDOW: usize = 64;
/// Byte tokens held back at most. Byte-fallback decoders judge a run of byte tokens as a whole.
const MAX_RUN: usize = 256;
/// Byte tokens of one character at most.
const MAX_CHAR: usize = 4;
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Turns the ids of one sequence into text deltas, each valid UTF-8; together they equal `decode` of all ids.
///
/// Held back until they are complete: a trailing U+FFFD (the bytes of a character may still arrive) and, under a
/// byte-fallback decoder, a run of byte tokens (an invalid byte turns the whole run into U+FFFD). A run longer than
/// 256 bytes is judged in parts.
///
/// The window of ids that is decoded anew with each token starts at the token before the last delta, so a token costs
/// the same whatever the length of the sequence, and decoders that strip a leading space strip it from text already sent.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    skip_special: bool,
    window: Vec<u32>,
    /// Ids at the front of the window that served as context for the last delta.
    settled: usize,
    /// Bytes of the window's text already delivered.
    sent: usize,
    /// Byte tokens at the end of the window.
    run: usize,
    delta: String,
}

impl Detokenizer {
    /// A detokenizer for what follows `prompt`, whose own text is not delivered. `skip_special` leaves special tokens out.
    pub fn new(tokenizer: Tokenizer, prompt: &[u32], skip_special: bool) -> Result<Self> {
        let window = context(&tokenizer, prompt, skip_special);
        let text = tokenizer.decode(&window, skip_special)?;
        let sent = ready(&text);
        let settled = if sent == text.len() { window.len() } else { 0 };
        Ok(Self { tokenizer, skip_special, window, settled, sent, run: 0, delta: String::new() })
    }

    /// The text that `id` completes; often empty.
    pub fn push(&mut self, id: u32) -> Result<&str> {
        self.delta.clear();
        if !self.tokenizer.has_text(id, self.skip_special) {
            return Ok("");
        }
        self.window.push(id);
        self.run = if self.tokenizer.is_byte(id) { self.run + 1 } else { 0 };
        if self.run > 0 && self.run < MAX_RUN {
            return Ok("");
        }
        let text = self.decode(0)?;
        if self.run == 0 {
            self.deliver(&text, ready(&text));
            self.trim(&text)?;
        } else if ready(&text) == text.len() || self.run >= MAX_RUN + MAX_CHAR {
            self.deliver(&text, text.len());
            self.cut_run(&text)?;
        }
        Ok(&self.delta)
    }

    /// The text still held back, incomplete characters as U+FFFD. The detokenizer is then empty and starts anew.
    pub fn flush(&mut self) -> Result<&str> {
        self.delta.clear();
        let text = self.decode(0)?;
        self.deliver(&text, text.len());
        self.window.clear();
        (self.settled, self.sent, self.run) = (0, 0, 0);
        Ok(&self.delta)
    }

    fn decode(&self, from: usize) -> Result<String> {
        self.tokenizer.decode(&self.window[from..], self.skip_special)
    }

    fn deliver(&mut self, text: &str, end: usize) {
        if let Some(new) = text.get(self.sent..end) {
            self.delta.push_str(new);
            self.sent = end;
        }
    }

    /// Drops the ids before the context of the last delta.
    fn trim(&mut self, text: &str) -> Result<()> {
        let clean = ready(text) == text.len() && !self.delta.is_empty();
        let overlong = self.window.len() > MAX_WINDOW;
        let from = match (clean, overlong) {
            (true, _) => self.settled,
            (false, true) => self.window.len() - CONTEXT,
            (false, false) => return Ok(()),
        };
        if from > 0 {
            let kept = self.decode(from)?;
            // Context without text would let the decoder strip the space of the next token instead of its own.
            if kept.is_empty() && !overlong {
                return Ok(());
            }
            self.keep(from, ready(&kept));
        }
        self.settled = if clean { self.window.len() } else { 0 };
        Ok(())
    }

    /// After a part of a long run: keeps its last character, so that the run goes on from a whole character.
    fn cut_run(&mut self, text: &str) -> Result<()> {
        let last = text.chars().next_back().filter(|last| *last != REPLACEMENT);
        let kept = last.map_or(1, char::len_utf8).min(self.run);
        let from = self.window.len() - kept;
        let sent = self.decode(from)?.len();
        self.keep(from, sent);
        self.settled = kept;
        self.run = kept;
        Ok(())
    }

    fn keep(&mut self, from: usize, sent: usize) {
        self.window.drain(..from);
        self.sent = sent;
    }
}

/// Bytes of `text` that no further token changes: all but one trailing U+FFFD.
fn ready(text: &str) -> usize {
    text.strip_suffix(REPLACEMENT).unwrap_or(text).len()
}

/// The end of the prompt that the first generated token depends on; never starts inside a run of byte tokens.
fn context(tokenizer: &Tokenizer, prompt: &[u32], skip_special: bool) -> Vec<u32> {
    let mut window = Vec::new();
    for &id in prompt.iter().rev().filter(|id| tokenizer.has_text(**id, skip_special)) {
        if window.len() >= CONTEXT && (window.len() >= MAX_RUN || !tokenizer.is_byte(id)) {
            break;
        }
        window.push(id);
    }
    window.reverse();
    window
}
