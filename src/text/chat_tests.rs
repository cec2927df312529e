//! Templates against the text that transformers (jinja2) renders for the same input, and templates that misbehave.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::chat::{ChatTemplate, MAX_TEMPLATE_BYTES};
use crate::error::{Error, Status};

const LLAMA3: &str = "{{- bos_token }}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + system }}
{%- if tools is not none %}
    {%- for tool in tools %}
        {{- '\\n' }}{{ tool | tojson(indent=4) }}
    {%- endfor %}
{%- endif %}
{{- '<|eot_id|>' }}
{%- for message in messages %}
    {%- if message.tool_calls is defined %}
        {%- generation %}{{- message.tool_calls[0].arguments | tojson }}{% endgeneration %}
    {%- else %}
        {{- '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\\n\\n' ~ message['content'].strip() ~ '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
";

const CHATML: &str = "{% for message in messages %}
    {% if loop.first and message.role != 'system' %}
<|im_start|>system
You are helpful.<|im_end|>
    {% endif %}
<|im_start|>{{ message.role }}
{{ message.content.split('</think>')[-1].lstrip('\\n') }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
";

const MISTRAL: &str = "{%- set ns = namespace(index=0, last=none) -%}
{%- for message in messages %}
    {%- if (message.role == 'user') != (ns.index % 2 == 0) %}
        {{- raise_exception('roles must alternate, message ' ~ loop.index ~ ' is ' + message.role) }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
    {%- set ns.last = message %}
{%- endfor %}
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- if tools and loop.last %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}
        {{- '[INST] ' + message.content + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message.content + eos_token }}
    {%- endif %}
{%- endfor %}{{ ns.last.role }} {{ true }} {{ none }} {{ missing }}
";

fn conversation() -> Value {
    json!([
        {"role": "system", "content": "  Sei kurz. "},
        {"role": "user", "content": "Grüße 😀\n"},
        {"role": "assistant", "content": "<think>hm</think>\n\nHallo"},
        {"role": "user", "content": "<b>&\"q\"</b>"}
    ])
}

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "zug", "about": "\u{e4}\t'<&>", "args": {"z": 1e-7, "a": [1.0, 1e16, -0.5, null, true], "e": {}, "l": []}}}])
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, Some("<s>"), Some("</s>")).unwrap()
}

fn failure(source: &str) -> Error {
    let rendered =
        ChatTemplate::new(source, None, None).and_then(|template| template.render(&conversation(), None, true));
    let error = rendered.unwrap_err();
    assert_eq!(error.status(), Status::InvalidTemplate);
    error
}

#[test]
fn the_text_is_that_of_transformers() {
    let calls = json!([{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [{"arguments": {"b": "\u{fc}", "a": 2}}]}]);
    let (full, tools) = (conversation(), tools());
    let rest: Value = full.as_array().unwrap()[1..].to_vec().into();
    let cases = [
        (
            LLAMA3,
            &full,
            Some(&tools),
            true,
            "<s><|start_header_id|>system<|end_header_id|>\n\nSei kurz.\n{\n    \"type\": \"function\",\n    \"function\": {\n        \"name\": \"zug\",\n        \"about\": \"ä\\t'<&>\",\n        \"args\": {\n            \"z\": 1e-07,\n            \"a\": [\n                1.0,\n                1e+16,\n                -0.5,\n                null,\n                true\n            ],\n            \"e\": {},\n            \"l\": []\n        }\n    }\n}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nGrüße 😀<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n<think>hm</think>\n\nHallo<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n<b>&\"q\"</b><|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            LLAMA3,
            &calls,
            None,
            false,
            "<s><|start_header_id|>system<|end_header_id|>\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nx<|eot_id|>{\"b\": \"ü\", \"a\": 2}",
        ),
        (
            CHATML,
            &full,
            None,
            true,
            "<|im_start|>system\n  Sei kurz. <|im_end|>\n<|im_start|>user\nGrüße 😀\n<|im_end|>\n<|im_start|>assistant\nHallo<|im_end|>\n<|im_start|>user\n<b>&\"q\"</b><|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            CHATML,
            &rest,
            None,
            false,
            "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nGrüße 😀\n<|im_end|>\n<|im_start|>assistant\nHallo<|im_end|>\n<|im_start|>user\n<b>&\"q\"</b><|im_end|>\n",
        ),
        (
            MISTRAL,
            &rest,
            Some(&tools),
            true,
            "<s>[INST] Grüße 😀\n [/INST] <think>hm</think>\n\nHallo</s>[AVAILABLE_TOOLS] [{\"type\": \"function\", \"function\": {\"name\": \"zug\", \"about\": \"ä\\t'<&>\", \"args\": {\"z\": 1e-07, \"a\": [1.0, 1e+16, -0.5, null, true], \"e\": {}, \"l\": []}}}][/AVAILABLE_TOOLS][INST] <b>&\"q\"</b> [/INST]user True None ",
        ),
    ];
    for (source, messages, tools, prompt, expected) in cases {
        assert_eq!(template(source).render(messages, tools, prompt).as_deref(), Ok(expected));
    }
}

