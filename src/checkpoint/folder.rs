//! A Hugging Face folder: its small files read, its safetensors mapped.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;

use super::convert::convert_block;
use super::files::{MIB, WeightFiles, read_small, refuse_file, weight_files};
use super::safetensors::{Shard, Tensor};
use super::scales::{SUFFIXES, apply, scales};
use super::source::{Scales, WeightSource, matrix};
use crate::error::{Error, Result};
use crate::types::DType;

/// An opened checkpoint. Small files are in memory, tensors are mapped until the folder is dropped.
#[derive(Debug)]
pub struct Folder {
    pub config: Vec<u8>,
    pub generation_config: Option<Vec<u8>>,
    pub tokenizer: Option<Vec<u8>>,
    pub tokenizer_config: Option<Vec<u8>>,
    pub chat_template: Option<Vec<u8>>,
    shards: Vec<Shard>,
    /// Shard of each tensor.
    tensors: HashMap<String, usize>,
    /// Of quantised tensors.
    scales: HashMap<String, Scales>,
}

impl Folder {
    /// Opens a folder, or refuses a file of another format by name.
    ///
    /// # Errors
    /// `NotFound`, `Io`; `UnsupportedFormat` naming a GGUF or pickle file; `InvalidCheckpoint` naming file and tensor when
    /// the safetensors contradict themselves, each other or their index, or when a small file is larger than its cap.
    pub fn open(path: &Path) -> Result<Self> {
        let kind = std::fs::metadata(path).map_err(|error| Error::io(path.display().to_string(), &error))?;
        if !kind.is_dir() {
            return Err(refuse_file(path));
        }
        let required = |name: &str| Error::NotFound {
            what: path.join(name).display().to_string(),
            why: "a checkpoint folder needs it".into(),
        };
        let weights = weight_files(path)?;
        let folder = Self {
            config: read_small(path, "config.json", 4 * MIB)?.ok_or_else(|| required("config.json"))?,
            generation_config: read_small(path, "generation_config.json", 4 * MIB)?,
            tokenizer: read_small(path, "tokenizer.json", 64 * MIB)?,
            tokenizer_config: read_small(path, "tokenizer_config.json", 4 * MIB)?,
            chat_template: read_small(path, "chat_template.jinja", MIB / 4)?,
            tensors: weights.index,
            shards: weights.shards,
            scales: HashMap::new(),
        };
        folder.with_scales()
    }

    /// A checkpoint of `config.json` and one safetensors file, both in memory.
    ///
    /// # Errors
    /// As [`Folder::open`], for what is in the files.
    pub fn in_memory(config: Vec<u8>, safetensors: Vec<u8>) -> Result<Self> {
        let weights = WeightFiles::single(Shard::in_memory(Path::new("model.safetensors"), safetensors)?);
        let folder = Self {
            config,
            generation_config: None,
            tokenizer: None,
            tokenizer_config: None,
            chat_template: None,
            tensors: weights.index,
            shards: weights.shards,
            scales: HashMap::new(),
        };
        folder.with_scales()
    }

    /// Names and shapes of all tensors, in no order.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().filter_map(|(name, shard)| {
            let tensor = self.shards[*shard].tensors.get(name)?;
            Some((name.as_str(), tensor.shape.as_slice()))
        })
    }

    fn tensor(&self, name: &str) -> Option<(&Shard, &Tensor)> {
        let shard = &self.shards[*self.tensors.get(name)?];
        Some((shard, shard.tensors.get(name)?))
    }
}

