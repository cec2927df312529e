//! `tojson` as transformers defines it for chat templates: Python's `json.dumps` with `ensure_ascii=False`.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// Deepest value that is written.
const MAX_DEPTH: usize = 128;
/// Largest indentation accepted; more is never meant.
const MAX_INDENT: usize = 64;
/// Output bytes that one unit of fuel pays for.
const BYTES_PER_FUEL: usize = 16;

/// Layout of the written JSON.
struct Style {
    indent: Option<usize>,
    item_separator: String,
    key_separator: String,
    ensure_ascii: bool,
    sort_keys: bool,
}

/// The filter `tojson(value, ensure_ascii=false, indent=none, separators=none, sort_keys=false)`.
pub(super) fn tojson(state: &State, value: &Value, indent: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let style = Style::read(indent, &options)?;
    let mut writer = Writer { state, style, out: String::new(), paid: 0 };
    writer.value(value, 0)?;
    Ok(Value::from(writer.out))
}

impl Style {
    fn read(indent: Option<Value>, options: &Kwargs) -> Result<Self, Error> {
        let named: Option<Value> = options.get("indent")?;
        let indent = match indent.or(named).filter(|indent| !indent.is_none()) {
            None => None,
            Some(indent) => Some(
                indent
                    .as_usize()
                    .filter(|indent| *indent <= MAX_INDENT)
                    .ok_or_else(|| refuse(format!("indent {indent} is not an integer from 0 to {MAX_INDENT}")))?,
            ),
        };
        let separators: Option<Vec<String>> = options.get("separators")?;
        let (item_separator, key_separator) = match separators.as_deref() {
            Some([item, key]) => (item.clone(), key.clone()),
            Some(_) => return Err(refuse("separators is not a pair of strings")),
            None => ((if indent.is_some() { "," } else { ", " }).to_owned(), ": ".to_owned()),
        };
        let ensure_ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
        let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
        options.assert_all_used()?;
        Ok(Self { indent, item_separator, key_separator, ensure_ascii, sort_keys })
    }
}

/// Writes values, paying fuel as the output grows.
struct Writer<'a, 'template, 'env> {
    state: &'a State<'template, 'env>,
    style: Style,
    out: String,
    paid: usize,
}

impl Writer<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(refuse(format!("value is nested deeper than {MAX_DEPTH}")));
        }
        self.pay()?;
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => self.out.push_str(&value.to_string()),
            ValueKind::Number => self.out.push_str(&float_repr(f64::try_from(value.clone())?)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.map(value, depth)?,
            kind => return Err(refuse(format!("a value of type {kind} has no JSON form"))),
        }
        Ok(())
    }

    fn list(&mut self, list: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut empty = true;
        for item in list.try_iter()? {
            self.next_entry(empty, depth + 1);
            empty = false;
            self.value(&item, depth + 1)?;
        }
        self.close(']', empty, depth);
        Ok(())
    }

    fn map(&mut self, map: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = map.try_iter()?.collect();
        if self.style.sort_keys {
            keys.sort();
        }
        self.out.push('{');
        for (position, key) in keys.iter().enumerate() {
            self.next_entry(position == 0, depth + 1);
            match key.as_str() {
                Some(key) => self.string(key),
                // Python turns numbers, booleans and None into their JSON text.
                None => {
                    self.out.push('"');
                    self.value(key, MAX_DEPTH)?;
                    self.out.push('"');
                }
            }
            self.out.push_str(&self.style.key_separator);
            self.value(&map.get_item(key)?, depth + 1)?;
        }
        self.close('}', keys.is_empty(), depth);
        Ok(())
    }

    fn next_entry(&mut self, first: bool, depth: usize) {
        if !first {
            self.out.push_str(&self.style.item_separator);
        }
        self.line(depth);
    }

    fn close(&mut self, bracket: char, empty: bool, depth: usize) {
        if !empty {
            self.line(depth);
        }
        self.out.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = self.style.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.style.ensure_ascii && !c.is_ascii()) => self.escape(c),
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, c: char) {
        for unit in c.encode_utf16(&mut [0; 2]) {
            self.out.push_str(&format!("\\u{unit:04x}"));
        }
    }

    /// Pays for what was written since the last call.
    fn pay(&mut self) -> Result<(), Error> {
        self.state.consume_fuel((1 + (self.out.len() - self.paid) / BYTES_PER_FUEL) as u64)?;
        self.paid = self.out.len();
        Ok(())
    }
}

/// A float as Python prints it: shortest digits, an exponent below 1e-4 and from 1e16.
fn float_repr(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .to_owned();
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-4..1e16).contains(&magnitude) {
        return format!("{value:?}");
    }
    let shortest = format!("{value:e}");
    match shortest.split_once('e') {
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        },
        None => shortest,
    }
}

fn refuse(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("tojson: {}", why.into()))
}
