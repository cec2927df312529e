//! Hugging Face tokenizers: text to ids and back.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;

use super::assemble::assemble;
use super::pieces::{Pieces, append_lossy};
use super::structure::{self, Facts};
use super::unwind::{guard, invalid};
use crate::error::Result;
use crate::types::heap;

/// Largest accepted `tokenizer.json` or `tokenizer_config.json`, in bytes.
pub const MAX_FILE_BYTES: usize = 64 << 20;
/// Largest accepted text of one `encode`, in bytes.
pub const MAX_INPUT_BYTES: usize = 16 << 20;
/// Most commas and brackets in `tokenizer.json`. A parsed element costs tens of bytes, so this bounds the memory that a
/// small file can claim; the largest published vocabularies have about two million.
const MAX_ELEMENTS: usize = 8 << 20;

/// A loaded tokenizer. Immutable, shared between threads, cheap to clone.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    crate_tokenizer: tokenizers::Tokenizer,
    vocab_size: usize,
    special: HashSet<u32>,
    byte_fallback: bool,
    /// Where the decoder is byte-level.
    pieces: Option<Pieces>,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

impl Tokenizer {
    /// Loads the bytes of `tokenizer.json` and, if given, of `tokenizer_config.json` (for the BOS and EOS strings).
    ///
    /// Truncation, padding and dropout settings of the file are ignored. `InvalidTokenizer` on anything that cannot be
    /// loaded exactly as written: bad structure, ids of 2^31 - 1 or above, two tokens of one id, an added token that
    /// would get another id than the file gives it.
    pub fn from_json(tokenizer: &[u8], config: Option<&[u8]>) -> Result<Self> {
        let mut root = parse("tokenizer.json", tokenizer)?;
        let facts = structure::check(&mut root)?;
        let crate_tokenizer = assemble(root)?;
        check_added_ids(&crate_tokenizer, &facts)?;
        let config = config.map(|bytes| parse("tokenizer_config.json", bytes)).transpose()?.unwrap_or_default();
        let special = special_ids(&crate_tokenizer, &facts);
        let pieces = pieces(&crate_tokenizer, &facts)?;
        let inner = Inner {
            crate_tokenizer,
            pieces,
            vocab_size: facts.vocab_size,
            special,
            byte_fallback: facts.byte_fallback,
            bos_token: token_string(&config["bos_token"]),
            eos_token: token_string(&config["eos_token"]),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Ids of `text`. Special tokens written out in the text become their ids, as in transformers; `add_special_tokens`
    /// also adds those of the post-processor (such as BOS). `InvalidArgument` above `MAX_INPUT_BYTES`.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        if text.len() > MAX_INPUT_BYTES {
            let why = format!("{} bytes exceed the limit of {MAX_INPUT_BYTES}", text.len());
            return Err(crate::error::Error::argument("text", why));
        }
        let encoding = guard("encode", || self.inner.crate_tokenizer.encode_fast(text, add_special_tokens))?
            .map_err(|error| invalid("encode", error.to_string()))?;
        heap::copy(encoding.get_ids(), "prompt")
    }