#[test]
fn json_options_are_those_of_python() {
    // json.dumps(x, ensure_ascii=..., indent=..., separators=..., sort_keys=...)
    let cases = [
        ("tojson", r#"{"b": ["é😀", 1.5], "a": {}}"#),
        ("tojson(ensure_ascii=true)", r#"{"b": ["\u00e9\ud83d\ude00", 1.5], "a": {}}"#),
        ("tojson(separators=(',', ':'), sort_keys=true)", r#"{"a":{},"b":["é😀",1.5]}"#),
        ("tojson(indent=1)", "{\n \"b\": [\n  \"é😀\",\n  1.5\n ],\n \"a\": {}\n}"),
        ("tojson(indent=0)", "{\n\"b\": [\n\"é😀\",\n1.5\n],\n\"a\": {}\n}"),
    ];
    let messages = json!([{"b": ["é😀", 1.5], "a": {}}]);
    for (filter, expected) in cases {
        let source = format!("{{{{ messages[0] | {filter} }}}}");
        assert_eq!(template(&source).render(&messages, None, false).as_deref(), Ok(expected), "{filter}");
    }
    failure("{{ 1 | tojson(indent=10**9) }}");
    failure("{{ 1 | tojson(colour=1) }}");
    failure("{{ missing | tojson }}");
}

#[test]
fn raise_exception_surfaces_its_message_and_line() {
    let error = template(MISTRAL).render(&json!([{"role": "assistant", "content": ""}]), None, true).unwrap_err();
    let why = "roles must alternate, message 1 is assistant".to_owned();
    assert_eq!(error, Error::InvalidTemplate { what: "line 4".to_owned(), why });
}

#[test]
fn the_date_is_formatted() {
    let date = template("{{ strftime_now('%Y-%m-%d') }}").render(&json!([]), None, false).unwrap();
    assert!(date.len() == 10 && date.starts_with("20"), "{date}");
    failure("{{ strftime_now('%Q') }}");
}

#[test]
fn what_is_not_a_template_or_a_conversation_is_refused() {
    failure("{% if %}");
    failure("{% include 'other' %}");
    failure(&"x".repeat(MAX_TEMPLATE_BYTES + 1));
    let error = template("x").render(&json!({"role": "user"}), None, true).unwrap_err();
    assert_eq!(error.status(), Status::InvalidArgument);
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    assert_eq!(template("x").render(&deep, None, true).unwrap_err().status(), Status::InvalidArgument);
}

#[test]
fn the_jinja_file_wins_over_the_config() {
    let find = |config: Option<&str>, jinja: Option<&[u8]>| ChatTemplate::find(config.map(str::as_bytes), jinja);
    let config = r#"{"chat_template": "from config"}"#;
    let list = r#"{"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]}"#;
    assert_eq!(find(Some(config), Some(b"from file")), Ok(Some("from file".to_owned())));
    assert_eq!(find(Some(config), None), Ok(Some("from config".to_owned())));
    assert_eq!(find(Some(list), None), Ok(Some("d".to_owned())));
    assert_eq!(find(Some("{}"), None), Ok(None));
    assert_eq!(find(None, None), Ok(None));
    assert_eq!(find(None, Some(b"\xFF")).unwrap_err().status(), Status::InvalidTemplate);
    for bad in [r#"{"chat_template": 1}"#, r#"{"chat_template": [{"name": "rag"}]}"#] {
        assert_eq!(find(Some(bad), None).unwrap_err().status(), Status::InvalidTemplate);
    }
}

/// Each of these would otherwise take the memory, the time or the stack of the process. They run on a small stack, where an
/// overflow aborts the test program.
#[test]
fn bombs_end_quickly() {
    let looped = |step: &str, end: &str| {
        format!("{{% set ns = namespace(x=[1], s='a') %}}{{% for i in range(100000) %}}{step}{{% endfor %}}{end}")
    };
    let bombs = [
        "{{ 'a' * 10**9 }}".to_owned(),
        "{{ ([1] * 10**9) | length }}".to_owned(),
        "{% for i in range(10**9) %}x{% endfor %}".to_owned(),
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}".to_owned(),
        "{% for i in range(100000) %}{{ messages[0].content * 100 }}{% endfor %}".to_owned(),
        "{% set x %}{% for i in range(100000) %}{{ 'a' * 1000 }}{% endfor %}{% endset %}".to_owned(),
        "{{ '%1000000000d' | format(1) }}".to_owned(),
        "{{ '{:1000000000}'.format(1) }}".to_owned(),
        "{{ ('a' * 100000).replace('a', 'b' * 100000) }}".to_owned(),
        "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}".to_owned(),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned(),
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        "{% include 'chat' %}".to_owned(),
        "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}".to_owned(),
        looped("{% set ns.s = ns.s ~ ns.s %}", ""),
        looped("{% set ns.x = ns.x + ns.x %}", "{{ ns.x | length }}"),
        looped("{% set ns.x = [ns.x] %}", "{{ ns.x }}"),
        looped("{% set ns.x = {'a': ns.x} %}", ""),
        looped("{% set ns.x = [ns.x, ns.x] %}", "{{ ns.x ~ '' }}"),
        looped("{% set ns.s = ns.s ~ 'aaaaaaaa' %}{% set y = ns.s.find('b') %}", ""),
        format!("{{{{ x{} }}}}", "~x".repeat(120_000)),
        format!("{{{{ {}x }}}}", "not ".repeat(60_000)),
        format!("{{{{ {}x }}}}", "(".repeat(200_000)),
        format!("{{% if x %}}{}{{% endif %}}", "{%elif x%}".repeat(20_000)),
    ];
    let run = || {
        for bomb in &bombs {
            let start = Instant::now();
            failure(bomb);
            // Generous: an unbounded one takes minutes or all memory.
            assert!(start.elapsed() < Duration::from_secs(5), "{}", &bomb[..bomb.len().min(80)]);
        }
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new().stack_size(1 << 20).spawn_scoped(scope, run).unwrap().join().unwrap()
    });
}

#[test]
fn the_longest_accepted_tags_compile_on_a_small_stack() {
    let run = || {
        for chain in ["~x", "+x", ".a", "|e", "()", " and x", " is none", " if x else 1"] {
            let operators = 1000 / chain.split(' ').filter(|word| !word.is_empty()).count().max(2);
            let source = format!("{{% if false %}}{{{{ x{} }}}}{{% endif %}}", chain.repeat(operators));
            assert_eq!(template(&source).render(&json!([]), None, false).as_deref(), Ok(""), "{chain}");
        }
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new().stack_size(1 << 20).spawn_scoped(scope, run).unwrap().join().unwrap()
    });
}

#[test]
fn a_long_conversation_passes() {
    let turn = |i: usize| json!({"role": if i.is_multiple_of(2) { "user" } else { "assistant" }, "content": "word ".repeat(100)});
    let messages: Value = (0..2000).map(turn).collect();
    for source in [LLAMA3, CHATML, MISTRAL] {
        assert!(template(source).render(&messages, None, true).unwrap().len() > 900_000);
    }
}

#[test]
fn damaged_templates_never_panic() {
    for source in [LLAMA3, CHATML, MISTRAL] {
        for at in (0..source.len()).filter(|at| source.is_char_boundary(*at)) {
            for damage in ["", "%}", "{{", "'", "[", "*", "=", "é"] {
                let damaged = format!("{}{damage}{}", &source[..at], source.get(at + 1..).unwrap_or_default());
                if let Ok(template) = ChatTemplate::new(&damaged, None, None) {
                    let _ = template.render(&conversation(), None, true);
                }
            }
        }
    }
}
