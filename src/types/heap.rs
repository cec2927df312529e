//! Heap memory that may be refused. Whatever has a size that follows from a file, a request or a limit is asked for here,
//! so that a machine without memory costs a request or a load and not the process.

use std::collections::VecDeque;
use std::io;

use serde::Serialize;

use crate::error::{Error, Result};

/// Room for `more` elements beside those that are there.
///
/// # Errors
/// `OutOfMemory` naming `what`; the vector is as it was.
pub fn reserve<T>(vector: &mut Vec<T>, more: usize, what: &str) -> Result<()> {
    vector.try_reserve(more).map_err(|_| Error::out_of_memory(what, more.saturating_mul(size_of::<T>())))
}

/// An empty vector with room for exactly `capacity` elements.
///
/// # Errors
/// `OutOfMemory` naming `what`.
pub fn vector<T>(capacity: usize, what: &str) -> Result<Vec<T>> {
    let mut vector = Vec::new();
    let refused = |_| Error::out_of_memory(what, capacity.saturating_mul(size_of::<T>()));
    vector.try_reserve_exact(capacity).map_err(refused)?;
    Ok(vector)
}

/// An empty queue with room for `capacity` elements.
///
/// # Errors
/// `OutOfMemory` naming `what`.
pub fn deque<T>(capacity: usize, what: &str) -> Result<VecDeque<T>> {
    let mut deque = VecDeque::new();
    let refused = |_| Error::out_of_memory(what, capacity.saturating_mul(size_of::<T>()));
    deque.try_reserve(capacity).map_err(refused)?;
    Ok(deque)
}

/// A vector of what `items` gives.
///
/// # Errors
/// `OutOfMemory` naming `what`.
pub fn collect<T>(items: impl ExactSizeIterator<Item = T>, what: &str) -> Result<Vec<T>> {
    let mut vector = self::vector(items.len(), what)?;
    vector.extend(items);
    Ok(vector)
}

/// A copy of `items`.
///
/// # Errors
/// `OutOfMemory` naming `what`.
pub fn copy<T: Copy>(items: &[T], what: &str) -> Result<Vec<T>> {
    collect(items.iter().copied(), what)
}

/// A copy of `text`.
///
/// # Errors
/// `OutOfMemory` naming `what`.
pub fn text(text: &str, what: &str) -> Result<String> {
    let mut copy = String::new();
    append(&mut copy, text, what)?;
    Ok(copy)
}

/// Appends `item`.
///
/// # Errors
/// `OutOfMemory` naming `what`; the vector is as it was.
pub fn push<T>(vector: &mut Vec<T>, item: T, what: &str) -> Result<()> {
    reserve(vector, 1, what)?;
    vector.push(item);
    Ok(())
}

/// Appends copies of `more`.
///
/// # Errors
/// `OutOfMemory` naming `what`; the vector is as it was.
pub fn extend<T: Copy>(vector: &mut Vec<T>, more: &[T], what: &str) -> Result<()> {
    reserve(vector, more.len(), what)?;
    vector.extend_from_slice(more);
    Ok(())
}

/// Room for `bytes` beside the text that is there.
///
/// # Errors
/// `OutOfMemory` naming `what`; the text is as it was.
pub fn room(text: &mut String, bytes: usize, what: &str) -> Result<()> {
    text.try_reserve(bytes).map_err(|_| Error::out_of_memory(what, bytes))
}

/// Appends `more`, and leaves room for the NUL that ends a text in C.
///
/// # Errors
/// `OutOfMemory` naming `what`; the text is as it was.
pub fn append(text: &mut String, more: &str, what: &str) -> Result<()> {
    room(text, more.len() + 1, what)?;
    text.push_str(more);
    Ok(())
}

/// `value` as JSON.
///
/// # Errors
/// `OutOfMemory` naming `what`; `Internal` for a value that has no JSON form.
pub fn json(value: &impl Serialize, what: &str) -> Result<String> {
    let mut bytes = Refusable(Vec::new());
    match serde_json::to_writer(&mut bytes, value) {
        Ok(()) => String::from_utf8(bytes.0).map_err(|error| Error::internal(what, error.to_string())),
        Err(error) if error.is_io() => Err(Error::out_of_memory(what, bytes.0.len())),
        Err(error) => Err(Error::internal(what, error.to_string())),
    }
}

/// Bytes whose growth can be refused.
struct Refusable(Vec<u8>);

impl io::Write for Refusable {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_reserve(bytes.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