    /// Text of `ids`, special tokens left out if `skip_special`. Ids outside the vocabulary have no text: models pad
    /// their vocabulary, so such an id is not an error. Incomplete UTF-8 becomes U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        if !ids.iter().any(|id| self.has_text(*id, skip_special)) {
            return Ok(String::new());
        }
        guard("decode", || self.inner.crate_tokenizer.decode(ids, skip_special))?
            .map_err(|error| invalid("decode", error.to_string()))
    }

    /// As [`decode`](Self::decode), in place of what `text` holds; `bytes` is scratch memory. Under a byte-level decoder
    /// no memory is taken that these two do not have.
    pub(super) fn decode_into(
        &self,
        ids: &[u32],
        skip_special: bool,
        bytes: &mut Vec<u8>,
        text: &mut String,
    ) -> Result<()> {
        let Some(pieces) = &self.inner.pieces else {
            *text = self.decode(ids, skip_special)?;
            return Ok(());
        };
        bytes.clear();
        for id in ids.iter().filter(|id| !(skip_special && self.is_special(**id))) {
            let piece = pieces.of(*id);
            heap::extend(bytes, piece, "text")?;
        }
        text.clear();
        append_lossy(text, bytes)
    }

    /// The id of a token, added or of the model.
    #[must_use]
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.crate_tokenizer.token_to_id(token)
    }

    /// The token of an id as the vocabulary spells it, e.g. `Ġthe`; not its text.
    #[must_use]
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.crate_tokenizer.id_to_token(id)
    }

    /// One past the largest token id, added tokens included.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    /// Whether `id` is a special token, which `skip_special` leaves out.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.special.contains(&id)
    }

    /// The beginning-of-sequence token as `tokenizer_config.json` names it.
    #[must_use]
    pub fn bos_token(&self) -> Option<&str> {
        self.inner.bos_token.as_deref()
    }

    /// The end-of-sequence token as `tokenizer_config.json` names it.
    #[must_use]
    pub fn eos_token(&self) -> Option<&str> {
        self.inner.eos_token.as_deref()
    }

    /// Whether `decode` looks at `id` at all.
    pub(super) fn has_text(&self, id: u32, skip_special: bool) -> bool {
        let has_piece = || match &self.inner.pieces {
            Some(pieces) => !pieces.of(id).is_empty(),
            None => self.id_to_token(id).is_some(),
        };
        !(skip_special && self.is_special(id)) && has_piece()
    }

    /// Whether `id` stands for one raw byte that the decoder joins with its neighbours, like `<0xE5>`.
    pub(super) fn is_byte(&self, id: u32) -> bool {
        let spells_byte = |token: String| {
            let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
            digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
        };
        self.inner.byte_fallback && self.id_to_token(id).is_some_and(spells_byte)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.inner.vocab_size).finish_non_exhaustive()
    }
}

/// JSON of `bytes`, its size and number of elements checked first.
pub(super) fn parse(what: &str, bytes: &[u8]) -> Result<Value> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(invalid(what, format!("{} bytes exceed the limit of {MAX_FILE_BYTES}", bytes.len())));
    }
    let elements = bytes.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    if elements > MAX_ELEMENTS {
        return Err(invalid(what, format!("{elements} elements exceed the limit of {MAX_ELEMENTS}")));
    }
    serde_json::from_slice(bytes).map_err(|error| invalid(what, error.to_string()))
}

/// The crate numbers added tokens by itself and ignores the file's ids; a model trained with those must not get others.
fn check_added_ids(tokenizer: &tokenizers::Tokenizer, facts: &Facts) -> Result<()> {
    for (content, id) in &facts.added {
        let got = tokenizer.token_to_id(content);
        if got != Some(*id) {
            return Err(invalid(
                format!("added token {content:?}"),
                format!("has id {id} in the file but would get {got:?}"),
            ));
        }
    }
    Ok(())
}

/// The table costs memory by the largest id, which must not be far beyond the number of tokens.
fn pieces(tokenizer: &tokenizers::Tokenizer, facts: &Facts) -> Result<Option<Pieces>> {
    let dense = facts.vocab_size <= 2 * tokenizer.get_vocab_size(true);
    let of = || Pieces::new(facts.vocab_size, |id| tokenizer.id_to_token(id));
    (facts.byte_level && dense).then(of).transpose()
}

/// Decided by the token's spelling, exactly as the crate's `decode` does.
fn special_ids(tokenizer: &tokenizers::Tokenizer, facts: &Facts) -> HashSet<u32> {
    let vocabulary = tokenizer.get_added_vocabulary();
    let is_special = |id: &u32| tokenizer.id_to_token(*id).is_some_and(|token| vocabulary.is_special_token(&token));
    facts.added.iter().map(|(_, id)| *id).filter(is_special).collect()
}

