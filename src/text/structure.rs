//! Checks the structure of a parsed `tokenizer.json` before the `tokenizers` crate builds from it.
//!
//! The crate panics, reserves gigabytes or loads silently on several kinds of damage. Each rule here refuses one of them.

use serde_json::Value;

use super::unwind::invalid;
use crate::error::Result;
use crate::types::heap;

/// Longest accepted split or replace pattern in bytes; published tokenizers stay below 1 KiB.
const MAX_PATTERN_BYTES: usize = 4096;
/// Deepest accepted nesting of `Sequence` components.
const MAX_NESTING: usize = 8;
/// Ids are stored as `i32` by callers and in engine files.
const MAX_ID: u64 = i32::MAX as u64;

/// What the check learned about the file.
#[derive(Debug)]
pub(super) struct Facts {
    /// One past the largest token id.
    pub vocab_size: usize,
    /// `(content, id)` of every added token, in file order.
    pub added: Vec<(String, u32)>,
    /// Whether the decoder turns `<0xHH>` tokens into bytes.
    pub byte_fallback: bool,
    /// Whether the decoder does nothing but turn the letters of a byte-level vocabulary into bytes.
    pub byte_level: bool,
}

/// Refuses a file that the crate would not survive, and takes out what has no meaning for inference: truncation,
/// padding (both could also reserve memory without bound) and BPE dropout (which would make encoding random).
pub(super) fn check(root: &mut Value) -> Result<Facts> {
    let Some(fields) = root.as_object_mut() else {
        return Err(invalid("tokenizer.json", "is not a JSON object"));
    };
    match fields.get("version") {
        None => {}
        Some(version) if version == "1.0" => {}
        Some(version) => return Err(invalid("version", format!("{version} is not \"1.0\""))),
    }
    fields.remove("truncation");
    fields.remove("padding");
    if let Some(model) = fields.get_mut("model").and_then(Value::as_object_mut) {
        model.remove("dropout");
    }
    let root = &*root;
    for (part, children) in [
        ("normalizer", "normalizers"),
        ("pre_tokenizer", "pretokenizers"),
        ("post_processor", "processors"),
        ("decoder", "decoders"),
    ] {
        check_component(part, children, &root[part], 0)?;
    }
    let mut ids = model_ids(&root["model"])?;
    let largest_model_id = distinct_maximum(&mut ids)?;
    let added = added_tokens(&root["added_tokens"])?;
    let largest = added.iter().map(|(_, id)| *id).chain(largest_model_id).max();
    Ok(Facts {
        vocab_size: largest.map_or(0, |id| id as usize + 1),
        added,
        byte_fallback: contains_type(&root["decoder"], "ByteFallback"),
        byte_level: root["decoder"]["type"] == "ByteLevel",
    })
}

/// Ids of the model's vocabulary, whichever of the four model types it is.
fn model_ids(model: &Value) -> Result<Vec<u32>> {
    if !model.is_object() {
        return Err(invalid("model", "is missing or not an object"));
    }
    match &model["vocab"] {
        Value::Object(vocab) => {
            if let Some(prefix) = model["continuing_subword_prefix"].as_str().filter(|prefix| !prefix.is_empty()) {
                check_prefixed_merges(&model["merges"], prefix)?;
            }
            let mut ids = heap::vector(vocab.len(), "token ids")?;
            for (token, id) in vocab {
                ids.push(read_id(|| format!("model.vocab[{token:?}]"), id)?);
            }
            Ok(ids)
        }
        Value::Array(pieces) => {
            let is_piece = |piece: &Value| piece[0].is_string() && piece[1].is_number();
            match pieces.iter().position(|piece| !is_piece(piece)) {
                Some(bad) => Err(invalid(format!("model.vocab[{bad}]"), "is not a pair of a piece and its score")),
                None => heap::collect(0..pieces.len() as u32, "token ids"),
            }
        }
        _ => Err(invalid("model.vocab", "is missing or neither an object nor a list")),
    }
}

/// The crate cuts the prefix off the right half of a merge by length alone: a shorter half underflows, and a cut inside
/// a character makes invalid UTF-8.
fn check_prefixed_merges(merges: &Value, prefix: &str) -> Result<()> {
    let right_half = |merge: &Value| match merge {
        Value::String(line) => line.split_once(' ').map(|(_, right)| right.to_owned()),
        pair => pair[1].as_str().map(str::to_owned),
    };
    for (index, merge) in merges.as_array().into_iter().flatten().enumerate() {
        if !right_half(merge).is_some_and(|right| right.starts_with(prefix)) {
            return Err(invalid(format!("model.merges[{index}]"), format!("right half lacks the prefix {prefix:?}")));
        }
    }
    Ok(())
}

