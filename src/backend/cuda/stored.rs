//! The cubins that an engine carries, as bytes of one of its sections and in memory.
//!
//! Little endian: magic, format, compiler's major and minor version, number of entries (u32 each); entries ascending by
//! key: key (u128), arch's major and minor number (u32 each), length (u64), content; at last the XXH3-64 of all before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::cubins::CubinKey;
use super::driver::Arch;
use super::kernel::KernelSpec;
use crate::error::{Error, Result};

const MAGIC: [u8; 8] = *b"TRTCUBIN";
const FORMAT: u32 = 1;

/// An engine's cubins by what they were made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredCubins {
    /// Version of the compiler that made them; (0, 0) if there are none.
    pub compiler: (u32, u32),
    cubins: BTreeMap<CubinKey, (Arch, Arc<[u8]>)>,
}

impl StoredCubins {
    #[must_use]
    pub fn get(&self, key: CubinKey) -> Option<Arc<[u8]>> {
        self.cubins.get(&key).map(|(_, cubin)| cubin.clone())
    }

    /// The archs that at least one cubin is for, ascending.
    #[must_use]
    pub fn archs(&self) -> BTreeSet<Arch> {
        self.cubins.values().map(|(arch, _)| *arch).collect()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.cubins.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cubins.is_empty()
    }
}

/// Cubins as bytes; the same set in any order gives the same bytes.
///
/// # Errors
/// `Internal` for a specification whose source the library does not carry.
pub fn pack(cubins: &[(KernelSpec, Arch, Arc<[u8]>)], compiler: (u32, u32)) -> Result<Vec<u8>> {
    let mut entries = BTreeMap::new();
    for (spec, arch, cubin) in cubins {
        entries.insert(CubinKey::new(spec, *arch)?, (*arch, cubin));
    }
    let mut bytes = MAGIC.to_vec();
    for number in [FORMAT, compiler.0, compiler.1, entries.len() as u32] {
        bytes.extend(number.to_le_bytes());
    }
    for (key, (arch, cubin)) in entries {
        bytes.extend(key.0.to_le_bytes());
        bytes.extend(arch.major.to_le_bytes());
        bytes.extend(arch.minor.to_le_bytes());
        bytes.extend((cubin.len() as u64).to_le_bytes());
        bytes.extend_from_slice(cubin);
    }
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    Ok(bytes)
}

/// The cubins that [`pack`] wrote.
///
/// # Errors
/// `Corrupt` when the checksum or a length is wrong; `UnsupportedVersion` for another format.
pub fn unpack(bytes: &[u8]) -> Result<StoredCubins> {
    let (content, checksum) = bytes.split_last_chunk().ok_or_else(|| corrupt("it is too short"))?;
    if xxh3_64(content) != u64::from_le_bytes(*checksum) {
        return Err(corrupt("its checksum does not match"));
    }
    let mut rest = Rest(content);
    if rest.take()? != MAGIC {
        return Err(corrupt("it does not begin as one"));
    }
    let format = rest.u32()?;
    if format != FORMAT {
        let why = format!("it is {format}, this library reads {FORMAT}");
        return Err(Error::UnsupportedVersion { what: WHAT.into(), why });
    }
    let compiler = (rest.u32()?, rest.u32()?);
    let mut cubins = BTreeMap::new();
    for _ in 0..rest.u32()? {
        let key = CubinKey(u128::from_le_bytes(rest.take()?));
        let arch = Arch { major: rest.u32()?, minor: rest.u32()? };
        let length = u64::from_le_bytes(rest.take()?);
        if cubins.insert(key, (arch, rest.bytes(length)?.into())).is_some() {
            return Err(corrupt("a kernel is in it twice"));
        }
    }
    match rest.0 {
        [] => Ok(StoredCubins { compiler, cubins }),
        rest => Err(corrupt(&format!("{} bytes follow its last entry", rest.len()))),
    }
}

const WHAT: &str = "the engine's section of CUDA kernels";

fn corrupt(why: &str) -> Error {
    Error::Corrupt { what: WHAT.into(), why: why.into() }
}

