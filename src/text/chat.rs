//! Chat templates: the Jinja dialect of `tokenizer_config.json`, rendered within limits.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, ErrorKind, Output, State, Value};
use serde_json::Value as Json;

use super::{date, hold, ordered, pyjson, source, tokenizer};
use crate::error::{Error, Result};
use crate::types::heap;

/// Largest accepted template source, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 256 << 10;
/// Largest rendered prompt, in bytes.
pub const MAX_RENDERED_BYTES: usize = 4 << 20;
/// Work that one rendering may do: one unit for an instruction or for 64 bytes made. It pays for about 128 MB of
/// intermediate strings, or a conversation of some ten thousand messages.
const FUEL: u64 = 2_000_000;
/// Deepest macro recursion; templates that print JSON schemas recursively need about ten.
const MAX_RECURSION: usize = 100;
/// Bytes of a receiver that one unit of fuel pays for when a method scans it.
const SCANNED_PER_FUEL: usize = 64;
const NAME: &str = "chat";

/// A compiled chat template. Immutable and shared between threads.
///
/// It sees what transformers gives it: `messages`, `tools`, `documents` (none), `add_generation_prompt`, the special
/// tokens, `raise_exception`, `strftime_now` (UTC) and Python's string and dict methods. It cannot reach a file.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

impl ChatTemplate {
    /// Compiles `source`. `InvalidTemplate` if it is larger than `MAX_TEMPLATE_BYTES` or does not parse.
    pub fn new(source: &str, bos_token: Option<&str>, eos_token: Option<&str>) -> Result<Self> {
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(invalid("source", format!("{} bytes exceed the limit of {MAX_TEMPLATE_BYTES}", source.len())));
        }
        let mut environment = environment();
        let prepared = source::prepare(source).map_err(|why| invalid("source", why))?;
        environment.add_template_owned(NAME, prepared).map_err(describe)?;
        Ok(Self { environment, bos_token: bos_token.map(str::to_owned), eos_token: eos_token.map(str::to_owned) })
    }

    /// The prompt for `messages`, an array of objects with `role` and `content`, and `tools`, an array of schemas.
    ///
    /// `InvalidArgument` if `messages` is not an array. `InvalidTemplate` if the template fails, with the message of
    /// `raise_exception` if it called that, or if it exceeds its fuel, depth or `MAX_RENDERED_BYTES`.
    pub fn render(&self, messages: &Json, tools: Option<&Json>, add_generation_prompt: bool) -> Result<String> {
        if !messages.is_array() {
            return Err(Error::argument("messages", "is not an array"));
        }
        let too_deep = |what: &str| Error::argument(what, "is nested too deeply");
        let messages = ordered::template_value(messages).ok_or_else(|| too_deep("messages"))?;
        let tools = ordered::template_value(tools.unwrap_or(&Json::Null)).ok_or_else(|| too_deep("tools"))?;
        let mut context = vec![
            ("messages", messages),
            ("tools", tools),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
        ];
        let special = [("bos_token", &self.bos_token), ("eos_token", &self.eos_token)];
        context.extend(special.into_iter().filter_map(|(name, token)| Some((name, Value::from(token.as_deref()?)))));
        self.run(Value::from_pairs(context))
    }

    /// The template of a checkpoint: `chat_template.jinja` if given, else `chat_template` of `tokenizer_config.json` (a
    /// string, or the one named `default` in a list). `None` if there is none.
    pub fn find(config_json: Option<&[u8]>, chat_template_jinja: Option<&[u8]>) -> Result<Option<String>> {
        if let Some(bytes) = chat_template_jinja {
            let text = std::str::from_utf8(bytes).map_err(|error| invalid("chat_template.jinja", error.to_string()))?;
            return heap::text(text, "chat template").map(Some);
        }
        let Some(bytes) = config_json else {
            return Ok(None);
        };
        let config = tokenizer::parse("tokenizer_config.json", bytes)?;
        match &config["chat_template"] {
            Json::Null => Ok(None),
            Json::String(source) => Ok(Some(source.clone())),
            Json::Array(named) => default_of(named).map(Some),
            _ => Err(invalid("chat_template", "is neither a string nor a list")),
        }
    }

    fn run(&self, context: Value) -> Result<String> {
        let template = self.environment.get_template(NAME).map_err(describe)?;
        let mut sink = CappedSink { bytes: Vec::new(), overflown: false, refused: false };
        let rendered = template.render_captured_to(context, &mut sink).map(drop);
        if sink.overflown {
            return Err(invalid("output", format!("exceeds the limit of {MAX_RENDERED_BYTES} bytes")));
        }
        if sink.refused {
            return Err(Error::out_of_memory("rendered prompt", sink.bytes.len()));
        }
        rendered.map_err(describe)?;
        String::from_utf8(sink.bytes).map_err(|_| Error::internal("chat template", "wrote a part of a character"))
    }
}

