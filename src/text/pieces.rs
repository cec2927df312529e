//! The bytes of every token under a byte-level decoder, which joins tokens by nothing but their bytes. With them a token
//! becomes text without memory being taken, which the crate's `decode` does many times.

use crate::error::Result;
use crate::types::heap;

/// Bytes by token id.
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// Where the bytes of each id end; they begin where those of the one before end.
    ends: Vec<u32>,
}

impl Pieces {
    /// The pieces of the ids below `vocab_size`; `spelling` is how the vocabulary writes one.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn new(vocab_size: usize, spelling: impl Fn(u32) -> Option<String>) -> Result<Self> {
        let mut pieces = Self { bytes: Vec::new(), ends: heap::vector(vocab_size, WHAT)? };
        for id in 0..vocab_size as u32 {
            pieces.append(&spelling(id).unwrap_or_default())?;
        }
        Ok(pieces)
    }

    /// The bytes of a token; none for an id that is not in the vocabulary.
    pub(super) fn of(&self, id: u32) -> &[u8] {
        let end = |at: usize| self.ends.get(at).map_or(0, |end| *end as usize);
        let id = id as usize;
        self.bytes.get(if id == 0 { 0 } else { end(id - 1) }..end(id)).unwrap_or_default()
    }

    /// A token with a character that stands for no byte is taken as it is spelt.
    fn append(&mut self, spelling: &str) -> Result<()> {
        heap::reserve(&mut self.bytes, spelling.len(), WHAT)?;
        let start = self.bytes.len();
        for letter in spelling.chars() {
            match byte(letter) {
                Some(byte) => self.bytes.push(byte),
                None => {
                    self.bytes.truncate(start);
                    self.bytes.extend_from_slice(spelling.as_bytes());
                    break;
                }
            }
        }
        self.ends.push(self.bytes.len() as u32);
        Ok(())
    }
}

const WHAT: &str = "text of the tokens";

/// The byte that a character of a byte-level vocabulary stands for: itself where it can be printed, the others follow
/// from U+0100 on.
fn byte(letter: char) -> Option<u8> {
    const PRINTABLE: [std::ops::RangeInclusive<u32>; 3] = [0x21..=0x7E, 0xA1..=0xAC, 0xAE..=0xFF];
    const HIDDEN: [std::ops::RangeInclusive<u32>; 3] = [0..=0x20, 0x7F..=0xA0, 0xAD..=0xAD];
    let code = u32::from(letter);
    if PRINTABLE.iter().any(|range| range.contains(&code)) {
        return u8::try_from(code).ok();
    }
    let at = code.checked_sub(0x100)? as usize;
    HIDDEN.into_iter().flatten().nth(at).and_then(|byte| u8::try_from(byte).ok())
}

/// Appends `bytes` to `text`, broken UTF-8 as U+FFFD just as the standard library does it.
pub(super) fn append_lossy(text: &mut String, bytes: &[u8]) -> Result<()> {
    for chunk in bytes.utf8_chunks() {
        heap::append(text, chunk.valid(), WHAT)?;
        if !chunk.invalid().is_empty() {
            heap::append(text, "\u{FFFD}", WHAT)?;
        }
    }
    Ok(())
}