/// The largest of `ids`; a repeated id is an error, because decoding it would depend on hash order.
fn distinct_maximum(ids: &mut [u32]) -> Result<Option<u32>> {
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(invalid("model.vocab", format!("id {} belongs to two tokens", pair[0]))),
        None => Ok(ids.last().copied()),
    }
}

fn added_tokens(list: &Value) -> Result<Vec<(String, u32)>> {
    let tokens = match list {
        Value::Null => return Ok(Vec::new()),
        Value::Array(tokens) => tokens,
        _ => return Err(invalid("added_tokens", "is not a list")),
    };
    let read = |(index, token): (usize, &Value)| {
        let place = format!("added_tokens[{index}]");
        let content = token["content"].as_str().filter(|content| !content.is_empty());
        let content = content.ok_or_else(|| invalid(&place, "`content` is missing or empty"))?;
        Ok((content.to_owned(), read_id(|| place, &token["id"])?))
    };
    tokens.iter().enumerate().map(read).collect()
}

fn read_id(place: impl FnOnce() -> String, id: &Value) -> Result<u32> {
    match id.as_u64() {
        Some(id) if id < MAX_ID => Ok(id as u32),
        _ => Err(invalid(place(), format!("id {id} is not an integer in [0, 2^31 - 1)"))),
    }
}

fn check_component(place: &str, children: &str, component: &Value, depth: usize) -> Result<()> {
    if component.is_null() {
        return Ok(());
    }
    if !component.is_object() {
        return Err(invalid(place, "is neither null nor an object"));
    }
    if depth > MAX_NESTING {
        return Err(invalid(place, format!("is nested deeper than {MAX_NESTING}")));
    }
    check_pattern(place, &component["pattern"])?;
    match component["type"].as_str() {
        Some("FixedLength") => check_fixed_length(place, component)?,
        Some("TemplateProcessing") => check_template(place, component)?,
        Some("Precompiled") => check_charsmap(place, component)?,
        _ => {}
    }
    for (index, child) in component[children].as_array().into_iter().flatten().enumerate() {
        check_component(&format!("{place}.{children}[{index}]"), children, child, depth + 1)?;
    }
    Ok(())
}

fn check_pattern(place: &str, pattern: &Value) -> Result<()> {
    let text = pattern.as_str().or_else(|| pattern["Regex"].as_str()).or_else(|| pattern["String"].as_str());
    match text {
        Some(text) if text.len() > MAX_PATTERN_BYTES => {
            Err(invalid(place, format!("pattern of {} bytes exceeds {MAX_PATTERN_BYTES}", text.len())))
        }
        _ => Ok(()),
    }
}

/// A length of zero panics on the first text.
fn check_fixed_length(place: &str, component: &Value) -> Result<()> {
    match &component["length"] {
        Value::Null => Ok(()),
        length if length.as_u64().is_some_and(|length| length > 0) => Ok(()),
        length => Err(invalid(place, format!("length {length} is not a positive integer"))),
    }
}

/// A template that names an unlisted special token, or sequence B in `single`, panics on the first text.
fn check_template(place: &str, component: &Value) -> Result<()> {
    for piece in component["single"].as_array().into_iter().flatten() {
        if piece["Sequence"]["id"] == "B" {
            return Err(invalid(place, "`single` uses sequence B"));
        }
        if let Some(id) = piece["SpecialToken"]["id"].as_str() {
            let token = &component["special_tokens"][id];
            let (ids, tokens) = (token["ids"].as_array().map(Vec::len), token["tokens"].as_array().map(Vec::len));
            if ids.is_none() || ids != tokens {
                return Err(invalid(place, format!("special token {id:?} is not listed with one id per token")));
            }
        }
    }
    Ok(())
}

/// The crate reserves what the first four bytes of the map announce; the map cannot hold more than it is long.
fn check_charsmap(place: &str, component: &Value) -> Result<()> {
    let Some(map) = component["precompiled_charsmap"].as_str() else {
        return Err(invalid(place, "`precompiled_charsmap` is missing"));
    };
    let announced = base64_u32(map.as_bytes());
    match announced {
        Some(trie_bytes) if trie_bytes >= 4 && trie_bytes as usize <= map.len() / 4 * 3 => Ok(()),
        _ => Err(invalid(place, "`precompiled_charsmap` announces more than it holds")),
    }
}

/// The little-endian word in the first six base64 characters.
fn base64_u32(text: &[u8]) -> Option<u32> {
    let digit = |c: &u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let bits = text.get(..6)?.iter().try_fold(0u64, |bits, c| Some(bits << 6 | u64::from(digit(c)?)))?;
    Some(((bits >> 4) as u32).swap_bytes())
}

fn contains_type(component: &Value, wanted: &str) -> bool {
    component["type"] == wanted
        || component["decoders"].as_array().into_iter().flatten().any(|child| contains_type(child, wanted))
}
