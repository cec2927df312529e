//! Mutations of bytes and of the words in them, from a seed.

/// A small generator (xorshift64); the same numbers in every run.
pub struct Random(u64);

impl Random {
    /// `seed` is not zero.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }

    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

const NUMBERS: [u64; 12] =
    [0, 1, 63, 64, 4095, 1 << 31, u32::MAX as u64, 1 << 40, 1 << 63, u64::MAX >> 1, u64::MAX - 63, u64::MAX];

/// One to four changes of one of `seeds`; `words` are those that mean something to the parser.
pub fn mutated(seeds: &[Vec<u8>], words: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = random.choose(seeds).clone();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        match random.below(12) {
            0 => flip(&mut bytes, at, random),
            1 => overwrite_number(&mut bytes, at, random),
            2 if random.below(4) == 0 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + 1 + random.below(24)).min(bytes.len()))),
            4 => repeat(&mut bytes, at, random),
            5 => splice(&mut bytes, at, random.choose(seeds).clone(), random),
            6 | 7 => swap_words(&mut bytes, at, random),
            _ => {
                let place = word_from(&bytes, at);
                bytes.splice(place, random.choose(words).iter().copied());
            }
        }
    }
    bytes
}

fn flip(bytes: &mut [u8], at: usize, random: &mut Random) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

/// Puts an extreme integer of four or eight bytes at a place where one may be.
fn overwrite_number(bytes: &mut [u8], at: usize, random: &mut Random) {
    let (start, length) = (at & !7, *random.choose(&[4, 8]));
    if let Some(place) = bytes.get_mut(start..start + length) {
        place.copy_from_slice(&random.choose(&NUMBERS).to_le_bytes()[..length]);
    }
}

/// Writes a piece again behind itself, now and then very often: depth and length without bound are also input.
fn repeat(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let end = (at + 1 + random.below(24)).min(bytes.len());
    let times = if random.below(16) == 0 { 2000 } else { 1 };
    let piece = bytes[at..end].repeat(times);
    bytes.splice(end..end, piece);
}

/// Replaces what follows `at` by the end of another seed.
fn splice(bytes: &mut Vec<u8>, at: usize, other: Vec<u8>, random: &mut Random) {
    bytes.truncate(at);
    bytes.extend_from_slice(&other[random.below(other.len())..]);
}

/// Puts one word of the input in the place of another.
fn swap_words(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let from = random.below(bytes.len());
    let word = bytes[word_from(bytes, from)].to_vec();
    bytes.splice(word_from(bytes, at), word);
}

/// The first word at or after `at`: a run of letters, digits and what numbers are written with, or else one byte.
fn word_from(bytes: &[u8], at: usize) -> std::ops::Range<usize> {
    let in_word = |at: &usize| bytes[*at].is_ascii_alphanumeric() || matches!(bytes[*at], b'_' | b'-' | b'.' | b'+');
    let start = (at..bytes.len()).find(in_word).unwrap_or(at.min(bytes.len()));
    let end = (start..bytes.len()).find(|at| !in_word(at)).unwrap_or(bytes.len());
    start..end
}
