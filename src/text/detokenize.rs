//! Ids to text one token at a time, for streaming.

use super::tokenizer::Tokenizer;
use crate::error::Result;
use crate::types::heap;

/// Tokens of the prompt that give the first generated token its context.
const CONTEXT: usize = 8;
/// Largest window without a clean end; only streams of broken UTF-8 reach it.
const MAX_WINDOW: usize = 64;
/// Byte tokens held back at most. Byte-fallback decoders judge a run of byte tokens as a whole.
const MAX_RUN: usize = 256;
/// Bytes of the window's text at which it need not grow.
const TEXT_BYTES: usize = 1024;
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
    /// The window's text, or that of its end.
    text: String,
    bytes: Vec<u8>,
}

impl Detokenizer {
    /// A detokenizer for what follows `prompt`, whose own text is not delivered. `skip_special` leaves special tokens out.
    /// What it will need for ordinary text is taken here.
    pub fn new(tokenizer: Tokenizer, prompt: &[u32], skip_special: bool) -> Result<Self> {
        let mut detokenizer = Self {
            window: context(&tokenizer, prompt, skip_special),
            tokenizer,
            skip_special,
            settled: 0,
            sent: 0,
            run: 0,
            delta: String::with_capacity(TEXT_BYTES),
            text: String::with_capacity(TEXT_BYTES),
            bytes: Vec::with_capacity(TEXT_BYTES),
        };
        detokenizer.decode(0)?;
        detokenizer.skip_prompt();
        Ok(detokenizer)
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
        self.decode(0)?;
        if self.run == 0 {
            self.deliver(ready(&self.text))?;
            self.trim()?;
        } else if ready(&self.text) == self.text.len() || self.run >= MAX_RUN + MAX_CHAR {
            self.deliver(self.text.len())?;
            self.cut_run()?;
        }
        Ok(&self.delta)
    }

    /// The text still held back, incomplete characters as U+FFFD. The detokenizer is then empty and starts anew.
    pub fn flush(&mut self) -> Result<&str> {
        self.delta.clear();
        self.decode(0)?;
        self.deliver(self.text.len())?;
        self.window.clear();
        (self.settled, self.sent, self.run) = (0, 0, 0);
        Ok(&self.delta)
    }

    /// Makes `text` that of the window from the id number `from` on.
    fn decode(&mut self, from: usize) -> Result<()> {
        self.tokenizer.decode_into(&self.window[from..], self.skip_special, &mut self.bytes, &mut self.text)
    }

    /// Takes the window's text as delivered.
    fn skip_prompt(&mut self) {
        // An incomplete run of byte tokens is one U+FFFD per byte, all of which the answer may still replace.
        let ends_in_run = self.window.last().is_some_and(|id| self.tokenizer.is_byte(*id));
        let text = &self.text;
        self.sent = if ends_in_run { text.trim_end_matches(REPLACEMENT).len() } else { ready(text) };
        self.settled = if self.sent == text.len() { self.window.len() } else { 0 };
    }

    fn deliver(&mut self, end: usize) -> Result<()> {
        // An invalid byte after a run that ended the prompt rewrites delivered text; what is new starts at a whole character.
        let start = self.text.ceil_char_boundary(self.sent);
        if let Some(new) = self.text.get(start..end) {
            heap::append(&mut self.delta, new, "text")?;
            self.sent = end;
        }
        Ok(())
    }

    /// Drops the ids before the context of the last delta.
    fn trim(&mut self) -> Result<()> {
        let clean = ready(&self.text) == self.text.len() && !self.delta.is_empty();
        let overlong = self.window.len() > MAX_WINDOW;
        let from = match (clean, overlong) {
            (true, _) => self.settled,
            (false, true) => self.window.len() - CONTEXT,
            (false, false) => return Ok(()),
        };
        if from > 0 {
            self.decode(from)?;
            // Context without text would let the decoder strip the space of the next token instead of its own.
            if self.text.is_empty() && !overlong {
                return Ok(());
            }
            self.keep(from, ready(&self.text));
        }
        self.settled = if clean { self.window.len() } else { 0 };
        Ok(())
    }

