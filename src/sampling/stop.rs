//! Finds stop strings and stop sequences in a stream, and says how much of the stream's end may still become one.

use crate::error::Result;
use crate::types::heap;

/// Room for the text of one token.
const TOKEN_BYTES: usize = 256;

/// One pattern with its Knuth-Morris-Pratt failure links and the length matched so far.
#[derive(Debug, Clone)]
struct Pattern<T> {
    symbols: Vec<T>,
    /// `links[i]`: length of the longest proper prefix of `symbols[..=i]` that is also its suffix.
    links: Vec<usize>,
    matched: usize,
}

impl<T: Copy + Eq> Pattern<T> {
    fn new(symbols: &[T]) -> Result<Self> {
        let symbols = heap::copy(symbols, "stop")?;
        let mut links = heap::collect(symbols.iter().map(|_| 0), "stop")?;
        for i in 1..symbols.len() {
            links[i] = advance(&symbols, &links, links[i - 1], symbols[i]);
        }
        Ok(Self { symbols, links, matched: 0 })
    }

    /// Takes the next symbol; true when the pattern is complete with it. `matched` then counts what may begin the next.
    fn push(&mut self, symbol: T) -> bool {
        self.matched = advance(&self.symbols, &self.links, self.matched, symbol);
        let complete = self.matched == self.symbols.len();
        if complete {
            self.matched = self.links[self.matched - 1];
        }
        complete
    }
}

fn advance<T: Copy + Eq>(symbols: &[T], links: &[usize], mut matched: usize, symbol: T) -> usize {
    while matched > 0 && symbols[matched] != symbol {
        matched = links[matched - 1];
    }
    if symbols[matched] == symbol { matched + 1 } else { 0 }
}

/// Looks for any of several patterns in a stream of symbols, in time linear in the stream.
#[derive(Debug, Clone)]
pub struct StopMatcher<T> {
    patterns: Vec<Pattern<T>>,
}

impl<T: Copy + Eq> StopMatcher<T> {
    /// Empty patterns are ignored: they would match everywhere.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn new<P: AsRef<[T]>>(stops: &[P]) -> Result<Self> {
        let mut patterns = heap::vector(stops.len(), "stops")?;
        for stop in stops.iter().map(AsRef::as_ref).filter(|stop| !stop.is_empty()) {
            patterns.push(Pattern::new(stop)?);
        }
        Ok(Self { patterns })
    }

    /// The most symbols that are ever [held](Self::held).
    #[must_use]
    pub fn longest(&self) -> usize {
        self.patterns.iter().map(|p| p.symbols.len()).max().unwrap_or(0)
    }

    /// Takes the next symbol. When patterns end with it and `armed` is set: the length of the longest of them.
    pub fn push(&mut self, symbol: T, armed: bool) -> Option<usize> {
        let mut found = None;
        for pattern in &mut self.patterns {
            if pattern.push(symbol) {
                found = found.max(armed.then_some(pattern.symbols.len()));
            }
        }
        found
    }

    /// How many of the last symbols may be the beginning of a pattern.
    #[must_use]
    pub fn held(&self) -> usize {
        self.patterns.iter().map(|p| p.matched).max().unwrap_or(0)
    }
}

/// Passes text through until a stop string is complete. The cut does not depend on how the text was divided.
#[derive(Debug, Clone)]
pub struct StopText {
    matcher: StopMatcher<u8>,
    held: String,
}

impl StopText {
    /// # Errors
    /// `OutOfMemory`.
    pub fn new(stops: &[String]) -> Result<Self> {
        let matcher = StopMatcher::new(stops)?;
        let mut held = String::new();
        heap::room(&mut held, matcher.longest() + TOKEN_BYTES, "stops")?;
        Ok(Self { matcher, held })
    }