impl WeightSource for Folder {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensor(name).map(|(_, tensor)| tensor.shape.clone())
    }

    /// The type that holds the most elements.
    fn dtype(&self) -> Option<DType> {
        let mut elements = [DType::F32, DType::F16, DType::BF16, DType::E4M3].map(|dtype| (dtype, 0));
        for tensor in self.shards.iter().flat_map(|shard| shard.tensors.values()) {
            let entry = elements.iter_mut().find(|(dtype, _)| Some(*dtype) == float(tensor.dtype));
            if let Some((_, count)) = entry {
                *count += tensor.shape.iter().product::<usize>();
            }
        }
        elements.into_iter().filter(|(_, count)| *count > 0).max_by_key(|(_, count)| *count).map(|(dtype, _)| dtype)
    }

    fn scales(&self, name: &str) -> Option<&Scales> {
        self.scales.get(name)
    }

    fn codes(&self, name: &str, rows: Range<usize>, columns: Range<usize>, out: &mut [u8]) -> Result<()> {
        let (bytes, width) = self.block(name, &rows, &columns, out.len())?;
        if !self.scales.contains_key(name) {
            return Err(invalid_tensor(name, "it is not quantised"));
        }
        for (row, out) in rows.zip(out.chunks_exact_mut(columns.len().max(1))) {
            out.copy_from_slice(&bytes[row * width..][columns.clone()]);
        }
        Ok(())
    }

    fn read(&self, name: &str, rows: Range<usize>, columns: Range<usize>, out: &mut [f32]) -> Result<()> {
        let (bytes, width) = self.block(name, &rows, &columns, out.len())?;
        let dtype = self.tensor(name).map(|(_, tensor)| tensor.dtype);
        let (dtype, scales) = match (dtype.and_then(float), self.scales.get(name)) {
            (Some(DType::E4M3), None) => return Err(invalid_tensor(name, "it is F8_E4M3 and its scales are missing")),
            (Some(dtype), scales) => (dtype, scales),
            (None, _) => {
                let what =
                    format!("tensor `{name}` of type {}", dtype.map_or(String::new(), |dtype| dtype.to_string()));
                return Err(Error::Unsupported { what, why: "F32, F16, BF16 and F8_E4M3 are read".into() });
            }
        };
        convert_block(bytes, dtype, width, rows.clone(), columns.clone(), out);
        if let Some(scales) = scales {
            apply(scales, width, rows, columns, out);
        }
        Ok(())
    }
}

impl Folder {
    /// The bytes and the width of a tensor that holds a block of `elements` elements.
    fn block(
        &self,
        name: &str,
        rows: &Range<usize>,
        columns: &Range<usize>,
        elements: usize,
    ) -> Result<(&[u8], usize)> {
        let (shard, tensor) = self.tensor(name).ok_or_else(|| invalid_tensor(name, "it is missing"))?;
        let (height, width) = matrix(&tensor.shape);
        if rows.start > rows.end || rows.end > height || columns.start > columns.end || columns.end > width {
            let why = format!("rows {rows:?} and columns {columns:?} are not in shape {:?}", tensor.shape);
            return Err(invalid_tensor(name, &why));
        }
        match elements == rows.len() * columns.len() {
            true => Ok((shard.bytes(tensor), width)),
            false => Err(Error::argument("out", format!("{elements} elements for {rows:?} x {columns:?}"))),
        }
    }

    /// Finds the scales of every tensor of e4m3 codes that has some.
    fn with_scales(mut self) -> Result<Self> {
        let mut found = HashMap::new();
        for (name, shape) in self.tensors() {
            let codes = self.tensor(name).is_some_and(|(_, tensor)| tensor.dtype == Dtype::F8_E4M3);
            let of =
                SUFFIXES.iter().map(|suffix| format!("{name}{suffix}")).find(|name| self.tensors.contains_key(name));
            let (true, Some(of), false) = (codes, of, shape.contains(&0)) else { continue };
            let scale_shape = self.shape(&of).unwrap_or_default();
            let (rows, columns) = matrix(&scale_shape);
            let mut values = vec![0.0; rows * columns];
            self.read(&of, 0..rows, 0..columns, &mut values)?;
            let scales = scales(shape, &scale_shape, &values).map_err(|why| invalid_tensor(name, &why))?;
            found.insert(name.to_string(), scales);
        }
        self.scales = found;
        Ok(self)
    }
}

fn invalid_tensor(name: &str, why: &str) -> Error {
    Error::InvalidCheckpoint { what: format!("tensor `{name}`"), why: why.into() }
}

fn float(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::F8_E4M3 => Some(DType::E4M3),
        _ => None,
    }
}
