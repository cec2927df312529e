//! The few file operations an engine is written with; tests put a failing storage in place of the disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::leftover;

/// A place where files are created and renamed.
pub trait Storage {
    /// A new file open for writing; it is an error if the path exists.
    fn create(&self, path: &Path) -> io::Result<Box<dyn StoredFile>>;
    /// Puts `from` in the place of `to` in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes renames within the directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes the temporary files of writers of `path` that died, where the storage can tell; failing to is no error.
    fn remove_leftovers(&self, _path: &Path) {}
}

/// A file being written.
pub trait StoredFile {
    /// Writes some of `bytes` at `offset` and returns how many.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes everything written so far durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl Storage for Disk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        loop {
            let file = OpenOptions::new().write(true).create_new(true).open(path)?;
            // The lock tells others that the writer lives. Where files cannot be locked, nobody removes leftovers. Whoever
            // was faster took the file for one and has removed it.
            if file.lock().is_err() || file.metadata()?.nlink() > 0 {
                return Ok(Box::new(file));
            }
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_leftovers(&self, path: &Path) {
        leftover::remove(path);
    }
}

impl StoredFile for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}
