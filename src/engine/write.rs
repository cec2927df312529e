//! Writes an engine: weights as they come, then the small sections, then the header; all under a temporary name that
//! takes the final name in one step, so that a reader finds the old file or the new one and nothing in between.

use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::format::{HEADER_BYTES, Header, Section, SectionKind};
use super::leftover::{directory_of, temporary_name};
use super::storage::{Disk, Storage, StoredFile};
use super::{Packing, Plan};
use crate::error::{Error, Result};

const BUFFER_BYTES: usize = 4 << 20;

/// Where a finished weight lies in the weight section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    pub offset: u64,
    pub bytes: u64,
    /// As [`super::WeightSpec::checksum`] wants it.
    pub checksum: String,
}

/// A small section's kind and content.
pub type Text<'a> = (SectionKind, &'a [u8]);

/// An engine file being written. Dropped before [`EngineWriter::finish`], it leaves nothing behind.
pub struct EngineWriter<'s> {
    storage: &'s dyn Storage,
    file: Box<dyn StoredFile>,
    path: PathBuf,
    temporary: Temporary<'s>,
    buffer: Vec<u8>,
    /// Bytes that left the buffer.
    flushed: u64,
    weight: Option<(u64, Xxh3)>,
}

impl EngineWriter<'static> {
    /// Starts an engine that will replace `path`.
    ///
    /// # Errors
    /// `Io` or `NotFound` naming the path when the temporary file beside it cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        Self::create_on(&Disk, path)
    }
}

impl<'s> EngineWriter<'s> {
    /// As [`EngineWriter::create`], on any storage.
    pub fn create_on(storage: &'s dyn Storage, path: &Path) -> Result<Self> {
        let temporary = temporary_name(path)?;
        let file = storage.create(&temporary).map_err(|error| io_error(&temporary, "create", &error))?;
        let temporary = Temporary { storage, path: temporary, armed: true };
        let mut writer = Self {
            storage,
            file,
            path: path.to_path_buf(),
            temporary,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            flushed: 0,
            weight: None,
        };
        writer.put(&[0; HEADER_BYTES])?;
        Ok(writer)
    }

    /// Starts the next weight at the alignment of its packing.
    pub fn begin_weight(&mut self, packing: Packing) -> Result<()> {
        self.pad_to(packing.alignment())?;
        self.weight = Some((self.position(), Xxh3::new()));
        Ok(())
    }

    /// Appends packed bytes to the weight begun last.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some((_, hash)) = &mut self.weight {
            hash.update(bytes);
        }
        self.put(bytes)
    }

    /// Ends the weight begun last and says where it lies.
    ///
    /// # Errors
    /// `Internal` when no weight was begun.
    pub fn end_weight(&mut self) -> Result<Placement> {
        let (start, hash) =
            self.weight.take().ok_or_else(|| Error::internal("engine writer", "no weight was begun"))?;
        Ok(Placement {
            offset: start - HEADER_BYTES as u64,
            bytes: self.position() - start,
            checksum: format!("{:016x}", hash.digest()),
        })
    }

    /// Writes the plan, the texts and the header, makes the file durable and gives it its name.
    ///
    /// # Errors
    /// `Io` naming path and operation; the file that was there before is then untouched (unless the last step alone,
    /// syncing the directory, failed).
    pub fn finish(mut self, plan: &Plan, texts: &[Text<'_>]) -> Result<()> {
        let start = HEADER_BYTES as u64;
        let weights =
            Section { kind: SectionKind::Weights, offset: start, bytes: self.position() - start, checksum: 0 };
        let plan_json = serde_json::to_vec(plan).map_err(|error| Error::internal("plan", error.to_string()))?;
        let mut sections = vec![weights, self.put_section(SectionKind::Plan, &plan_json)?];
        for (kind, content) in texts {
            sections.push(self.put_section(*kind, content)?);
        }
        self.flush()?;
        let header = Header { target: plan.target, sections };
        self.write_all_at(&header.encode(), 0)?;
        self.file.sync().map_err(|error| self.error("sync", &error))?;
        self.publish()
    }

    fn publish(mut self) -> Result<()> {
        self.storage
            .rename(&self.temporary.path, &self.path)
            .map_err(|error| io_error(&self.path, "rename", &error))?;
        self.temporary.armed = false;
        self.storage.remove_leftovers(&self.path);
        let directory = directory_of(&self.path);
        self.storage.sync_directory(directory).map_err(|error| io_error(directory, "sync", &error))
    }

    fn put_section(&mut self, kind: SectionKind, content: &[u8]) -> Result<Section> {
        if kind.cap().is_some_and(|cap| content.len() as u64 > cap) {
            let why = format!("{} bytes are more than an engine holds", content.len());
            return Err(Error::Unsupported { what: kind.name().into(), why });
        }
        self.pad_to(kind.alignment())?;
        let offset = self.position();
        self.put(content)?;
        Ok(Section { kind, offset, bytes: content.len() as u64, checksum: xxh3_64(content) })
    }

    fn position(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    fn pad_to(&mut self, alignment: u64) -> Result<()> {
        let position = self.position();
        let padding = position.next_multiple_of(alignment) - position;
        self.put(&[0; 4096][..padding as usize])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() >= BUFFER_BYTES {
            self.write_all_at(bytes, self.flushed)?;
            self.flushed += bytes.len() as u64;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        self.write_all_at(&buffer, self.flushed)?;
        self.flushed += buffer.len() as u64;
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    fn write_all_at(&mut self, mut bytes: &[u8], mut offset: u64) -> Result<()> {
        while !bytes.is_empty() {
            match self.file.write_at(bytes, offset) {
                Ok(0) => return Err(self.error("write", &io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    bytes = &bytes[count.min(bytes.len())..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error("write", &error)),
            }
        }
        Ok(())
    }

    fn error(&self, operation: &str, error: &io::Error) -> Error {
        io_error(&self.temporary.path, operation, error)
    }
}

/// The temporary file; removed on drop unless it got its final name.
struct Temporary<'s> {
    storage: &'s dyn Storage,
    path: PathBuf,
    armed: bool,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if self.armed {
            // The error that brought us here is the one to report.
            let _ = self.storage.remove(&self.path);
        }
    }
}

fn io_error(path: &Path, operation: &str, error: &io::Error) -> Error {
    Error::io(format!("{} ({operation})", path.display()), error)
}
