//! Mutations with every checksum made right again, so that they reach the parser and the validator.

use super::*;
use crate::engine::read::parse_plan;

/// A small generator; the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

const NUMBERS: [&str; 10] = ["0", "1", "2", "7", "65536", "4294967296", "18446744073709551615", "-1", "1e400", "null"];

/// The text with one number replaced, or one byte changed, or a range cut out.
fn mutate(json: &[u8], random: &mut Random) -> Vec<u8> {
    let mut mutant = json.to_vec();
    let at = random.below(mutant.len());
    match random.below(4) {
        0 => mutant[at] = random.below(256) as u8,
        1 => drop(mutant.drain(at..(at + 1 + random.below(20)).min(json.len()))),
        _ => {
            let start = (at..json.len()).find(|at| json[*at].is_ascii_digit()).unwrap_or(0);
            let end = (start..json.len()).find(|at| !json[*at].is_ascii_digit()).unwrap_or(json.len());
            mutant.splice(start..end, NUMBERS[random.below(NUMBERS.len())].bytes());
        }
    }
    mutant
}

#[test]
fn mutated_plans_are_refused_or_valid_and_never_panic() {
    let json = serde_json::to_vec(&small_plan()).expect("JSON");
    let (mut random, mut valid, mut refused) = (Random(0x5eed), 0, 0);
    for _ in 0..60_000 {
        let mut mutant = mutate(&json, &mut random);
        if random.below(3) == 0 && !mutant.is_empty() {
            mutant = mutate(&mutant, &mut random);
        }
        match parse_plan(&mutant) {
            Ok(_) => valid += 1,
            Err(error) => {
                assert_eq!(error.status(), crate::Status::Corrupt);
                refused += 1;
            }
        }
    }
    assert!(valid > 1000 && refused > 10_000, "{valid} valid, {refused} refused");
}

#[test]
fn mutated_section_tables_are_refused_before_anything_is_allocated() {
    let fixture = Fixture::new();
    let bytes = fixture.bytes();
    let whole = Header::decode(bytes.first_chunk().expect("a header"), bytes.len() as u64).expect("valid");
    let mut random = Random(77);
    for _ in 0..20_000 {
        let mut header = whole.clone();
        let index = random.below(header.sections.len());
        let extremes = [0, 1, 63, 64, 4095, 4096, 1 << 40, u64::MAX >> 1, u64::MAX - 4095, u64::MAX];
        let number = extremes[random.below(extremes.len())];
        let section = &mut header.sections[index];
        match random.below(4) {
            0 => section.offset = number,
            1 => section.bytes = number,
            2 => section.kind = SectionKind::ALL[random.below(SectionKind::ALL.len())],
            _ => header.sections.truncate(index),
        }
        if header == whole {
            continue;
        }
        let encoded = encode_unchecked(&header, bytes.len() as u64);
        // A section may grow into the padding after it: its checksum is looked at later.
        if let Ok(decoded) = Header::decode(encoded.first_chunk().expect("a header"), bytes.len() as u64) {
            assert_eq!(decoded, header);
            assert!(decoded.sections.is_sorted_by(|one, next| one.end() <= next.offset));
            assert_eq!(decoded.file_bytes(), bytes.len() as u64);
        }
    }
}

/// As [`Header::encode`], for tables whose end overflows or is not the file's.
fn encode_unchecked(header: &Header, file_bytes: u64) -> Vec<u8> {
    let mut sane = header.clone();
    sane.sections.iter_mut().for_each(|section| (section.offset, section.bytes) = (0, 0));
    let mut bytes = sane.encode();
    bytes[16..24].copy_from_slice(&file_bytes.to_le_bytes());
    for (index, section) in header.sections.iter().enumerate() {
        let at = 64 + index * 32;
        bytes[at + 8..at + 16].copy_from_slice(&section.offset.to_le_bytes());
        bytes[at + 16..at + 24].copy_from_slice(&section.bytes.to_le_bytes());
    }
    bytes[24..32].fill(0);
    let checksum = xxh3_64(&bytes).to_le_bytes();
    bytes[24..32].copy_from_slice(&checksum);
    bytes.to_vec()
}
