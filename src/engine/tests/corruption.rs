use std::fs::File;
use std::os::unix::fs::FileExt;

use super::*;
use crate::Status;

/// Changes a byte of the file in place and back.
fn with_byte(file: &File, bytes: &[u8], at: usize, byte: u8, check: impl FnOnce()) {
    file.write_all_at(&[byte], at as u64).expect("writes");
    check();
    file.write_all_at(&bytes[at..=at], at as u64).expect("writes");
}

fn open_for_writing(fixture: &Fixture) -> File {
    File::options().write(true).open(&fixture.path).expect("opens")
}

#[test]
fn every_flipped_bit_is_found_in_both_modes_and_in_memory() {
    let fixture = Fixture::new();
    let bytes = fixture.bytes();
    assert!(bytes.len() < 64 << 10, "small enough to try every bit");
    let file = open_for_writing(&fixture);
    let mut memory = bytes.clone();
    for at in 0..bytes.len() {
        let expected = match at {
            0..8 => Status::UnsupportedFormat,
            8..12 => Status::UnsupportedVersion,
            _ => Status::Corrupt,
        };
        for bit in 0..8 {
            with_byte(&file, &bytes, at, bytes[at] ^ 1 << bit, || {
                for mode in MODES {
                    let error = fixture.open(mode).expect_err("a flipped bit");
                    assert_eq!(error.status(), expected, "bit {bit} of byte {at}: {error}");
                }
            });
            memory[at] = bytes[at] ^ 1 << bit;
            assert_eq!(verify(&memory).expect_err("a flipped bit").status(), expected, "bit {bit} of byte {at}");
        }
        memory[at] = bytes[at];
    }
    let plan = verify(&memory).expect("whole again");
    for mode in MODES {
        assert_eq!(*fixture.open(mode).expect("whole again").plan(), plan);
    }
}

#[test]
fn every_truncation_is_found_in_both_modes() {
    let fixture = Fixture::new();
    let file = open_for_writing(&fixture);
    for length in (0..fixture.bytes().len() as u64).rev() {
        file.set_len(length).expect("truncates");
        for mode in MODES {
            let status = fixture.open(mode).expect_err("a truncated file").status();
            assert!(matches!(status, Status::Corrupt | Status::UnsupportedFormat), "{length} bytes: {status:?}");
        }
    }
}

#[test]
fn trailing_bytes_are_found() {
    let fixture = Fixture::new();
    let length = fixture.bytes().len() as u64;
    for more in [1, 63, 64, 4096] {
        open_for_writing(&fixture).set_len(length + more).expect("extends");
        assert_eq!(fixture.open(LoadMode::Read).expect_err("trailing bytes").status(), Status::Corrupt);
    }
}

#[test]
fn unverified_weights_are_the_callers_choice() {
    let fixture = Fixture::new();
    let bytes = fixture.bytes();
    with_byte(&open_for_writing(&fixture), &bytes, HEADER_BYTES, !bytes[HEADER_BYTES], || {
        for mode in MODES {
            let options = OpenOptions { mode, verify_weights: false };
            let engine = Engine::open_with(&fixture.path, options, &mut |_| ControlFlow::Continue(())).expect("opens");
            assert_eq!(engine.weight(0)[0], !bytes[HEADER_BYTES]);
        }
    });
}

#[test]
fn files_that_are_no_engines_are_named() {
    let fixture = Fixture::new();
    std::fs::write(&fixture.path, b"GGUF and so on").expect("writes");
    let error = fixture.open(LoadMode::Map).expect_err("no engine");
    assert_eq!(error.status(), Status::UnsupportedFormat);
    assert!(error.to_string().contains("small.engine"), "{error}");
    std::fs::remove_file(&fixture.path).expect("removes");
    assert_eq!(fixture.open(LoadMode::Map).expect_err("no file").status(), Status::NotFound);
    let directory = fixture.directory.path();
    let error = Engine::open(directory, LoadMode::Map, &mut |_| ControlFlow::Continue(())).expect_err("a directory");
    assert_eq!(error.status(), Status::UnsupportedFormat);
}
