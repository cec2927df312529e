//! Text, stops and ends of one sequence.

use super::*;
use crate::executor::alone::EOS;
use crate::executor::fake::tokenizer;

/// Pushes tokens until the sequence ends; gives the text of each delta, all delivered tokens, and the end.
fn speak(params: SamplingParams, tokens: &[u32]) -> (Vec<String>, Vec<u32>, Option<FinishReason>) {
    let mut output = Output::new(Arc::new(params), Arc::from([EOS]), Some(&tokenizer()), &[0], true).unwrap();
    let (mut texts, mut all) = (Vec::new(), Vec::new());
    for &token in tokens {
        let finish = output.push(Sampled { token, info: None }).unwrap();
        let delta = output.take(Delta::default());
        texts.push(delta.text);
        all.extend(delta.tokens);
        if finish.is_some() {
            return (texts, all, finish);
        }
    }
    (texts, all, None)
}

fn stop_at(text: &str) -> SamplingParams {
    SamplingParams { stop_strings: vec![text.into()], ..SamplingParams::default() }
}

fn stop_after(tokens: &[u32]) -> SamplingParams {
    SamplingParams { stop_sequences: vec![tokens.to_vec()], ..SamplingParams::default() }
}

#[test]
fn a_stop_string_is_never_delivered() {
    let (texts, tokens, finish) = speak(stop_at("cde"), &[0, 2, 3, 2, 3, 4, 5]);
    assert_eq!(texts, ["a", "", "", "cd", "", ""]);
    assert_eq!((tokens.len(), finish), (6, Some(FinishReason::Stop)));
}

#[test]
fn a_stop_sequence_is_delivered_as_tokens_only() {
    let (texts, tokens, finish) = speak(stop_after(&[2, 3]), &[0, 2, 2, 3]);
    assert_eq!(texts, ["a", "", "c", ""]);
    assert_eq!((tokens, finish), (vec![0, 2, 2, 3], Some(FinishReason::Stop)));
}

#[test]
fn eos_has_no_text_and_lets_go_of_what_was_held() {
    let (texts, tokens, finish) = speak(stop_after(&[2, 3, 4]), &[0, 2, 3, EOS]);
    assert_eq!(texts, ["a", "", "", "cd"]);
    assert_eq!((tokens, finish), (vec![0, 2, 3, EOS], Some(FinishReason::Eos)));
}

#[test]
fn characters_are_delivered_whole() {
    assert_eq!(speak(SamplingParams::default(), &[20, 21, 1]).0, ["", "\u{e9}", "b"]);
}

#[test]
fn the_last_token_lets_go_of_everything() {
    let params = SamplingParams { max_tokens: 3, ..stop_at("bcd") };
    let (texts, _, finish) = speak(params.clone(), &[0, 1, 2, 3]);
    assert_eq!((texts.concat(), finish), ("abc".to_string(), Some(FinishReason::Length)));
    assert_eq!(speak(params, &[0, 1, 20]).0.concat(), "ab\u{fffd}");
}

#[test]
fn a_stop_on_the_last_token_is_a_stop() {
    let params = SamplingParams { max_tokens: 2, ..stop_at("b") };
    assert_eq!(speak(params, &[0, 1]).2, Some(FinishReason::Stop));
}

#[test]
fn stops_wait_for_min_tokens() {
    for stop in [stop_at("b"), stop_after(&[1])] {
        let params = SamplingParams { min_tokens: 3, ..stop };
        let (texts, _, finish) = speak(params, &[1, 0, 1]);
        assert_eq!((texts.concat(), finish), ("ba".to_string(), Some(FinishReason::Stop)));
    }
}

#[test]
fn without_a_tokenizer_there_are_tokens() {
    let mut output = Output::new(Arc::new(stop_after(&[2])), Arc::from([EOS]), None, &[0], true).unwrap();
    let ends = [1, 2].map(|token| output.push(Sampled { token, info: None }).unwrap());
    let delta = output.take(Delta::default());
    assert_eq!((ends, delta.text, delta.tokens), ([None, Some(FinishReason::Stop)], String::new(), vec![1, 2]));
}
