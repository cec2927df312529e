//! Keeps the values that a template assigns shallow and paid for.
//!
//! A loop that stores a value into a list inside itself would build something that overflows the stack when it is printed or
//! dropped, and lists shared twice at each level take exponential time to print. minijinja charges no fuel for either.

use minijinja::value::{Tuple, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use super::ordered::OrderedMap;

/// Names under which templates reach the functions; `source` writes the calls.
pub(super) const HOLD: &str = "__hold";
pub(super) const HOLD_ATTRIBUTE: &str = "__hold_attribute";
/// Deepest assigned value, the caller's messages and tools not counted.
const MAX_DEPTH: usize = 16;

/// Adds the functions to `environment`.
pub(super) fn register(environment: &mut Environment<'static>) {
    environment.add_function(HOLD, |state: &State, value: Value| match is_namespace(&value) {
        true => Ok(value),
        false => held(state, &value, 0),
    });
    environment.add_function(HOLD_ATTRIBUTE, |state: &State, value: Value| held(state, &value, 0));
}

/// `value` with lazy lists made into plain ones; one unit of fuel for every value in it.
fn held(state: &State, value: &Value, depth: usize) -> Result<Value, Error> {
    state.consume_fuel(1)?;
    if depth > MAX_DEPTH {
        return Err(refuse(format!("an assigned value is nested deeper than {MAX_DEPTH}")));
    }
    if value.downcast_object_ref::<OrderedMap>().is_some() {
        return Ok(value.clone());
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => held_list(state, value, depth),
        ValueKind::Map if is_namespace(value) => Err(refuse("a namespace cannot be stored in a value")),
        ValueKind::Map => held_map(state, value, depth),
        _ => Ok(value.clone()),
    }
}

fn held_list(state: &State, list: &Value, depth: usize) -> Result<Value, Error> {
    let items = list.try_iter()?.map(|item| held(state, &item, depth + 1));
    let items = items.collect::<Result<Vec<Value>, Error>>()?;
    Ok(if list.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) })
}

fn held_map(state: &State, map: &Value, depth: usize) -> Result<Value, Error> {
    for key in map.try_iter()? {
        held(state, &key, depth + 1)?;
        held(state, &map.get_item(&key)?, depth + 1)?;
    }
    Ok(map.clone())
}

/// The type is private to minijinja, so that only its name tells.
fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

fn refuse(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, why.into())
}
