//! The table behind every handle. A handle is an opaque pointer that encodes kind, generation and index of an entry; it is
//! never dereferenced, so whatever a caller passes is looked up and either found or refused.

use std::any::Any;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::Arc;

use parking_lot::RwLock;

use super::panic::may_panic;
use crate::error::{Error, Result};

const INDEX_BITS: u32 = 24;
const GENERATION_BITS: u32 = 32;
const INDEX_MASK: usize = (1 << INDEX_BITS) - 1;

const _: () = assert!(usize::BITS == 64, "a handle needs 64 bits: 8 of kind, 32 of generation, 24 of index");

/// A C handle type: what it is called and what it stands for.
pub(super) trait Handle: Sized + 'static {
    type Object: Send + Sync + 'static;
    /// Tag in the top byte of the handle; not 0, so that no handle is NULL.
    const KIND: u8;
    const NAME: &'static str;
}

struct Slot {
    /// Generation of the present object, or of the next one. Starts at 1.
    generation: u32,
    object: Option<Arc<dyn Any + Send + Sync>>,
}

struct Table {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

static TABLE: RwLock<Table> = RwLock::new(Table { slots: Vec::new(), free: Vec::new() });

/// Gives `object` a new handle.
///
/// # Errors
/// `OutOfMemory` when 2^24 handles are alive or the table cannot grow.
pub(super) fn insert<H: Handle>(object: Arc<H::Object>) -> Result<*mut H> {
    may_panic();
    Ok(reserve()?.fill(object))
}

/// A place in the table for an object that must not be lost once it is there.
///
/// # Errors
/// As [`insert`].
pub(super) fn reserve<H: Handle>() -> Result<Vacancy<H>> {
    let mut table = TABLE.write();
    let index = match table.free.pop() {
        Some(index) => index,
        None => grow(&mut table, H::NAME)?,
    };
    Ok(Vacancy { index, handle: PhantomData })
}

/// A reserved place; given back when it is dropped.
pub(super) struct Vacancy<H> {
    index: usize,
    handle: PhantomData<H>,
}

impl<H: Handle> Vacancy<H> {
    /// Gives `object` its handle.
    pub(super) fn fill(self, object: Arc<H::Object>) -> *mut H {
        let index = ManuallyDrop::new(self).index;
        let slot = &mut TABLE.write().slots[index];
        slot.object = Some(object);
        encode::<H>(index, slot.generation)
    }
}

impl<H> Drop for Vacancy<H> {
    fn drop(&mut self) {
        TABLE.write().free.push(self.index);
    }
}

fn grow(table: &mut Table, name: &str) -> Result<usize> {
    let refused = |why: &str| Error::OutOfMemory { what: format!("handle of a {name}"), why: why.to_owned() };
    let index = table.slots.len();
    if index > INDEX_MASK {
        return Err(refused("16777216 handles are alive"));
    }
    table.slots.try_reserve(1).map_err(|e| refused(&e.to_string()))?;
    // Every slot can be free at once, so that giving a handle up takes no memory.
    let free = table.slots.capacity() - table.free.len();
    table.free.try_reserve(free).map_err(|e| refused(&e.to_string()))?;
    table.slots.push(Slot { generation: 1, object: None });
    Ok(index)
}

/// The object of a handle. The table is released before this returns; the object lives as long as the caller's `Arc`.
///
/// # Errors
/// `InvalidArgument` for NULL, `InvalidHandle` for everything else that names no living object of this type.
pub(super) fn get<H: Handle>(handle: *const H, what: &str) -> Result<Arc<H::Object>> {
    if handle.is_null() {
        return Err(Error::argument(what, "is NULL"));
    }
    let (index, generation) = decode(handle, what)?;
    let object = {
        let table = TABLE.read();
        let slot = table.slots.get(index).ok_or_else(|| invalid::<H>(what, "never existed"))?;
        check(slot, generation).map_err(|why| invalid::<H>(what, why))?
    };
    may_panic();
    object.downcast().map_err(|_| invalid::<H>(what, "is of another type"))
}

/// Takes a handle out of the table and returns its object; NULL is `None`. Calls that already hold the object finish with it.
///
/// # Errors
/// `InvalidHandle` as [`get`].
pub(super) fn remove<H: Handle>(handle: *const H, what: &str) -> Result<Option<Arc<H::Object>>> {
    may_panic();
    if handle.is_null() {
        return Ok(None);
    }
    let (index, generation) = decode(handle, what)?;
    let mut table = TABLE.write();
    let slot = table.slots.get_mut(index).ok_or_else(|| invalid::<H>(what, "never existed"))?;
    let object = check(slot, generation).map_err(|why| invalid::<H>(what, why))?;
    let object = object.downcast().map_err(|_| invalid::<H>(what, "is of another type"))?;
    slot.object = None;
    // A slot whose generations are used up retires: a stale handle never becomes valid again.
    if let Some(next) = slot.generation.checked_add(1) {
        slot.generation = next;
        table.free.push(index);
    }
    drop(table);
    may_panic();
    Ok(Some(object))
}

fn check(slot: &Slot, generation: u32) -> Result<Arc<dyn Any + Send + Sync>, &'static str> {
    match &slot.object {
        Some(object) if slot.generation == generation => Ok(Arc::clone(object)),
        _ if generation == 0 || generation > slot.generation => Err("never existed"),
        _ => Err("was destroyed"),
    }
}