    /// Takes `text` and appends to `out` what can be delivered. True when a stop string is complete: everything before
    /// it is in `out` then, the rest is dropped. An unarmed stop is delivered like other text.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn push(&mut self, text: &str, armed: bool, out: &mut String) -> Result<bool> {
        let before = self.held.len();
        heap::append(&mut self.held, text, "text")?;
        for (at, byte) in text.bytes().enumerate() {
            if let Some(length) = self.matcher.push(byte, armed) {
                self.held.truncate(before + at + 1 - length);
                self.finish(out)?;
                return Ok(true);
            }
        }
        let ready = self.held.len() - self.matcher.held();
        heap::append(out, &self.held[..ready], "text")?;
        self.held.drain(..ready);
        Ok(false)
    }

    /// Appends what was held back: no more text follows.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn finish(&mut self, out: &mut String) -> Result<()> {
        heap::append(out, &self.held, "text")?;
        self.held.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(stops: &[String], pieces: &[&str]) -> (Vec<String>, bool) {
        let (mut stop, mut deltas) = (StopText::new(stops).unwrap(), Vec::new());
        for piece in pieces {
            let mut out = String::new();
            let found = stop.push(piece, true, &mut out).unwrap();
            deltas.push(out);
            if found {
                return (deltas, true);
            }
        }
        let mut rest = String::new();
        stop.finish(&mut rest).unwrap();
        deltas.push(rest);
        (deltas, false)
    }

    #[test]
    fn holds_back_across_boundaries() {
        let stops = ["END".to_string()];
        assert_eq!(stream(&stops, &["aE", "N", "Dz"]), (vec!["a".into(), String::new(), String::new()], true));
        assert_eq!(stream(&stops, &["aE", "NE", "x"]).0, ["a", "EN", "Ex", ""]);
        assert_eq!(stream(&stops, &["aEN"]).0, ["a", "EN"]);
    }

    #[test]
    fn multibyte_text_is_cut_between_characters() {
        let stops = ["\u{e9}\u{e8}".to_string()];
        assert_eq!(stream(&stops, &["x\u{e9}", "\u{e9}\u{e8}y"]), (vec!["x".into(), "\u{e9}".into()], true));
        assert_eq!(stream(&stops, &["x\u{e9}", "\u{ea}"]).0, ["x", "\u{e9}\u{ea}", ""]);
    }

    #[test]
    fn an_unarmed_stop_is_delivered() {
        let mut stop = StopText::new(&["ab".into()]).unwrap();
        let mut out = String::new();
        assert!(!stop.push("xab", false, &mut out).unwrap());
        assert_eq!(out, "xab");
        assert!(stop.push("ab", true, &mut out).unwrap());
        assert_eq!(out, "xab");
    }

    #[test]
    fn the_longest_of_simultaneous_stops_wins() {
        assert_eq!(stream(&["b".into(), "ab".into()], &["xab"]), (vec!["x".into()], true));
    }

    #[test]
    fn token_sequences_hold_their_beginnings() {
        let mut stops = StopMatcher::new(&[vec![1, 1, 2], vec![7]]).unwrap();
        let held: Vec<_> = [1, 1, 1, 3].map(|t| (stops.push(t, true), stops.held())).to_vec();
        assert_eq!(held, [(None, 1), (None, 2), (None, 2), (None, 0)]);
        assert_eq!(stops.push(7, true), Some(1));
    }

    /// The text before the first stop to complete, by looking at every prefix.
    fn expected(text: &str, stops: &[String]) -> (String, bool) {
        for end in (1..=text.len()).filter(|e| text.is_char_boundary(*e)) {
            let length = stops.iter().filter(|s| text[..end].ends_with(s.as_str())).map(String::len).max();
            if let Some(length) = length {
                return (text[..end - length].to_string(), true);
            }
        }
        (text.to_string(), false)
    }

    proptest! {
        #[test]
        fn any_division_delivers_the_same(
            text in "[ab\u{e9}]{0,24}",
            stops in prop::collection::vec("[ab\u{e9}]{1,5}", 0..4),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let chars: Vec<char> = text.chars().collect();
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(chars.len() + 1)).chain([0, chars.len()]).collect();
            at.sort_unstable();
            let pieces: Vec<String> = at.windows(2).map(|w| chars[w[0]..w[1]].iter().collect()).collect();
            let (deltas, found) = stream(&stops, &pieces.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!((deltas.concat(), found), expected(&text, &stops));
        }
    }
}