/// Collects the output and fails as soon as it would exceed its limit.
struct CappedSink {
    bytes: Vec<u8>,
    overflown: bool,
    /// Memory was refused.
    refused: bool,
}

impl io::Write for CappedSink {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if part.len() > MAX_RENDERED_BYTES - self.bytes.len() {
            self.overflown = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.try_reserve(part.len()).map_err(|_| {
            self.refused = true;
            io::ErrorKind::OutOfMemory
        })?;
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment
        .set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().expect("default delimiters"));
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(MAX_RECURSION);
    environment.set_formatter(python_formatter);
    environment.set_unknown_method_callback(python_method);
    environment.add_filter("tojson", pyjson::tojson);
    hold::register(&mut environment);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment
}

/// Prints constants as Python does.
fn python_formatter(out: &mut Output, state: &mut State, value: &Value) -> Result<(), minijinja::Error> {
    match value.kind() {
        ValueKind::Bool => Ok(out.write_str(if value.is_true() { "True" } else { "False" })?),
        ValueKind::None => Ok(out.write_str("None")?),
        _ => minijinja::escape_formatter(out, state, value),
    }
}

/// Python's methods, paid for by the length of what they scan, and `format` also by what it can make.
fn python_method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, minijinja::Error> {
    let length = |value: &Value| value.as_str().map(str::len).or_else(|| value.len()).unwrap_or(0);
    let scanned = args.iter().map(length).sum::<usize>() + length(value);
    let made = match (method, value.as_str()) {
        ("format", Some(format)) => formatted_bound(format, scanned),
        _ => scanned,
    };
    state.consume_fuel((made / SCANNED_PER_FUEL) as u64)?;
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

/// The most bytes that `format` makes of arguments of `length` bytes: each field may repeat all of them and be padded.
fn formatted_bound(format: &str, length: usize) -> usize {
    let numbers = format.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let padding = numbers.map(|digits| digits.parse().unwrap_or(usize::MAX)).fold(0usize, usize::saturating_add);
    format.matches('{').count().saturating_mul(length).saturating_add(padding)
}

fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

fn strftime_now(format: &str) -> Result<String, minijinja::Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    date::strftime(format, now).ok_or_else(|| {
        minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now: format {format:?} is not known"))
    })
}

fn default_of(named: &[Json]) -> Result<String> {
    let default = named.iter().find(|entry| entry["name"] == "default");
    let source = default.and_then(|entry| entry["template"].as_str());
    source.map(str::to_owned).ok_or_else(|| invalid("chat_template", "the list has no template named `default`"))
}

/// The template's own words if it has any, and the line.
fn describe(error: minijinja::Error) -> Error {
    let what = error.line().map_or_else(|| "template".to_owned(), |line| format!("line {line}"));
    let why = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => "does more work than is allowed".to_owned(),
        (_, Some(detail)) => detail.to_owned(),
        (kind, None) => kind.to_string(),
    };
    invalid(what, why)
}

fn invalid(what: impl Into<String>, why: impl Into<String>) -> Error {
    Error::InvalidTemplate { what: what.into(), why: why.into() }
}
