//! Typed, range-checked access to a JSON object; every error names the field. `null` is the same as absent
//! but where a method says otherwise.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// One JSON object of a configuration file.
pub(super) struct Fields<'a> {
    /// What precedes a field's name in an error: the file, or the object within it.
    place: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub fn new(place: impl Into<String>, map: &'a Map<String, Value>) -> Self {
        Self { place: place.into(), map }
    }

    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Whether the file says `null`, where that differs from silence.
    pub fn is_null(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(Value::is_null)
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Names of all fields.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.map.keys().map(String::as_str)
    }

    /// The error for field `name`.
    pub fn invalid(&self, name: &str, why: impl Into<String>) -> Error {
        Error::InvalidConfig { what: format!("{} `{name}`", self.place), why: why.into() }
    }

    /// A whole number within `range`; `default` when absent, an error when that is `None` too.
    pub fn count(&self, name: &str, default: Option<u64>, range: RangeInclusive<u64>) -> Result<usize> {
        let value = match self.get(name) {
            Some(value) => value.as_u64(),
            None => Some(default.ok_or_else(|| self.invalid(name, "is missing"))?),
        };
        match value.filter(|n| range.contains(n)).and_then(|n| usize::try_from(n).ok()) {
            Some(n) => Ok(n),
            None => {
                let (from, to) = range.into_inner();
                Err(self.invalid(name, format!("is {} where an integer in {from}..={to} is needed", self.shown(name))))
            }
        }
    }

    /// A finite number that `accept` takes; `wanted` says what that is.
    pub fn real(&self, name: &str, accept: impl Fn(f64) -> bool, wanted: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_f64().filter(|x| x.is_finite() && accept(*x)) {
            Some(x) => Ok(Some(x)),
            None => Err(self.invalid(name, format!("is {} where {wanted} is needed", self.shown(name)))),
        }
    }

    /// `count` finite numbers that `accept` takes.
    pub fn needed_reals(
        &self,
        name: &str,
        count: usize,
        accept: impl Fn(f64) -> bool,
        wanted: &str,
    ) -> Result<Vec<f64>> {
        let items = self.get(name).and_then(Value::as_array).filter(|items| items.len() == count);
        let number = |item: &Value| item.as_f64().filter(|x| x.is_finite() && accept(*x));
        let numbers = items.and_then(|items| items.iter().map(number).collect());
        numbers.ok_or_else(|| {
            self.invalid(name, format!("is {} where {count} times {wanted} is needed", self.shown(name)))
        })
    }

    /// [`Fields::real`] of a field that must be there.
    pub fn needed_real(&self, name: &str, accept: impl Fn(f64) -> bool, wanted: &str) -> Result<f64> {
        self.real(name, accept, wanted)?.ok_or_else(|| self.invalid(name, "is missing"))
    }

    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.invalid(name, "must be true or false")),
        }
    }

    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.invalid(name, "must be a string")),
        }
    }

    pub fn texts(&self, name: &str) -> Result<Option<Vec<&'a str>>> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let texts = value.as_array().and_then(|items| items.iter().map(Value::as_str).collect());
        texts.map(Some).ok_or_else(|| self.invalid(name, "must be a list of strings"))
    }

    pub fn object(&self, name: &str) -> Result<Option<Fields<'a>>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields::new(format!("{} {name}", self.place), map))),
            Some(_) => Err(self.invalid(name, "must be an object")),
        }
    }

    /// Token ids written as one integer or a list; `default` when the field is absent, none when it is `null`.
    pub fn tokens(&self, name: &str, default: &[u32]) -> Result<Vec<u32>> {
        let values = match self.map.get(name) {
            None => return Ok(default.to_vec()),
            Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(items)) => items.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        let ids = values.iter().map(|v| v.as_u64().and_then(|id| u32::try_from(id).ok())).collect::<Option<Vec<_>>>();
        ids.ok_or_else(|| self.invalid(name, "must be a token id or a list of them"))
    }

    /// One token id. A negative one is how some checkpoints say that there is none.
    pub fn token(&self, name: &str, default: Option<u32>) -> Result<Option<u32>> {
        match self.get(name).and_then(Value::as_i64) {
            Some(negative) if negative < 0 => Ok(None),
            _ => match self.tokens(name, default.as_slice())?.as_slice() {
                [] => Ok(None),
                [id] => Ok(Some(*id)),
                _ => Err(self.invalid(name, "must be one token id")),
            },
        }
    }

    /// The field's value for an error, cut to a readable length.
    fn shown(&self, name: &str) -> String {
        let text = self.get(name).map_or("absent".to_string(), Value::to_string);
        match text.char_indices().nth(40) {
            Some((cut, _)) => format!("{}...", &text[..cut]),
            None => text,
        }
    }
}
