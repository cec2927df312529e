//! One safetensors file, mapped or in memory. Its header is checked in full before a byte of a tensor is touched, with errors that name
//! the tensor (the crate's own reader names none and keeps the last of two tensors of one name).

use std::collections::HashMap;
use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Deserialize;

use super::json::Entries;
use crate::error::{Error, Result};

const MOST_HEADER_BYTES: u64 = 100 << 20;

/// A tensor's place in its file.
#[derive(Debug, Clone)]
pub(super) struct Tensor {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Start and end in the file.
    start: usize,
    end: usize,
}

/// The bytes of a file.
#[derive(Debug)]
enum Content {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Content::Mapped(map) => map,
            Content::Owned(bytes) => bytes,
        }
    }
}

/// A file and its tensors.
#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    content: Content,
    pub(super) tensors: HashMap<String, Tensor>,
}

/// An entry of the header: a tensor, or the free text under `__metadata__`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Tensor(TensorInfo),
    Metadata(serde::de::IgnoredAny),
}

impl Shard {
    /// # Errors
    /// `Io`, `NotFound`; `UnsupportedFormat` for a GGUF in disguise; `InvalidCheckpoint` naming the file and the tensor.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io(path.display().to_string(), &error))?;
        // SAFETY: the mapping is read-only; as with every mapped file, whoever truncates a checkpoint while it is being
        // read stops the reader.
        let map =
            unsafe { Mmap::map(&file) }.map_err(|error| Error::io(format!("{} (map)", path.display()), &error))?;
        Self::parse(path, Content::Mapped(map))
    }

    /// As [`Shard::open`], of a file whose bytes are here; errors call it `path`.
    pub(super) fn in_memory(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        Self::parse(path, Content::Owned(bytes))
    }

    fn parse(path: &Path, content: Content) -> Result<Self> {
        let name = path.display().to_string();
        if content.starts_with(b"GGUF") {
            return Err(Error::UnsupportedFormat { what: name, why: "this is a GGUF file, not safetensors".into() });
        }
        let tensors = parse(&content).map_err(|(tensor, why)| match tensor {
            Some(tensor) => Error::InvalidCheckpoint { what: format!("{name}: tensor `{tensor}`"), why },
            None => Error::InvalidCheckpoint { what: name, why },
        })?;
        Ok(Self { path: path.to_path_buf(), content, tensors })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The tensor's bytes: as many as its shape and dtype need.
    pub(super) fn bytes(&self, tensor: &Tensor) -> &[u8] {
        &self.content[tensor.start..tensor.end]
    }
}

/// The culprit, when it is one tensor, and the reason.
type Fault = (Option<String>, String);

/// The tensors of a file, which lie side by side and fill it.
fn parse(file: &[u8]) -> Result<HashMap<String, Tensor>, Fault> {
    let (entries, data) = header(file)?;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        match entry {
            Entry::Metadata(_) if name == "__metadata__" => {}
            Entry::Metadata(_) => return Err((Some(name), "its entry lacks dtype, shape or data_offsets".into())),
            Entry::Tensor(info) => {
                let tensor = place(info, data, file.len()).map_err(|why| (Some(name.clone()), why))?;
                tensors.push((name, tensor));
            }
        }
    }
    tensors.sort_by_key(|(_, tensor)| (tensor.start, tensor.end));
    let mut end = data;
    for (name, tensor) in &tensors {
        if tensor.start != end {
            let fault =
                if tensor.start < end { "it overlaps the tensor before it" } else { "there is a hole before it" };
            return Err((Some(name.clone()), fault.into()));
        }
        end = tensor.end;
    }
    match end == file.len() {
        true => Ok(tensors.into_iter().collect()),
        false => Err((None, format!("{} bytes follow the last tensor", file.len() - end))),
    }
}

/// Header entries, and where the data begins.
fn header(file: &[u8]) -> Result<(Vec<(String, Entry)>, usize), Fault> {
    let truncated = || (None, "the file is too short for its header".to_string());
    let (length, rest) = file.split_first_chunk::<8>().ok_or_else(truncated)?;
    let length = u64::from_le_bytes(*length);
    if length > MOST_HEADER_BYTES {
        return Err((None, format!("its header claims {length} bytes; at most {MOST_HEADER_BYTES} are read")));
    }
    let json = rest.get(..length as usize).ok_or_else(truncated)?;
    let Entries(entries) =
        serde_json::from_slice(json).map_err(|error| (None, format!("its header does not parse: {error}")))?;
    Ok((entries, 8 + length as usize))
}

fn place(info: TensorInfo, data: usize, file_bytes: usize) -> Result<Tensor, String> {
    let TensorInfo { dtype, shape, data_offsets: (start, end) } = info;
    let at = |offset: usize| data.checked_add(offset).filter(|at| *at <= file_bytes);
    let (Some(start), Some(end)) = (at(start), at(end)) else {
        return Err(format!("its data [{start}, {end}] ends outside the file"));
    };
    let bits = shape.iter().try_fold(dtype.bitsize(), |bits, extent| bits.checked_mul(*extent));
    let Some(bits) = bits else {
        return Err(format!("the size of shape {shape:?} overflows"));
    };
    match end.checked_sub(start) == Some(bits / 8) && bits % 8 == 0 {
        true => Ok(Tensor { dtype, shape, start, end }),
        false => Err(format!("shape {shape:?} of {dtype} needs {bits} bits, its data is [{start}, {end}] in the file")),
    }
}
