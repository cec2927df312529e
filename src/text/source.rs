//! Reads the tags of a template source before minijinja compiles it.
//!
//! minijinja's parser recurses once per operator of an expression and its fuel does not see nested values, so that a short
//! template could overflow the stack of the host. Here overlong tags are refused, and every assignment is routed through
//! the functions of `hold`, which keep assigned values shallow. `{% generation %}` tags, which mark assistant text for
//! training, become no-ops that keep their whitespace control.

use super::hold::{HOLD, HOLD_ATTRIBUTE};

/// Most words and operators in one tag. The compiler takes about 1 KiB of stack for each; published templates stay far below.
const MAX_UNITS: usize = 1024;
/// Most `elif` tags: each nests into the one before.
const MAX_ELIFS: usize = 512;

/// The source that is compiled in place of `source`, or why it is refused.
pub(super) fn prepare(source: &str) -> Result<String, String> {
    let mut out = String::with_capacity(source.len() + source.len() / 8);
    let (mut rest, mut elifs) = (source, 0);
    while let Some(start) = next_opener(rest) {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let (opener, inside) = tag.split_at(2);
        out.push_str(opener);
        if opener == "{#" {
            rest = copy_through(inside, "#}", &mut out);
            continue;
        }
        let closer = if opener == "{%" { "%}" } else { "}}" };
        let Some((inner, units)) = tag_body(inside, closer) else {
            rest = inside;
            break;
        };
        if units > MAX_UNITS {
            return Err(format!("a tag has {units} words and operators, the limit is {MAX_UNITS}"));
        }
        rest = &inside[inner.len()..];
        if opener == "{{" {
            out.push_str(inner);
            continue;
        }
        match keyword(inner) {
            "raw" => {
                out.push_str(inner);
                rest = copy_through(rest, "endraw", &mut out);
            }
            "generation" => out.push_str(&inner.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&inner.replacen("endgeneration", "endif", 1)),
            "set" => out.push_str(&held_assignment(inner)),
            word => {
                elifs += usize::from(word == "elif");
                out.push_str(inner);
            }
        }
        if elifs > MAX_ELIFS {
            return Err(format!("has more than {MAX_ELIFS} elif tags"));
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn next_opener(text: &str) -> Option<usize> {
    text.as_bytes().windows(2).position(|pair| matches!(pair, b"{{" | b"{%" | b"{#"))
}

/// Copies up to and with the first `end`; gives what follows it.
fn copy_through<'a>(text: &'a str, end: &str, out: &mut String) -> &'a str {
    let length = text.find(end).map_or(text.len(), |at| at + end.len());
    out.push_str(&text[..length]);
    &text[length..]
}

/// The tag's text before `closer`, and how many words and operators it has. Strings hide everything, brackets a closer.
fn tag_body<'a>(text: &'a str, closer: &str) -> Option<(&'a str, usize)> {
    let (mut units, mut in_word, mut balance) = (0, false, 0i32);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if balance == 0 && text[at..].starts_with(closer) {
            return Some((&text[..at], units));
        }
        balance += bracket(c);
        let continues_word = c.is_alphanumeric() || c == '_';
        let is_unit = if continues_word { !in_word } else { !c.is_whitespace() };
        units += usize::from(is_unit);
        in_word = continues_word;
        if matches!(c, '"' | '\'') {
            skip_string(c, &mut chars)?;
        }
    }
    None
}

/// Advances past the end of a string that began with `quote`.
fn skip_string(quote: char, chars: &mut std::str::CharIndices) -> Option<()> {
    loop {
        match chars.next()?.1 {
            '\\' => drop(chars.next()?),
            c if c == quote => return Some(()),
            _ => {}
        }
    }
}

fn bracket(c: char) -> i32 {
    match c {
        '(' | '[' | '{' => 1,
        ')' | ']' | '}' => -1,
        _ => 0,
    }
}

/// The first word of a block tag.
fn keyword(inner: &str) -> &str {
    let inner = inner.trim_start_matches(['-', '+']).trim_start();
    inner.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// `set target = value` with the value passed through `hold`; other forms of `set` as they are.
fn held_assignment(inner: &str) -> String {
    let body = inner.strip_suffix(['-', '+']).unwrap_or(inner);
    let Some(equals) = assignment(body) else {
        return inner.to_owned();
    };
    let (target, value) = (&body[..equals], &body[equals + 1..]);
    let function = if target.contains('.') { HOLD_ATTRIBUTE } else { HOLD };
    // The inner pair keeps an unparenthesised tuple one argument.
    format!("{target}={function}(({value})){}", &inner[body.len()..])
}

/// Where the assignment's `=` stands: outside brackets and strings, the first one.
fn assignment(body: &str) -> Option<usize> {
    let mut balance = 0;
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        balance += bracket(c);
        match c {
            '=' if balance == 0 => return Some(at),
            '"' | '\'' => skip_string(c, &mut chars)?,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_assignments_and_generation_tags_change() {
        let same = [
            "{{ a.b['}}'] ~ \"%}\" }} text = {# {% set x = 1 %} #}",
            "{% set x %}=1{% endset %}{%- if a == b -%}{% endif %}",
            "{% raw %}{% set x = 1 %}{{ '{% endraw %}",
            "{{ {'a': {'b': 1}} }}",
            "{{ unclosed '",
            "{% macro set(a='=') %}",
        ];
        for source in same {
            assert_eq!(prepare(source).as_deref(), Ok(source));
        }
        let changed = [
            ("{%- set x = 1 -%}", "{%- set x =__hold(( 1 ))-%}"),
            ("{% set a, b = 1, 'x=%}' %}", "{% set a, b =__hold(( 1, 'x=%}' ))%}"),
            ("{% set ns.x = a == b %}", "{% set ns.x =__hold_attribute(( a == b ))%}"),
            ("{%+ generation -%}é{%- endgeneration %}", "{%+ if true -%}é{%- endif %}"),
        ];
        for (source, expected) in changed {
            assert_eq!(prepare(source).as_deref(), Ok(expected));
        }
    }
}