    /// After a part of a long run: keeps its last character, so that the run goes on from a whole character.
    fn cut_run(&mut self) -> Result<()> {
        let last = self.text.chars().next_back().filter(|last| *last != REPLACEMENT);
        let kept = last.map_or(1, char::len_utf8).min(self.run);
        let from = self.window.len() - kept;
        self.decode(from)?;
        self.keep(from, self.text.len());
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
    let mut window = Vec::with_capacity(MAX_RUN + 2 * MAX_CHAR);
    for &id in prompt.iter().rev().filter(|id| tokenizer.has_text(**id, skip_special)) {
        if window.len() >= CONTEXT && (window.len() >= MAX_RUN || !tokenizer.is_byte(id)) {
            break;
        }
        window.push(id);
    }
    window.reverse();
    window
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::fixtures::{byte_fallback_json, byte_level_json, load, metaspace_json};
    use super::*;

    fn stream(tokenizer: &Tokenizer, prompt: &[u32], ids: &[u32], skip_special: bool) -> String {
        let mut detokenizer = Detokenizer::new(tokenizer.clone(), prompt, skip_special).unwrap();
        let mut text = String::new();
        for id in ids {
            text.push_str(detokenizer.push(*id).unwrap());
        }
        text + detokenizer.flush().unwrap()
    }

    /// Random ids of `tokenizer`, short runs of bytes among them, and where to cut prompt from answer.
    fn sequences() -> impl Strategy<Value = (Vec<u32>, bool)> {
        (vec(prop_oneof![3 => 0..270u32, 1 => 255..270u32, 1 => 195..260u32, 1 => 0..12u32], 0..150), any::<bool>())
    }

    proptest! {
        #[test]
        fn deltas_equal_the_whole_decode((ids, skip_special) in sequences()) {
            for json in [byte_level_json(), byte_fallback_json(), metaspace_json()] {
                let tokenizer = load(&json).unwrap();
                prop_assert_eq!(stream(&tokenizer, &[], &ids, skip_special), tokenizer.decode(&ids, skip_special).unwrap());
            }
        }

        #[test]
        fn deltas_continue_any_prompt(text in "[ abé😀h\\n▁]{0,60}", cut in 0..1000usize) {
            for json in [byte_level_json(), byte_fallback_json()] {
                let tokenizer = load(&json).unwrap();
                let ids = tokenizer.encode(&text, false).unwrap();
                let (prompt, answer) = ids.split_at(cut % (ids.len() + 1));
                let told = tokenizer.decode(prompt, true).unwrap();
                let told = told.trim_end_matches(REPLACEMENT);
                let whole = tokenizer.decode(&ids, true).unwrap();
                prop_assert_eq!(format!("{told}{}", stream(&tokenizer, prompt, answer, true)), whole);
            }
        }
    }

    #[test]
    fn an_emoji_arrives_whole() {
        let tokenizer = load(&byte_level_json()).unwrap();
        let ids = tokenizer.encode("a😀b", false).unwrap();
        let mut detokenizer = Detokenizer::new(tokenizer, &[], true).unwrap();
        let deltas: Vec<String> = ids.iter().map(|id| detokenizer.push(*id).unwrap().to_owned()).collect();
        assert_eq!(deltas, ["a", "", "😀", "b"]);
    }

    #[test]
    fn the_first_generated_word_keeps_its_space() {
        let tokenizer = load(&byte_fallback_json()).unwrap();
        let id = |token| tokenizer.token_to_id(token).unwrap();
        assert_eq!(stream(&tokenizer, &[id("▁ab")], &[id("▁a")], true), " a");
        assert_eq!(stream(&tokenizer, &[id("<s>")], &[id("▁a")], true), "a");
        assert_eq!(stream(&tokenizer, &[id("<0x0A>")], &[id("<0x0A>"), id("a")], true), "\na");
        let metaspace = load(&metaspace_json()).unwrap();
        let id = |token| metaspace.token_to_id(token).unwrap();
        assert_eq!(stream(&metaspace, &[id("▁hi")], &[id("▁there")], true), " there");
    }

    #[test]
    fn an_invalid_byte_after_the_prompts_newline_does_not_stop_the_stream() {
        let tokenizer = load(&byte_fallback_json()).unwrap();
        let id = |token| tokenizer.token_to_id(token).unwrap();
        assert_eq!(stream(&tokenizer, &[id("<0x0A>")], &[id("<0xE5>"), id("a"), id("b")], true), "\u{FFFD}ab");
    }

    #[test]
    fn flush_gives_the_incomplete_character() {
        let tokenizer = load(&byte_level_json()).unwrap();
        let mut detokenizer = Detokenizer::new(tokenizer, &[], true).unwrap();
        assert_eq!(detokenizer.push(0xC3).unwrap(), "");
        assert_eq!(detokenizer.flush().unwrap(), "\u{FFFD}");
        assert_eq!(detokenizer.flush().unwrap(), "");
    }

    /// The longest window of `ids`, after checking that the text is right.
    fn longest_window(tokenizer: &Tokenizer, ids: &[u32]) -> usize {
        let mut detokenizer = Detokenizer::new(tokenizer.clone(), &[], true).unwrap();
        let (mut longest, mut text) = (0, String::new());
        for id in ids {
            text.push_str(detokenizer.push(*id).unwrap());
            longest = longest.max(detokenizer.window.len());
        }
        text.push_str(detokenizer.flush().unwrap());
        assert_eq!(text, tokenizer.decode(ids, true).unwrap());
        longest
    }

    #[test]
    fn the_window_is_bounded_whatever_is_generated() {
        let byte_level = load(&byte_level_json()).unwrap();
        let fallback = load(&byte_fallback_json()).unwrap();
        let of = |token| fallback.token_to_id(token).unwrap();
        let bytes = |text: &str| text.bytes().map(|byte| u32::from(byte) + 3).collect::<Vec<_>>();
        assert!(longest_window(&byte_level, &[0x80; 2000]) <= MAX_WINDOW + 1);
        assert!(longest_window(&byte_level, &[0xC3; 2000]) <= MAX_WINDOW + 1);
        assert!(longest_window(&byte_level, &[104; 2000]) <= 3);
        assert!(longest_window(&fallback, &[of("\u{FFFD}"); 2000]) <= MAX_WINDOW + 1);
        assert!(longest_window(&fallback, &[of("▁"); 2000]) <= MAX_WINDOW + 1);
        assert!(longest_window(&fallback, &[of("</s>"); 2000]) == 0);
        assert!(longest_window(&fallback, &bytes(&"€😀".repeat(500))) <= MAX_RUN + 2 * MAX_CHAR);
        assert!(longest_window(&fallback, &[0xE2 + 3; 2000]) <= MAX_RUN + 2 * MAX_CHAR);
    }
}
