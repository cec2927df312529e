//! Structs that grow: a config carries its size in its first field, a result is passed with the caller's size of it.

use std::mem::MaybeUninit;
use std::slice;

use super::argument::check_pointer;
use crate::error::{Error, Result};

/// Larger than any struct will ever be: whoever passes such a size passed something else.
const MAX_SIZE: usize = 64 << 10;

/// A C struct that later versions extend at its end.
///
/// # Safety
/// `repr(C)` without padding, valid for every bit pattern.
pub(super) unsafe trait Growing: Copy + 'static {
    /// Its size in the first version that had it.
    const OLDEST_SIZE: usize;
}

/// A [`Growing`] struct that callers fill; its first field is `struct_size`.
///
/// # Safety
/// The first field is a `usize`, and its default is the size of the struct.
pub(super) unsafe trait Config: Growing + Default {}

/// The caller's config over the defaults; NULL is the defaults.
///
/// # Errors
/// A size that no version has, or a non-zero field that this version does not know.
///
/// # Safety
/// `pointer` is NULL or valid for reading as many bytes as its first field says.
pub(super) unsafe fn read<T: Config>(pointer: *const T, what: &str) -> Result<T> {
    if pointer.is_null() {
        return Ok(T::default());
    }
    check_pointer(pointer, what)?;
    // SAFETY: a config begins with its size.
    let size = unsafe { pointer.cast::<usize>().read() };
    check_size::<T>(size, &format!("{what}.struct_size"))?;
    let known = size.min(size_of::<T>());
    // SAFETY: the caller's struct has `size` bytes.
    let tail = unsafe { slice::from_raw_parts(pointer.cast::<u8>().add(known), size - known) };
    if let Some(at) = tail.iter().position(|b| *b != 0) {
        let why = format!("byte {} is set, which this version of the library does not know", known + at);
        return Err(Error::argument(what, why));
    }
    let mut config = MaybeUninit::new(T::default());
    // SAFETY: `known` bytes fit both; every bit pattern is a valid `T`.
    unsafe {
        config.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(pointer.cast(), known);
        Ok(config.assume_init())
    }
}

/// Writes the defaults into a config of `size` bytes, as `size` bytes of the caller's version.
///
/// # Safety
/// As [`write`].
pub(super) unsafe fn init<T: Config>(pointer: *mut T, size: usize, what: &str) -> Result<()> {
    // SAFETY: as the caller promises.
    unsafe {
        write(&T::default(), size, "struct_size", pointer, what)?;
        pointer.cast::<usize>().write(size);
    }
    Ok(())
}

/// Writes the part of `value` that the caller's version of `size` bytes knows; what this version does not know becomes 0.
///
/// # Safety
/// `pointer` is NULL or valid for writing `size` bytes.
pub(super) unsafe fn write<T: Growing>(
    value: &T,
    size: usize,
    size_name: &str,
    pointer: *mut T,
    what: &str,
) -> Result<()> {
    check_pointer(pointer, what)?;
    check_size::<T>(size, size_name)?;
    let known = size.min(size_of::<T>());
    // SAFETY: the caller's struct has `size` bytes; without padding, all bytes of `value` are initialised.
    unsafe {
        pointer.cast::<u8>().copy_from_nonoverlapping(std::ptr::from_ref(value).cast(), known);
        pointer.cast::<u8>().add(known).write_bytes(0, size - known);
    }
    Ok(())
}

/// Every version's size is a multiple of the alignment: another one would cut a field in two.
fn check_size<T: Growing>(size: usize, what: &str) -> Result<()> {
    if (T::OLDEST_SIZE..=MAX_SIZE).contains(&size) && size.is_multiple_of(align_of::<T>()) {
        return Ok(());
    }
    Err(Error::argument(what, format!("is {size}, expected {}", size_of::<T>())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Tea {
        struct_size: usize,
        cups: u64,
        sugar: u64,
    }

    impl Default for Tea {
        fn default() -> Self {
            Self { struct_size: size_of::<Self>(), cups: 1, sugar: 2 }
        }
    }

    // SAFETY: three words.
    unsafe impl Growing for Tea {
        const OLDEST_SIZE: usize = 16;
    }
    // SAFETY: begins with its size.
    unsafe impl Config for Tea {}

    fn read_words(words: &[u64]) -> Result<Tea> {
        // SAFETY: the tests give as many words as the first one says, or a size that is refused.
        unsafe { read(words.as_ptr().cast::<Tea>(), "config") }
    }

    fn why<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.expect_err("the struct is not valid").to_string()
    }

    #[test]
    fn an_older_caller_gets_defaults_for_what_it_does_not_know() {
        assert_eq!(read_words(&[16, 5]).unwrap(), Tea { struct_size: 16, cups: 5, sugar: 2 });
        // SAFETY: NULL is allowed.
        assert_eq!(unsafe { read(std::ptr::null::<Tea>(), "config") }.unwrap(), Tea::default());
    }

    #[test]
    fn a_newer_caller_may_only_leave_the_unknown_at_zero() {
        assert_eq!(read_words(&[40, 5, 6, 0, 0]).unwrap(), Tea { struct_size: 40, cups: 5, sugar: 6 });
        let error = why(read_words(&[40, 5, 6, 0, 1]));
        assert_eq!(error, "invalid argument `config`: byte 32 is set, which this version of the library does not know");
    }

    #[test]
    fn sizes_of_no_version_are_refused() {
        for size in [0, 8, 15, 17, 23, 25, MAX_SIZE as u64 + 1, u64::MAX] {
            let error = why(read_words(&[size, 5, 6]));
            assert_eq!(error, format!("invalid argument `config.struct_size`: is {size}, expected 24"));
        }
    }

    #[test]
    fn results_and_initial_values_keep_to_the_callers_size() {
        let mut words = [9u64; 5];
        let place = words.as_mut_ptr().cast::<Tea>();
        // SAFETY: five writable words.
        unsafe {
            write(&Tea { struct_size: 1, cups: 2, sugar: 3 }, 16, "size", place, "tea").unwrap();
            assert_eq!(words, [1, 2, 9, 9, 9]);
            init(words.as_mut_ptr().cast::<Tea>(), 32, "tea").unwrap();
            assert_eq!(words, [32, 1, 2, 0, 9]);
            assert!(why(init(std::ptr::null_mut::<Tea>(), 24, "tea")).contains("`tea`: is NULL"));
        }
    }
}
