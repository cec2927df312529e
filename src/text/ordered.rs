//! JSON as template values, objects in their own order.

use std::collections::HashMap;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object};
use serde_json::Value as Json;

/// Deepest accepted nesting of messages and tools; `serde_json` reads no deeper either.
const MAX_DEPTH: usize = 128;

/// A JSON object whose keys keep the caller's order: templates print tools in the order that the model was trained on,
/// and minijinja's own maps sort.
#[derive(Debug)]
pub(super) struct OrderedMap {
    entries: Vec<(minijinja::Value, minijinja::Value)>,
    index: HashMap<String, usize>,
}

/// The template value of `json`; `None` if it is nested too deeply.
pub(super) fn template_value(json: &Json) -> Option<minijinja::Value> {
    convert(json, 0)
}

fn convert(json: &Json, depth: usize) -> Option<minijinja::Value> {
    if depth > MAX_DEPTH {
        return None;
    }
    Some(match json {
        Json::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(|item| convert(item, depth + 1)).collect();
            minijinja::Value::from(items?)
        }
        Json::Object(fields) => {
            let index = fields.keys().enumerate().map(|(position, key)| (key.clone(), position)).collect();
            let entry = |(key, value): (&String, &Json)| {
                Some((minijinja::Value::from(key.as_str()), convert(value, depth + 1)?))
            };
            let entries = fields.iter().map(entry).collect::<Option<Vec<_>>>()?;
            minijinja::Value::from_object(OrderedMap { entries, index })
        }
        Json::String(text) => minijinja::Value::from(text.as_str()),
        Json::Null => minijinja::Value::from(()),
        Json::Bool(truth) => minijinja::Value::from(*truth),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => minijinja::Value::from(integer),
            (None, Some(integer)) => minijinja::Value::from(integer),
            (None, None) => minijinja::Value::from(number.as_f64()?),
        },
    })
}

impl Object for OrderedMap {
    fn get_value(self: &Arc<Self>, key: &minijinja::Value) -> Option<minijinja::Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<minijinja::Value> {
        Some(self.entries[*self.index.get(key)?].1.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::KeyValueIter(Box::new(self.entries.clone().into_iter()))
    }
}