/// A special token of `tokenizer_config.json`: a string, or an object with `content`.
fn token_string(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::fixtures::{byte_fallback_json, byte_level_json, load, metaspace_json};
    use super::*;
    use crate::error::{Error, Status};

    #[test]
    fn merges_bytes_and_special_tokens_get_their_ids() {
        let tokenizer = load(&byte_level_json()).unwrap();
        let hello = tokenizer.token_to_id("hello").unwrap();
        let end = tokenizer.token_to_id("<|end|>").unwrap();
        let space_w = tokenizer.token_to_id("Ġw").unwrap();
        assert_eq!(tokenizer.encode("hello w<|end|>", false), Ok(vec![hello, space_w, end]));
        assert_eq!(tokenizer.encode("hello", true), Ok(vec![hello, end]));
        assert_eq!(tokenizer.decode(&[hello, end, space_w], true).as_deref(), Ok("hello w"));
        assert_eq!(tokenizer.decode(&[hello, end, space_w], false).as_deref(), Ok("hello<|end|> w"));
        assert_eq!(
            (tokenizer.vocab_size(), tokenizer.is_special(end), tokenizer.is_special(end + 1)),
            (266, true, false)
        );
        assert_eq!(tokenizer.id_to_token(end + 1).as_deref(), Some("<tool>"));
        assert_eq!(tokenizer.id_to_token(end + 2), None);
    }

    #[test]
    fn ids_without_text_decode_to_nothing() {
        for json in [byte_level_json(), byte_fallback_json(), metaspace_json()] {
            let tokenizer = load(&json).unwrap();
            for ids in [&[][..], &[u32::MAX, 100_000], &[tokenizer.vocab_size() as u32]] {
                assert_eq!(tokenizer.decode(ids, false).as_deref(), Ok(""));
            }
        }
    }

    #[test]
    fn config_names_bos_and_eos_as_string_or_object() {
        let config = br#"{"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>"}"#;
        let bytes = byte_fallback_json().to_string();
        let tokenizer = Tokenizer::from_json(bytes.as_bytes(), Some(config)).unwrap();
        assert_eq!((tokenizer.bos_token(), tokenizer.eos_token()), (Some("<s>"), Some("</s>")));
        let none = Tokenizer::from_json(bytes.as_bytes(), Some(br#"{"bos_token": null}"#)).unwrap();
        assert_eq!((none.bos_token(), none.eos_token()), (None, None));
        let broken = Tokenizer::from_json(bytes.as_bytes(), Some(b"{")).unwrap_err();
        assert_eq!(broken.status(), Status::InvalidTokenizer);
    }

    #[test]
    fn sizes_are_checked_first() {
        let large = vec![b' '; MAX_FILE_BYTES + 1];
        assert!(Tokenizer::from_json(&large, None).unwrap_err().to_string().contains("exceed the limit"));
        let many = vec![b'['; MAX_ELEMENTS + 1];
        assert!(Tokenizer::from_json(&many, None).unwrap_err().to_string().contains("elements exceed"));
        let tokenizer = load(&metaspace_json()).unwrap();
        let text = "a".repeat(MAX_INPUT_BYTES + 1);
        assert_eq!(tokenizer.encode(&text, false).unwrap_err().status(), Status::InvalidArgument);
    }

    /// Each of these makes the crate panic, reserve without bound or load something else than the file says.
    #[test]
    fn known_damage_is_refused_by_name() {
        let charsmap = |map: &str| json!({"type": "Precompiled", "precompiled_charsmap": map});
        let cases = [
            ("/decoder", json!("ByteLevel"), "decoder"),
            ("/pre_tokenizer", json!({"type": "FixedLength", "length": 0}), "pre_tokenizer"),
            ("/pre_tokenizer", json!({"type": "Split", "pattern": {"Regex": "a".repeat(5000)}}), "pre_tokenizer"),
            ("/post_processor/special_tokens", json!({}), "post_processor"),
            ("/post_processor/single/0/Sequence/id", json!("B"), "post_processor"),
            ("/normalizer", charsmap("/////w=="), "normalizer"),
            ("/normalizer", charsmap("AA"), "normalizer"),
            (
                "/normalizer",
                json!({"type": "Sequence", "normalizers": [charsmap("/////w==")]}),
                "normalizer.normalizers[0]",
            ),
            ("/model/continuing_subword_prefix", json!("##"), "model.merges[0]"),
            ("/model/vocab/hello", json!(1), "model.vocab"),
            ("/model/vocab/hello", json!(i32::MAX), "model.vocab[\"hello\"]"),
            ("/model/vocab/hello", json!(-1), "model.vocab[\"hello\"]"),
            ("/model/vocab", json!(null), "model.vocab"),
            ("/model", json!(null), "model"),
            ("/added_tokens/0/id", json!(9_999), "added token \"<|end|>\""),
            ("/added_tokens/0/content", json!(""), "added_tokens[0]"),
            ("/added_tokens", json!({}), "added_tokens"),
        ];
        for (pointer, value, culprit) in cases {
            let mut json = byte_level_json();
            match json.pointer_mut(pointer) {
                Some(place) => *place = value,
                None => panic!("{pointer} is not in the fixture"),
            }
            match load(&json) {
                Err(Error::InvalidTokenizer { what, .. }) => assert_eq!(what, culprit, "{pointer}"),
                other => panic!("{pointer}: {other:?}"),
            }
        }
    }

    #[test]
    fn truncation_padding_and_dropout_do_not_apply() {
        let mut json = byte_level_json();
        json["truncation"] = json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0});
        json["padding"] = json!({"strategy": {"Fixed": 1_000_000_000}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "!"});
        json["model"]["dropout"] = json!(1.0);
        let plain = load(&byte_level_json()).unwrap();
        assert_eq!(load(&json).unwrap().encode("hello hello", false), plain.encode("hello hello", false));
    }

    #[test]
    fn merges_written_as_lines_are_the_same_merges() {
        let mut json = byte_level_json();
        let line = |pair: &Value| json!(format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
        let lines = json["model"]["merges"].as_array().unwrap().iter().map(line);
        json["model"]["merges"] = std::iter::once(json!("#version: 0.2")).chain(lines).collect();
        let tokenizer = load(&json).unwrap();
        assert_eq!(tokenizer.encode("hello", false), Ok(vec![tokenizer.token_to_id("hello").unwrap()]));
        json["model"]["merges"][1] = json!("h e l");
        assert!(load(&json).unwrap_err().to_string().contains("model.merges[0]"));
    }

    #[test]
    fn every_part_is_read_as_the_crate_reads_it() {
        for json in [byte_level_json(), byte_fallback_json(), metaspace_json()] {
            let whole: tokenizers::Tokenizer = json.to_string().parse().unwrap();
            let assembled = assemble(json).unwrap();
            assert_eq!(serde_json::to_value(&assembled).unwrap(), serde_json::to_value(&whole).unwrap());
        }
    }

    /// A small file, so that every truncation can be tried.
    fn small_file() -> Vec<u8> {
        let mut json = metaspace_json();
        json["pre_tokenizer"] = json!(null);
        json["post_processor"] = byte_level_json()["post_processor"].clone();
        json["post_processor"]["special_tokens"]["<|end|>"]["ids"] = json!([1]);
        json.to_string().into_bytes()
    }

    fn exercise(file: &[u8]) {
        match Tokenizer::from_json(file, None) {
            Ok(tokenizer) => {
                let ids = tokenizer.encode("hi there! é", true).unwrap_or_default();
                let _ = tokenizer.decode(&ids, false);
            }
            Err(error) => assert_eq!(error.status(), Status::InvalidTokenizer),
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let file = small_file();
        Tokenizer::from_json(&file, None).unwrap();
        for length in 0..file.len() {
            assert_eq!(Tokenizer::from_json(&file[..length], None).unwrap_err().status(), Status::InvalidTokenizer);
        }
    }

    #[test]
    fn single_byte_damage_never_panics() {
        for mut file in [small_file(), byte_fallback_json().to_string().into_bytes()] {
            let step = file.len() / 500 + 1;
            for at in (0..file.len()).step_by(step) {
                for damage in [file[at] ^ 1, file[at] ^ 0x20, b'"', b'9', b'}', 0xFF] {
                    let whole = std::mem::replace(&mut file[at], damage);
                    exercise(&file);
                    file[at] = whole;
                }
            }
        }
    }

    proptest! {
        #[test]
        fn byte_level_text_comes_back(text in "\\PC{0,40}|[ \\n\\té😀hello]{0,40}") {
            let tokenizer = load(&byte_level_json()).unwrap();
            let ids = tokenizer.encode(&text, false).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        }

        #[test]
        fn byte_fallback_text_comes_back(text in "[ abcé😀x\\n]{0,40}") {
            let tokenizer = load(&byte_fallback_json()).unwrap();
            let ids = tokenizer.encode(&text, false).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        }
    }
}