/// What is still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk().ok_or_else(ends_early)?;
        self.0 = rest;
        Ok(*first)
    }

    fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn bytes(&mut self, length: u64) -> Result<&'a [u8]> {
        let length = usize::try_from(length).map_err(|_| ends_early())?;
        let (first, rest) = self.0.split_at_checked(length).ok_or_else(ends_early)?;
        self.0 = rest;
        Ok(first)
    }
}

fn ends_early() -> Error {
    corrupt("it ends before its last entry does")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Status;

    fn spec(n: usize) -> KernelSpec {
        KernelSpec::new("common/types.cuh", "none").define("N", n)
    }

    fn set() -> Vec<(KernelSpec, Arch, Arc<[u8]>)> {
        let archs = [Arch { major: 8, minor: 0 }, Arch { major: 9, minor: 0 }];
        (0..6).map(|n| (spec(n), archs[n % 2], vec![n as u8; n * 7].into())).collect()
    }

    #[test]
    fn a_set_comes_back_whole_and_in_any_order_the_same() {
        let mut set = set();
        let bytes = pack(&set, (13, 2)).unwrap();
        let stored = unpack(&bytes).unwrap();
        assert_eq!((stored.compiler, stored.len()), ((13, 2), 6));
        assert_eq!(stored.archs().iter().map(Arch::to_string).collect::<Vec<_>>(), ["sm_80", "sm_90a"]);
        for (spec, arch, cubin) in &set {
            assert_eq!(*stored.get(CubinKey::new(spec, *arch).unwrap()).unwrap(), **cubin);
        }
        assert_eq!(stored.get(CubinKey::new(&spec(99), set[0].1).unwrap()), None);
        set.reverse();
        assert_eq!(pack(&set, (13, 2)).unwrap(), bytes);
        assert!(unpack(&pack(&[], (0, 0)).unwrap()).unwrap().is_empty());
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_found() {
        let bytes = pack(&set(), (13, 2)).unwrap();
        for length in 0..bytes.len() {
            assert_eq!(unpack(&bytes[..length]).unwrap_err().status(), Status::Corrupt);
        }
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unpack(&bytes).unwrap_err().status(), Status::Corrupt);
        }
    }

    /// With a checksum that is right again, as whoever edits a file on purpose writes it.
    fn sealed(mut content: Vec<u8>) -> Vec<u8> {
        let checksum = xxh3_64(&content);
        content.extend(checksum.to_le_bytes());
        content
    }

    #[test]
    fn lengths_and_counts_beyond_the_content_are_found() {
        let bytes = pack(&set(), (13, 2)).unwrap();
        let content = &bytes[..bytes.len() - 8];
        let altered = |at: usize, new: &[u8]| {
            let mut content = content.to_vec();
            content[at..at + new.len()].copy_from_slice(new);
            unpack(&sealed(content)).unwrap_err().status()
        };
        assert_eq!(altered(0, b"X"), Status::Corrupt);
        assert_eq!(altered(8, &[2]), Status::UnsupportedVersion);
        // One entry more or less than there are, and 2^32 - 1.
        assert_eq!(altered(20, &[7]), Status::Corrupt);
        assert_eq!(altered(20, &[5]), Status::Corrupt);
        assert_eq!(altered(20, &[255; 4]), Status::Corrupt);
        // The length of the first entry.
        assert_eq!(altered(48, &[255; 8]), Status::Corrupt);
        let twice = [&content[..20], &[2, 0, 0, 0], &[0; 32], &[0; 32]].concat();
        assert_eq!(unpack(&sealed(twice)).unwrap_err().status(), Status::Corrupt);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
            noise in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut content = pack(&set(), (13, 2)).unwrap();
            content.truncate(content.len() - 8);
            for (at, byte) in edits {
                let at = at.index(content.len());
                content[at] = byte;
            }
            content.truncate(cut.index(content.len()) + 1);
            content.extend(noise);
            // What is read in spite of edits is a set: writing it is possible only with its specs, so its size is checked.
            if let Ok(stored) = unpack(&sealed(content.clone())) {
                prop_assert!(stored.len() * 32 <= content.len());
            }
            prop_assert!(unpack(&content).is_err());
        }
    }
}
