//! Raw arguments of C calls turned into checked Rust values; every error names the argument.

use std::ffi::c_char;
use std::slice;

use super::panic::may_panic;
use crate::error::{Error, Result};

/// Most bytes of a text argument.
pub(super) const MAX_TEXT_BYTES: usize = 16 << 20;
/// Most bytes of a path or name, its NUL not counted.
pub(super) const MAX_NAME_BYTES: usize = 4096;
/// Most elements of an array argument.
pub(super) const MAX_ELEMENTS: usize = 16 << 20;

/// A borrowed array; NULL with length 0 is empty.
///
/// # Safety
/// `pointer` is NULL or valid for reading `length` elements during `'a`.
pub(super) unsafe fn array<'a, T>(pointer: *const T, length: usize, max: usize, what: &str) -> Result<&'a [T]> {
    if length > max {
        return Err(Error::argument(what, format!("has length {length}, at most {max} are allowed")));
    }
    if length == 0 {
        return Ok(&[]);
    }
    check_pointer(pointer, what)?;
    // SAFETY: not NULL and aligned as checked, valid as the caller promises, small enough that the size cannot overflow.
    Ok(unsafe { slice::from_raw_parts(pointer, length) })
}

/// A borrowed UTF-8 text given by pointer and length.
///
/// # Safety
/// As [`array`].
pub(super) unsafe fn text<'a>(pointer: *const c_char, length: usize, what: &str) -> Result<&'a str> {
    // SAFETY: as the caller promises.
    utf8(unsafe { array(pointer.cast(), length, MAX_TEXT_BYTES, what) }?, what)
}

/// A borrowed UTF-8 string that ends with a NUL, of at most `max` bytes.
///
/// # Safety
/// `pointer` is NULL or valid for reading up to its first NUL, or for `max + 1` bytes, during `'a`.
pub(super) unsafe fn string<'a>(pointer: *const c_char, max: usize, what: &str) -> Result<&'a str> {
    check_pointer(pointer, what)?;
    // SAFETY: not NULL as checked; never reads past the first NUL.
    let length = unsafe { libc::strnlen(pointer, max + 1) };
    if length > max {
        return Err(Error::argument(what, format!("is longer than {max} bytes")));
    }
    // SAFETY: `length` bytes before the NUL are readable.
    utf8(unsafe { slice::from_raw_parts(pointer.cast(), length) }, what)
}

/// A path or a name: as [`string`], not empty, at most [`MAX_NAME_BYTES`].
///
/// # Safety
/// As [`string`].
pub(super) unsafe fn name<'a>(pointer: *const c_char, what: &str) -> Result<&'a str> {
    // SAFETY: as the caller promises.
    let name = unsafe { string(pointer, MAX_NAME_BYTES, what) }?;
    if name.is_empty() { Err(Error::argument(what, "is empty")) } else { Ok(name) }
}

/// An array of names.
///
/// # Safety
/// As [`array`], and each element as [`name`].
#[cfg(feature = "compiler")]
pub(super) unsafe fn names(pointer: *const *const c_char, length: usize, what: &str) -> Result<Vec<String>> {
    // SAFETY: as the caller promises.
    let pointers = unsafe { array(pointer, length, MAX_NAME_BYTES, what) }?;
    let named = pointers.iter().enumerate();
    // SAFETY: as the caller promises.
    named.map(|(i, p)| unsafe { name(*p, &format!("{what}[{i}]")) }.map(str::to_owned)).collect()
}

fn utf8<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str> {
    str::from_utf8(bytes).map_err(|e| Error::argument(what, format!("is not UTF-8 at byte {}", e.valid_up_to())))
}

/// A flag that is 0 or 1.
pub(super) fn flag(value: i32, what: &str) -> Result<bool> {
    may_panic();
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::argument(what, format!("is {other}, not 0 or 1"))),
    }
}

/// A checked place for a result. Writing it is the last act of a call that succeeds.
pub(super) struct Output<T>(*mut T);

/// A place for one result.
///
/// # Safety
/// `pointer` is NULL or valid for writing a `T` until the result is written.
pub(super) unsafe fn output<T>(pointer: *mut T, what: &str) -> Result<Output<T>> {
    check_pointer(pointer, what)?;
    Ok(Output(pointer))
}

impl<T> Output<T> {
    pub(super) fn write(self, value: T) {
        // SAFETY: not NULL and aligned as checked; valid as the caller of `output` promised.
        unsafe { self.0.write(value) };
    }
}

/// A caller's buffer with a capacity and a place for the length of what was, or would have been, written.
pub(super) struct Buffer<T> {
    start: *mut T,
    capacity: usize,
    length: *mut usize,
    what: &'static str,
}

/// What the arguments of a buffer are called.
pub(super) struct BufferNames {
    pub start: &'static str,
    pub length: &'static str,
}

/// Names of a buffer for text.
pub(super) const TEXT: BufferNames = BufferNames { start: "buffer", length: "length" };
/// Names of a buffer for tokens.
pub(super) const TOKENS: BufferNames = BufferNames { start: "tokens", length: "count" };

/// A place for a result of unknown size.
///
/// # Safety
/// `start` is NULL or valid for writing `capacity` elements, `length` is NULL or valid for writing one.
pub(super) unsafe fn buffer<T>(
    start: *mut T,
    capacity: usize,
    length: *mut usize,
    names: BufferNames,
) -> Result<Buffer<T>> {
    if capacity > 0 || !start.is_null() {
        check_pointer(start, names.start)?;
    }
    check_pointer(length, names.length)?;
    Ok(Buffer { start, capacity, length, what: names.start })
}

