//! Small tokenizers for the tests of this room, built as the JSON that a file would hold.

use serde_json::{Map, Value, json};

use super::Tokenizer;

/// GPT-2's spelling of a byte as a printable character.
fn spell(byte: u8) -> char {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(&byte) {
        return char::from(byte);
    }
    let position = (0..byte).filter(|other| !printable(other)).count() as u32;
    char::from_u32(256 + position).expect("below the surrogates")
}

fn added(tokens: &[(&str, usize, bool)]) -> Value {
    let entry = |(content, id, special): &(&str, usize, bool)| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": special});
    tokens.iter().map(entry).collect()
}

/// Byte-level BPE: ids 0 to 255 are the bytes, then merges, then `<|end|>` (special) and `<tool>` (not special).
pub(super) fn byte_level_json() -> Value {
    let mut vocab: Map<String, Value> = (0..=255).map(|byte: u8| (spell(byte).to_string(), json!(byte))).collect();
    let mut merges = Vec::new();
    for (left, right) in
        [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("Ã", "©"), ("ð", "Ł"), ("ðŁ", "ĺ")]
    {
        vocab.insert(format!("{left}{right}"), json!(vocab.len()));
        merges.push(json!([left, right]));
    }
    let next = vocab.len();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added(&[("<|end|>", next, true), ("<tool>", next + 1, false)]),
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|end|>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [next], "tokens": ["<|end|>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges}
    })
}

/// SentencePiece-like BPE as Llama 2 has it: `▁` for a space, `<0xHH>` tokens for bytes, a leading space stripped.
/// Ids: 0 `<unk>`, 1 `<s>`, 2 `</s>`, 3 to 258 the bytes, then pieces.
pub(super) fn byte_fallback_json() -> Value {
    let mut vocab = Map::new();
    for token in ["<unk>", "<s>", "</s>"] {
        vocab.insert(token.to_owned(), json!(vocab.len()));
    }
    for byte in 0..=255u8 {
        vocab.insert(format!("<0x{byte:02X}>"), json!(vocab.len()));
    }
    for piece in ["▁", "a", "b", "c", "é", "\u{FFFD}", "▁▁", "▁a", "ab", "▁ab"] {
        vocab.insert(piece.to_owned(), json!(vocab.len()));
    }
    json!({
        "version": "1.0",
        "added_tokens": added(&[("<unk>", 0, true), ("<s>", 1, true), ("</s>", 2, true)]),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": [["▁", "▁"], ["▁", "a"], ["a", "b"], ["▁", "ab"]]}
    })
}

/// Unigram pieces with a `Metaspace` decoder, which strips every `▁` of the first token.
pub(super) fn metaspace_json() -> Value {
    let pieces = ["<unk>", "</s>", "▁", "▁▁", "▁hi", "there", "▁there", "!", "▁a▁b"];
    let scored: Vec<Value> = pieces.iter().enumerate().map(|(rank, piece)| json!([piece, -(rank as f64)])).collect();
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    json!({
        "version": "1.0",
        "added_tokens": added(&[("<unk>", 0, true), ("</s>", 1, true)]),
        "normalizer": null,
        "pre_tokenizer": metaspace,
        "post_processor": null,
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": scored}
    })
}

pub(super) fn load(json: &Value) -> crate::error::Result<Tokenizer> {
    Tokenizer::from_json(json.to_string().as_bytes(), None)
}
