//! Builds the crate's tokenizer out of a checked `tokenizer.json`.
//!
//! Part by part rather than through the crate's own deserializer: that one buffers a BPE vocabulary several times, which
//! dominates the load time of a large one.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer,
};

use super::unwind::{guard, invalid};
use crate::error::{Error, Result};
use crate::types::heap;

/// The tokenizer that `root` describes; `root` has passed `structure::check`.
pub(super) fn assemble(mut root: Value) -> Result<Tokenizer> {
    let model = model(root["model"].take())?;
    let normalizer: Option<NormalizerWrapper> = part(&mut root, "normalizer")?;
    let pre_tokenizer: Option<PreTokenizerWrapper> = part(&mut root, "pre_tokenizer")?;
    let post_processor: Option<PostProcessorWrapper> = part(&mut root, "post_processor")?;
    let decoder: Option<DecoderWrapper> = part(&mut root, "decoder")?;
    let added: Option<Vec<AddedToken>> = part(&mut root, "added_tokens")?;
    let join = || -> tokenizers::Result<Tokenizer> {
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_normalizer(normalizer)?;
        tokenizer.with_pre_tokenizer(pre_tokenizer).with_post_processor(post_processor).with_decoder(decoder);
        tokenizer.add_tokens(added.unwrap_or_default())?;
        Ok(tokenizer)
    };
    guard("added_tokens", join)?.map_err(|error| invalid("added_tokens", error.to_string()))
}

/// One optional part, read by the crate.
fn part<T: DeserializeOwned>(root: &mut Value, name: &str) -> Result<Option<T>> {
    // Not `root[name]`, which would insert a missing name.
    let Some(value) = root.get_mut(name).map(Value::take) else {
        return Ok(None);
    };
    guard(name, || serde_json::from_value(value))?.map_err(|error| invalid(name, error.to_string()))
}

fn model(mut model: Value) -> Result<ModelWrapper> {
    match model.as_object_mut() {
        Some(fields) if fields.get("type").is_some_and(|kind| kind == "BPE") => bpe(fields).map(ModelWrapper::BPE),
        _ => guard("model", || serde_json::from_value(model))?.map_err(|error| invalid("model", error.to_string())),
    }
}

fn bpe(fields: &mut Map<String, Value>) -> Result<BPE> {
    let vocab = match fields.get_mut("vocab").map(Value::take) {
        Some(Value::Object(vocab)) => vocab,
        _ => return Err(invalid("model.vocab", "is not an object")),
    };
    let vocab = ids(vocab)?;
    // The crate keeps its cache of words by thread and never gives it up, so that every thread of the host that tokenises
    // would keep one for every engine that was ever loaded.
    let mut builder = BPE::builder().vocab_and_merges(vocab, merges(fields)?).cache_capacity(0);
    if let Some(token) = text(fields, "unk_token")? {
        builder = builder.unk_token(token);
    }
    if let Some(prefix) = text(fields, "continuing_subword_prefix")? {
        builder = builder.continuing_subword_prefix(prefix);
    }
    if let Some(suffix) = text(fields, "end_of_word_suffix")? {
        builder = builder.end_of_word_suffix(suffix);
    }
    builder = builder
        .fuse_unk(flag(fields, "fuse_unk")?)
        .byte_fallback(flag(fields, "byte_fallback")?)
        .ignore_merges(flag(fields, "ignore_merges")?);
    guard("model", || builder.build())?.map_err(|error| invalid("model", error.to_string()))
}

fn ids(tokens: Map<String, Value>) -> Result<Vocab> {
    let mut vocab = Vocab::new();
    let bytes = tokens.len() * size_of::<(String, u32)>();
    vocab.try_reserve(tokens.len()).map_err(|_| Error::out_of_memory("vocabulary", bytes))?;
    for (token, id) in tokens {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        vocab.insert(token, id.ok_or_else(|| invalid("model.vocab", "an id is not an integer"))?);
    }
    Ok(vocab)
}

/// Merges as pairs, or as lines of two words under an optional `#version` line.
fn merges(fields: &mut Map<String, Value>) -> Result<Vec<(String, String)>> {
    let merges = match fields.get_mut("merges").map(Value::take) {
        Some(Value::Array(merges)) => merges,
        _ => return Err(invalid("model.merges", "is missing or not a list")),
    };
    let is_comment = |merge: &Value| merge.as_str().is_some_and(|line| line.starts_with("#version"));
    let mut pairs = heap::vector(merges.len(), "merges")?;
    for merge in merges.into_iter().filter(|merge| !is_comment(merge)) {
        pairs.push(pair(merge).ok_or_else(|| bad_merge(pairs.len()))?);
    }
    Ok(pairs)
}

fn pair(merge: Value) -> Option<(String, String)> {
    match merge {
        Value::String(line) => {
            let (left, right) = line.split_once(' ')?;
            (!right.contains(' ')).then(|| (left.to_owned(), right.to_owned()))
        }
        Value::Array(halves) => match <[Value; 2]>::try_from(halves).ok()? {
            [Value::String(left), Value::String(right)] => Some((left, right)),
            _ => None,
        },
        _ => None,
    }
}

fn bad_merge(rank: usize) -> Error {
    invalid(format!("model.merges[{rank}]"), "is not a pair of tokens")
}

fn text(fields: &Map<String, Value>, name: &str) -> Result<Option<String>> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(invalid(format!("model.{name}"), "is neither null nor a string")),
    }
}

fn flag(fields: &Map<String, Value>, name: &str) -> Result<bool> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(invalid(format!("model.{name}"), "is neither null nor a boolean")),
    }
}
