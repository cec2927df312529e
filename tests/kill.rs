//! A build that is killed or runs out of room leaves the old engine or the new one, whole, and in the end nothing else.

mod common;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Random, engine_file, rerun, tests_path};
use trtllm::builder::{self, BuildOptions, Source};
use trtllm::engine::{Engine, LoadMode, Precision};
use trtllm::error::{Error, Result};

const KILLS: usize = 25;
/// In a child: the engine file to build again and again.
const BUILDER: &str = "TRTLLM_KILL_TARGET";
/// In a child: the engine file to build once with no room for it.
const CRAMPED: &str = "TRTLLM_CRAMPED_TARGET";
/// Room for some of the bf16 engine, and less than all of it.
const ROOM: u64 = 3 << 20;

fn build(path: &Path, precision: Precision) -> Result<()> {
    let options = BuildOptions { precision: Some(precision), ..BuildOptions::default() };
    let source = Source::Checkpoint(tests_path("models/tiny"));
    builder::build(&source, path, &options, &mut |_, _| ControlFlow::Continue(()))
}

/// Opens with every checksum verified.
fn open(path: &Path) -> Engine {
    Engine::open(path, LoadMode::Read, &mut |_| ControlFlow::Continue(())).expect("the engine is whole")
}

fn others(folder: &Path, target: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    entries.map(|entry| entry.expect("it is read").path()).filter(|path| path != target).collect()
}

/// A child that builds until it is killed, and has begun.
fn start_building(test: &str, target: &Path) -> Child {
    let mut command = rerun(test, BUILDER, target.as_os_str());
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the child starts");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    assert!(lines.map_while(std::io::Result::ok).any(|line| line.contains("begun")), "the child ended at once");
    child
}

fn build_for_ever(target: &OsStr) -> ! {
    println!("\nbegun");
    loop {
        for precision in [Precision::F32, Precision::Bf16] {
            build(Path::new(target), precision).expect("nothing hinders the build");
        }
    }
}

#[test]
fn a_killed_build_leaves_the_old_engine_or_the_new_one() {
    if let Some(target) = std::env::var_os(BUILDER) {
        build_for_ever(&target);
    }
    let references = tempfile::tempdir().expect("a temporary folder");
    let wanted = [Precision::F32, Precision::Bf16]
        .map(|precision| std::fs::read(engine_file(references.path(), precision)).expect("it was just built"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = folder.path().join("model.engine");
    build(&target, Precision::Bf16).expect("the checkpoint builds");
    let mut random = Random(11);
    let (mut found, mut interrupted) = ([0; 2], HashSet::new());
    for _ in 0..KILLS {
        let mut child = start_building("a_killed_build_leaves_the_old_engine_or_the_new_one", &target);
        std::thread::sleep(Duration::from_micros(random.within(0..150_000) as u64));
        child.kill().expect("it runs");
        child.wait().expect("it was killed");
        let bytes = std::fs::read(&target).expect("the engine is there");
        let which = wanted.iter().position(|wanted| *wanted == bytes).expect("one of the two engines, byte by byte");
        assert_eq!(open(&target).plan().precision, [Precision::F32, Precision::Bf16][which]);
        found[which] += 1;
        interrupted.extend(others(folder.path(), &target));
    }
    let interrupted = interrupted.len();
    println!("{KILLS} kills: f32 / bf16 found {found:?}, {interrupted} left a temporary file");
    assert!(interrupted > 0, "no kill ever hit a build");
    build(&target, Precision::F32).expect("the checkpoint builds");
    assert_eq!(others(folder.path(), &target), [] as [PathBuf; 0]);
}

#[test]
fn temporary_files_of_living_builds_and_other_targets_stay() {
    if let Some(target) = std::env::var_os(BUILDER) {
        build_for_ever(&target);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = folder.path().join("model.engine");
    let kept = [".other.engine.1-0.tmp", ".model.engine.tmp", ".model.engine.1-x.tmp", "model.engine.1-0.tmp"];
    kept.iter().for_each(|name| std::fs::write(folder.path().join(name), b"mine").expect("it is written"));
    std::fs::write(folder.path().join(".model.engine.1-0.tmp"), b"stale").expect("it is written");
    // Two processes build the same target at once: neither takes the other's file away.
    let mut child = start_building("temporary_files_of_living_builds_and_other_targets_stay", &target);
    for _ in 0..20 {
        build(&target, Precision::F32).expect("the other build does not disturb this one");
    }
    assert_eq!(child.try_wait().expect("it is our child"), None, "this build disturbed the other one");
    child.kill().expect("it runs");
    child.wait().expect("it was killed");
    build(&target, Precision::F32).expect("the checkpoint builds");
    let mut left = others(folder.path(), &target);
    left.sort();
    let mut kept = kept.map(|name| folder.path().join(name));
    kept.sort();
    assert_eq!(left, kept);
}

/// A file size limit in a child: a full disk that needs no privileges (`EFBIG`).
#[test]
fn a_write_that_fails_keeps_the_old_engine() {
    if let Some(target) = std::env::var_os(CRAMPED) {
        limit_file_size();
        return assert_fails(Path::new(&target));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = engine_file(folder.path(), Precision::F32);
    let before = std::fs::read(&target).expect("it was just built");
    let mut child = rerun("a_write_that_fails_keeps_the_old_engine", CRAMPED, target.as_os_str());
    let output = child.output().expect("the child runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read(&target).expect("it is there") == before);
    assert_eq!(others(folder.path(), &target), [] as [PathBuf; 0]);
}

/// A small tmpfs that fills up (`ENOSPC`), where this process may mount one; elsewhere the test above is all there is.
#[test]
fn a_full_disk_keeps_what_is_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(_mounted) = Mounted::tmpfs(folder.path()) else {
        println!("this process may not mount a tmpfs; only the file size limit was tested");
        return;
    };
    let target = folder.path().join("model.engine");
    // The old file need not be an engine to be replaced, or kept.
    std::fs::write(&target, b"what was there").expect("it is small");
    assert_fails(&target);
    assert_eq!(std::fs::read(&target).expect("it is there"), b"what was there");
    assert_eq!(others(folder.path(), &target), [] as [PathBuf; 0]);
}

fn assert_fails(target: &Path) {
    for _ in 0..3 {
        let error = build(target, Precision::Bf16).expect_err("there is no room");
        let name = target.file_name().expect("a file").to_string_lossy().into_owned();
        assert!(matches!(&error, Error::Io { what, .. } if what.contains(&name) && what.contains("write")), "{error}");
    }
}

fn limit_file_size() {
    let limit = libc::rlimit { rlim_cur: ROOM, rlim_max: ROOM };
    // SAFETY: `limit` is alive; ignoring the signal is what turns the limit into an error of `write`.
    let (limited, before) =
        unsafe { (libc::setrlimit(libc::RLIMIT_FSIZE, &limit), libc::signal(libc::SIGXFSZ, libc::SIG_IGN)) };
    assert!(limited == 0 && before != libc::SIG_ERR);
}

/// A mounted tmpfs; unmounted on drop.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn tmpfs(folder: &'a Path) -> Option<Self> {
        let size = format!("size={ROOM}");
        let arguments = [OsStr::new("-t"), OsStr::new("tmpfs"), OsStr::new("-o"), OsStr::new(&size)];
        let mut mount = Command::new("mount");
        mount.args(arguments).arg("tmpfs").arg(folder);
        let done = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        done.then_some(Self(folder))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(self.0).status().is_ok_and(|status| status.success());
        assert!(done || std::thread::panicking(), "the tmpfs is still mounted");
    }
}
