//! Timings of kernels on a device, kept from one build to the next.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::super::cache::{cache_folder, replace};
use super::super::call::{Call, Code};
use super::super::cubins::CubinKey;
use super::super::cublas;
use super::super::driver::DeviceInfo;
use crate::error::Result;

/// What a timing depends on: the kernel's source and macros or the library's version and the product, the launch, and the device with its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TimingKey(u128);

impl TimingKey {
    pub(super) fn new(call: &Call, rows: usize, info: &DeviceInfo) -> Result<Self> {
        let code = match &call.code {
            Code::Kernel(spec) => CubinKey::new(spec, info.arch)?.to_string(),
            Code::Product(spec) => format!("{spec:?} by {}", cublas::version()?),
        };
        let launch = (call.grid.of(rows as u32), call.block, call.shared, call.cluster);
        let device = (&info.name, info.multiprocessors, info.driver_version);
        Ok(Self(xxh3_128(format!("{code} {rows} {launch:?} {device:?}").as_bytes())))
    }
}

/// Microseconds by what was timed.
#[derive(Debug, Default)]
pub struct Timings {
    file: Option<PathBuf>,
    by_key: BTreeMap<TimingKey, f32>,
}

#[derive(Serialize, Deserialize)]
struct Content {
    microseconds: BTreeMap<String, f32>,
}

impl Timings {
    /// Those in the user's cache; none, and nowhere to keep them, where no variable tells a folder.
    #[must_use]
    pub fn of_user() -> Self {
        cache_folder().map_or_else(Self::default, |folder| Self::open(folder.join("timings.json")))
    }

    /// Those in a file. One that is absent or damaged counts as empty.
    #[must_use]
    pub fn open(file: PathBuf) -> Self {
        let by_key = read(&file).unwrap_or_default();
        Self { file: Some(file), by_key }
    }

    pub(super) fn get(&self, key: TimingKey) -> Option<f32> {
        self.by_key.get(&key).copied()
    }

    pub(super) fn put(&mut self, key: TimingKey, microseconds: f32) {
        self.by_key.insert(key, microseconds);
    }

    /// Writes them, with those that another build has written meanwhile. Failing to is no error: they are measured again
    /// then.
    pub fn save(&self) {
        let Some(file) = &self.file else { return };
        let mut all = read(file).unwrap_or_default();
        all.extend(&self.by_key);
        let microseconds = all.into_iter().map(|(key, value)| (format!("{:032x}", key.0), value)).collect();
        let _ = serde_json::to_vec(&Content { microseconds }).map(|json| replace(file, &json));
    }
}

fn read(file: &Path) -> Option<BTreeMap<TimingKey, f32>> {
    let content: Content = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    let entry = |(key, value): (String, f32)| {
        let key = TimingKey(u128::from_str_radix(&key, 16).ok()?);
        (value.is_finite() && value > 0.0).then_some((key, value))
    };
    content.microseconds.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [TimingKey; 3] = [TimingKey(1), TimingKey(2), TimingKey(u128::MAX)];

    #[test]
    fn timings_of_several_builds_come_together() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("made/here/timings.json");
        let [mut first, mut second] = [Timings::open(file.clone()), Timings::open(file.clone())];
        first.put(KEYS[0], 1.5);
        first.put(KEYS[1], 2.0);
        first.save();
        second.put(KEYS[1], 3.0);
        second.put(KEYS[2], 4.0);
        second.save();
        let read = Timings::open(file);
        assert_eq!(KEYS.map(|key| read.get(key)), [Some(1.5), Some(3.0), Some(4.0)]);
    }

    #[test]
    fn damaged_files_count_as_empty() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in ["", "{", "[]", r#"{"microseconds": {"zz": 1.0}}"#, r#"{"microseconds": {"01": -1.0}}"#] {
            std::fs::write(file.path(), text).unwrap();
            assert!(Timings::open(file.path().into()).by_key.is_empty(), "{text}");
        }
        Timings::default().save();
    }
}
