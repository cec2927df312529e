//! The files of a checkpoint folder: finding its safetensors, reading what is small, refusing what is of another format.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::json::Entries;
use super::safetensors::Shard;
use crate::error::{Error, Result};

pub(super) const MIB: u64 = 1 << 20;
const INDEX: &str = "model.safetensors.index.json";

/// Opened safetensors, and the shard of each tensor.
pub(super) struct WeightFiles {
    pub(super) shards: Vec<Shard>,
    pub(super) index: HashMap<String, usize>,
}

impl WeightFiles {
    /// A checkpoint of one file.
    pub(super) fn single(shard: Shard) -> Self {
        let index = shard.tensors.keys().map(|name| (name.clone(), 0)).collect();
        Self { shards: vec![shard], index }
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: Entries<String>,
}

/// The folder's safetensors: by index, by the usual name, or the only one there is.
pub(super) fn weight_files(folder: &Path) -> Result<WeightFiles> {
    if let Some(json) = read_small(folder, INDEX, 64 * MIB)? {
        return sharded(folder, &json);
    }
    let single = folder.join("model.safetensors");
    let single = if single.is_file() { single } else { lone_safetensors(folder)? };
    Ok(WeightFiles::single(Shard::open(&single)?))
}

fn sharded(folder: &Path, json: &[u8]) -> Result<WeightFiles> {
    let invalid = |what: String, why: &str| Error::InvalidCheckpoint { what, why: why.into() };
    let index: Index = serde_json::from_slice(json)
        .map_err(|error| invalid(folder.join(INDEX).display().to_string(), &error.to_string()))?;
    let mut files: HashMap<&str, usize> = HashMap::new();
    let mut shards = Vec::new();
    let mut tensors = HashMap::new();
    for (tensor, file) in &index.weight_map.0 {
        let shard = match files.get(file.as_str()) {
            Some(shard) => *shard,
            None => {
                if !is_plain_name(file) {
                    return Err(invalid(format!("{INDEX}: shard `{file}`"), "it is not a plain file name"));
                }
                if !folder.join(file).is_file() {
                    let why = format!("{INDEX} says it is in {file}, which is not there");
                    return Err(invalid(format!("tensor `{tensor}`"), &why));
                }
                shards.push(Shard::open(&folder.join(file))?);
                files.insert(file, shards.len() - 1);
                shards.len() - 1
            }
        };
        if !shards[shard].tensors.contains_key(tensor) {
            let what = format!("tensor `{tensor}`");
            return Err(invalid(what, &format!("{INDEX} says it is in {file}, which does not hold it")));
        }
        tensors.insert(tensor.clone(), shard);
    }
    refuse_duplicates(&shards)?;
    Ok(WeightFiles { shards, index: tensors })
}

fn refuse_duplicates(shards: &[Shard]) -> Result<()> {
    let mut seen: HashMap<&str, &Shard> = HashMap::new();
    for shard in shards {
        for name in shard.tensors.keys() {
            if let Some(other) = seen.insert(name, shard) {
                let why = format!("it is in {} and in {}", other.path().display(), shard.path().display());
                return Err(Error::InvalidCheckpoint { what: format!("tensor `{name}`"), why });
            }
        }
    }
    Ok(())
}

fn is_plain_name(name: &str) -> bool {
    let path = Path::new(name);
    path.file_name().is_some_and(|file| file == path.as_os_str()) && !name.contains(['/', '\\', '\0'])
}

/// The only `*.safetensors` of a folder, or an error that names what is there instead.
fn lone_safetensors(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).map_err(|error| Error::io(folder.display().to_string(), &error))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let mut of_ours = files.iter().filter(|path| extension(path) == "safetensors");
    match (of_ours.next(), of_ours.next()) {
        (Some(only), None) => return Ok(only.clone()),
        (Some(_), Some(_)) => {
            let why = format!("several safetensors files and no {INDEX}");
            return Err(Error::InvalidCheckpoint { what: folder.display().to_string(), why });
        }
        (None, _) => {}
    }
    match files.iter().find_map(|path| foreign_format(path).map(|format| (path, format))) {
        Some((path, format)) => Err(unsupported(path, format)),
        None => Err(Error::NotFound {
            what: folder.join("model.safetensors").display().to_string(),
            why: "the folder holds no weights".into(),
        }),
    }
}

pub(super) fn refuse_file(path: &Path) -> Error {
    match foreign_format(path) {
        Some(format) => unsupported(path, format),
        None => Error::UnsupportedFormat {
            what: path.display().to_string(),
            why: "a checkpoint is a folder with config.json and safetensors".into(),
        },
    }
}

fn unsupported(path: &Path, format: &str) -> Error {
    let why = format!("this is a {format} file; safetensors are read");
    Error::UnsupportedFormat { what: path.display().to_string(), why }
}

/// What a file that is no safetensors is called, when it looks like weights.
fn foreign_format(path: &Path) -> Option<&'static str> {
    let mut magic = [0; 4];
    let is_gguf = path.is_file()
        && File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && magic == *b"GGUF";
    match extension(path).as_str() {
        _ if is_gguf => Some("GGUF"),
        "gguf" => Some("GGUF"),
        "bin" | "pt" | "pth" => Some("PyTorch pickle"),
        _ => None,
    }
}

fn extension(path: &Path) -> String {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase()
}

/// A small file of the folder; `None` when it is not there.
pub(super) fn read_small(folder: &Path, name: &str, cap: u64) -> Result<Option<Vec<u8>>> {
    let path = folder.join(name);
    let io = |error: std::io::Error| Error::io(path.display().to_string(), &error);
    let kind = match std::fs::metadata(&path) {
        Ok(kind) => kind,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let invalid = |why: String| Error::InvalidCheckpoint { what: path.display().to_string(), why };
    if !kind.is_file() {
        return Err(invalid("it is not a regular file".into()));
    }
    let mut content = Vec::new();
    File::open(&path).map_err(io)?.take(cap + 1).read_to_end(&mut content).map_err(io)?;
    match content.len() as u64 <= cap {
        true => Ok(Some(content)),
        false => Err(invalid(format!("it is larger than {cap} bytes"))),
    }
}
