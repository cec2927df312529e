use std::cell::Cell;
use std::io;
use std::rc::Rc;

use super::*;
use crate::error::Error;

/// The disk, whose `fail_at`-th operation fails; with `short`, every write takes a few bytes only.
struct Failing {
    operations: Rc<Cell<usize>>,
    fail_at: usize,
    /// Every later operation fails too.
    forever: bool,
    short: bool,
    error: i32,
}

struct FailingFile {
    file: Box<dyn StoredFile>,
    storage: Failing,
}

impl Failing {
    fn new(fail_at: usize, forever: bool, error: i32) -> Self {
        Self { operations: Rc::default(), fail_at, forever, short: false, error }
    }

    fn share(&self) -> Self {
        Self { operations: self.operations.clone(), ..*self }
    }

    fn count(&self) -> io::Result<()> {
        let operation = self.operations.get();
        self.operations.set(operation + 1);
        match operation == self.fail_at || self.forever && operation > self.fail_at {
            true => Err(io::Error::from_raw_os_error(self.error)),
            false => Ok(()),
        }
    }
}

impl Storage for Failing {
    fn create(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        self.count()?;
        Ok(Box::new(FailingFile { file: Disk.create(path)?, storage: self.share() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.count()?;
        Disk.rename(from, to)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.count()?;
        Disk.sync_directory(directory)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }
}

impl StoredFile for FailingFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.storage.count()?;
        let length = if self.storage.short { bytes.len().min(1000) } else { bytes.len() };
        self.file.write_at(&bytes[..length], offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.storage.count()?;
        self.file.sync()
    }
}

fn files(fixture: &Fixture) -> usize {
    std::fs::read_dir(fixture.directory.path()).expect("lists").count()
}

#[test]
fn a_failure_at_any_operation_leaves_the_old_file_and_nothing_else() {
    let counted = Failing::new(usize::MAX, false, 0);
    write_on(&counted, &Fixture::new().path, &small_plan()).expect("nothing fails");
    let operations = counted.operations.get();
    assert!(operations >= 5, "create, write, sync, rename, sync");
    for (fail_at, error, forever) in (0..operations)
        .flat_map(|at| [libc::ENOSPC, libc::EIO].map(|error| (at, error)))
        .flat_map(|(at, error)| [false, true].map(|forever| (at, error, forever)))
    {
        let fixture = Fixture::new();
        std::fs::write(&fixture.path, "old").expect("writes");
        let error = write_on(&Failing::new(fail_at, forever, error), &fixture.path, &small_plan()).expect_err("fails");
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert!(error.to_string().contains(&*fixture.directory.path().to_string_lossy()), "{error}");
        assert_eq!(files(&fixture), 1, "no temporary file");
        let renamed = fail_at == operations - 1;
        match renamed {
            true => drop(fixture.open(LoadMode::Read).expect("the new file is whole")),
            false => assert_eq!(fixture.bytes(), b"old"),
        }
    }
}

#[test]
fn short_and_interrupted_writes_are_continued() {
    let fixture = Fixture::new();
    let whole = fixture.bytes();
    let mut storage = Failing::new(3, false, libc::EINTR);
    storage.short = true;
    write_on(&storage, &fixture.path, &small_plan()).expect("writes in small pieces");
    assert!(storage.operations.get() > 10);
    assert_eq!(fixture.bytes(), whole);
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let fixture = Fixture::new();
    let whole = fixture.bytes();
    let mut writer = EngineWriter::create(&fixture.path).expect("creates");
    writer.begin_weight(Packing::RowMajor).expect("begins");
    assert_eq!(files(&fixture), 2);
    drop(writer);
    assert_eq!((files(&fixture), fixture.bytes()), (1, whole));
}

#[test]
fn an_impossible_path_is_named() {
    let fixture = Fixture::new();
    let missing = fixture.directory.path().join("missing").join("x.engine");
    let error = EngineWriter::create(&missing).err().expect("no such directory");
    assert!(matches!(&error, Error::NotFound { what, .. } if what.contains("missing")), "{error}");
    let error = EngineWriter::create(fixture.directory.path()).err().expect("a directory");
    assert!(matches!(error, Error::InvalidArgument { .. }));
}