impl<T: Copy> Buffer<T> {
    /// Writes `items`, or only their number when the caller asks for the size.
    ///
    /// # Errors
    /// `BufferTooSmall`; the length is written all the same.
    pub(super) fn write(self, items: &[T]) -> Result<()> {
        self.write_terminated(items, None)
    }

    fn write_terminated(self, items: &[T], terminator: Option<T>) -> Result<()> {
        may_panic();
        // SAFETY: `length` was checked, and is valid as the caller of `buffer` promised.
        unsafe { self.length.write(items.len()) };
        let needed = items.len() + usize::from(terminator.is_some());
        if self.start.is_null() {
            return Ok(());
        }
        if self.capacity < needed {
            let why = format!("{needed} elements are needed, there is room for {}", self.capacity);
            return Err(Error::BufferTooSmall { what: self.what.to_owned(), why });
        }
        // SAFETY: the buffer has room for `needed` elements; the caller cannot own memory that overlaps `items`.
        unsafe {
            self.start.copy_from_nonoverlapping(items.as_ptr(), items.len());
            if let Some(terminator) = terminator {
                self.start.add(items.len()).write(terminator);
            }
        }
        Ok(())
    }
}

impl Buffer<c_char> {
    /// Writes `text` and a NUL; the length does not count the NUL.
    ///
    /// # Errors
    /// As [`Buffer::write`].
    pub(super) fn write_text(self, text: &str) -> Result<()> {
        // SAFETY: `u8` and `c_char` have the same size and alignment, and every value is valid for both.
        let chars = unsafe { slice::from_raw_parts(text.as_ptr().cast::<c_char>(), text.len()) };
        self.write_terminated(chars, Some(0))
    }
}

pub(super) fn check_pointer<T>(pointer: *const T, what: &str) -> Result<()> {
    may_panic();
    match (pointer.is_null(), pointer.is_aligned()) {
        (true, _) => Err(Error::argument(what, "is NULL")),
        (_, false) => Err(Error::argument(what, format!("is not aligned to {} bytes", align_of::<T>()))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    fn why<T>(result: Result<T>) -> String {
        result.err().expect("the argument is not valid").to_string()
    }

    #[test]
    fn text_is_checked_before_it_is_read() {
        // SAFETY: no pointer is read: the lengths and NULL are refused before.
        unsafe {
            assert_eq!(text(ptr::null(), 0, "text").unwrap(), "");
            assert_eq!(why(text(ptr::null(), 3, "text")), "invalid argument `text`: is NULL");
            let huge = why(text(c"a".as_ptr(), usize::MAX, "text"));
            assert!(huge.contains("at most 16777216"), "{huge}");
        }
        let bad = [0x61u8, 0xff];
        // SAFETY: two readable bytes.
        let error = why(unsafe { text(bad.as_ptr().cast(), 2, "prompt") });
        assert_eq!(error, "invalid argument `prompt`: is not UTF-8 at byte 1");
    }

    #[test]
    fn strings_are_bounded_and_names_are_not_empty() {
        // SAFETY: NUL-terminated literals.
        unsafe {
            assert_eq!(string(c"abc".as_ptr(), 3, "s").unwrap(), "abc");
            assert!(why(string(c"abcd".as_ptr(), 3, "s")).contains("longer than 3 bytes"));
            assert!(why(name(c"".as_ptr(), "path")).contains("`path`: is empty"));
        }
    }

    #[test]
    fn a_buffer_answers_a_size_query_and_refuses_too_little_room() {
        let (mut length, mut chars) = (9usize, [0x7f as c_char; 4]);
        // SAFETY: NULL or valid for the given capacity.
        unsafe {
            buffer::<c_char>(ptr::null_mut(), 0, &mut length, TEXT).unwrap().write_text("abc").unwrap();
            assert_eq!(length, 3);
            let error = why(buffer(chars.as_mut_ptr(), 3, &mut length, TEXT).unwrap().write_text("abc"));
            assert!(error.contains("4 elements are needed, there is room for 3"), "{error}");
            assert_eq!((length, chars), (3, [0x7f; 4]));
            buffer(chars.as_mut_ptr(), 4, &mut length, TEXT).unwrap().write_text("abc").unwrap();
            assert!(why(buffer::<u32>(ptr::null_mut(), 4, &mut length, TOKENS)).contains("`tokens`: is NULL"));
            let odd = chars.as_mut_ptr().wrapping_byte_add(1 + chars.as_ptr().addr() % 2).cast::<u32>();
            assert!(why(buffer(odd, 0, &mut length, TOKENS)).contains("`tokens`: is not aligned"));
            assert!(why(buffer::<u32>(ptr::null_mut(), 0, ptr::null_mut(), TOKENS)).contains("`count`: is NULL"));
        }
        assert_eq!(chars.map(|c| c as u8), *b"abc\0");
    }

    #[test]
    fn misaligned_pointers_and_odd_flags_are_refused() {
        let words = [0u32; 2];
        // SAFETY: refused before it is read.
        let error = why(unsafe { array(words.as_ptr().byte_add(1), 1, 8, "tokens") });
        assert!(error.contains("not aligned to 4"), "{error}");
        assert!(flag(1, "f").unwrap() && !flag(0, "f").unwrap());
        assert_eq!(why(flag(2, "stream")), "invalid argument `stream`: is 2, not 0 or 1");
    }
}