fn encode<H: Handle>(index: usize, generation: u32) -> *mut H {
    let kind = usize::from(H::KIND) << (INDEX_BITS + GENERATION_BITS);
    ptr::without_provenance_mut(kind | (generation as usize) << INDEX_BITS | index)
}

fn decode<H: Handle>(handle: *const H, what: &str) -> Result<(usize, u32)> {
    let bits = handle.addr();
    if bits >> (INDEX_BITS + GENERATION_BITS) != usize::from(H::KIND) {
        return Err(invalid::<H>(what, "is of another type or never existed"));
    }
    Ok((bits & INDEX_MASK, (bits >> INDEX_BITS) as u32))
}

fn invalid<H: Handle>(what: &str, why: &str) -> Error {
    Error::InvalidHandle { what: what.to_owned(), why: format!("this {} {why}", H::NAME) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Cup;
    impl Handle for Cup {
        type Object = String;
        const KIND: u8 = 200;
        const NAME: &'static str = "cup";
    }

    struct Plate;
    impl Handle for Plate {
        type Object = u32;
        const KIND: u8 = 201;
        const NAME: &'static str = "plate";
    }

    fn refusal<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.expect_err("the handle is not valid").to_string()
    }

    #[test]
    fn finds_what_was_inserted_until_it_is_removed() {
        let cup = insert::<Cup>(Arc::new("tea".to_owned())).unwrap();
        assert_eq!(*get(cup, "cup").unwrap(), "tea");
        assert_eq!(*remove(cup, "cup").unwrap().unwrap(), "tea");
        assert_eq!(refusal(get(cup, "cup")), "invalid handle `cup`: this cup was destroyed");
        assert_eq!(refusal(remove(cup, "cup")), "invalid handle `cup`: this cup was destroyed");
    }

    #[test]
    fn a_reused_slot_does_not_revive_the_old_handle() {
        let handles: Vec<_> = (0..64)
            .map(|i| {
                let cup = insert::<Cup>(Arc::new(i.to_string())).unwrap();
                remove(cup, "cup").unwrap();
                cup
            })
            .collect();
        let living = insert::<Cup>(Arc::new("new".to_owned())).unwrap();
        assert!(handles.iter().all(|h| get(*h, "cup").is_err()));
        remove(living, "cup").unwrap();
    }

    #[test]
    fn refuses_null_other_types_and_arbitrary_numbers() {
        let plate = insert::<Plate>(Arc::new(7)).unwrap();
        assert!(refusal(get(plate.cast::<Cup>(), "cup")).contains("another type"));
        let retagged = ptr::without_provenance::<Cup>(plate.addr() & !(0xff << 56) | 200 << 56);
        assert!(refusal(get(retagged, "cup")).contains("another type"));
        assert!(refusal(remove(retagged, "cup")).contains("another type"));
        assert_eq!(*get(plate, "plate").unwrap(), 7);
        remove(plate, "plate").unwrap();
        assert!(refusal(get(ptr::null::<Cup>(), "cup")).contains("is NULL"));
        assert!(remove(ptr::null::<Cup>(), "cup").unwrap().is_none());
        for bits in [1usize, 0xdead_beef, usize::MAX, 200 << 56, 200 << 56 | INDEX_MASK] {
            assert!(get(ptr::without_provenance::<Cup>(bits), "cup").is_err(), "{bits:#x}");
        }
    }

    #[test]
    fn removing_while_others_look_up_is_safe() {
        let cup = insert::<Cup>(Arc::new("tea".to_owned())).unwrap();
        let address = cup.addr();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(move || {
                    while let Ok(object) = get(ptr::without_provenance::<Cup>(address), "cup") {
                        assert_eq!(*object, "tea");
                    }
                });
            }
            remove(cup, "cup").unwrap();
        });
    }
}
