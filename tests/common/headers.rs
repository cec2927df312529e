//! The C headers read back: everything they declare, for tests that must not forget any of it. They are cbindgen's, so that
//! a few shapes of declaration are all there are; another shape stops the test.

#![allow(dead_code)] // Each test program uses its part.

use std::path::Path;

/// What `include/trtllm/*.h` declare, in the order of the umbrella header.
#[derive(Default)]
pub struct Headers {
    pub functions: Vec<Function>,
    pub structs: Vec<Struct>,
    pub enums: Vec<Enum>,
    pub callbacks: Vec<Function>,
    /// Opaque types.
    pub handles: Vec<String>,
    /// Macros whose value is a number.
    pub constants: Vec<(String, i64)>,
}

pub struct Function {
    pub name: String,
    pub result: String,
    pub parameters: Vec<Variable>,
    pub doc: String,
}

pub struct Struct {
    pub name: String,
    pub fields: Vec<Variable>,
}

pub struct Enum {
    pub name: String,
    pub values: Vec<(String, i64)>,
}

/// A parameter or a field. The words of its type are separated by single spaces, e.g. `const char * const *`.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    pub name: String,
    pub of: String,
    pub doc: String,
}

impl Struct {
    /// A caller fills it and says how large it is in its first field.
    pub fn is_config(&self) -> bool {
        self.fields.first().is_some_and(|field| field.name == "struct_size")
    }

    /// What its `_INIT` macro is called.
    pub fn initializer(&self) -> String {
        format!("{}_INIT", self.name.to_uppercase())
    }
}

impl Headers {
    /// Reads the headers in `include`, in the order of `trtllm.h`.
    pub fn read(include: &Path) -> Self {
        let text = |path: &str| std::fs::read_to_string(include.join(path)).expect("the header is readable");
        let umbrella = text("trtllm.h");
        let paths = umbrella.lines().filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"'));
        let mut headers = Self::default();
        paths.for_each(|path| headers.add(&text(path)));
        headers
    }

    /// Adds what the text of one header declares.
    pub fn add(&mut self, text: &str) {
        self.constants.extend(text.lines().filter_map(constant));
        let tokens = tokens(&without_directives(text));
        let mut rest = tokens.as_slice();
        while rest.iter().any(|token| matches!(token, Token::Word(_))) {
            let end = declaration_end(rest);
            self.declaration(&rest[..end]);
            rest = &rest[end + 1..];
        }
    }

    fn declaration(&mut self, tokens: &[Token]) {
        let (doc, tokens) = split_doc(tokens);
        let words: Vec<_> = tokens.iter().filter_map(Token::word).collect();
        match words.as_slice() {
            ["enum", name, .., "}"] => self.enums.push(Enum { name: (*name).to_owned(), values: values(&words) }),
            ["typedef", "struct", "{", .., name] => {
                let fields = &tokens[3..tokens.len() - 2];
                let fields = fields.split(|t| t.is(";")).filter(|field| field.iter().any(|t| t.word().is_some()));
                self.structs.push(Struct { name: (*name).to_owned(), fields: fields.map(variable).collect() });
            }
            ["typedef", "struct", name, again] if name == again => self.handles.push((*name).to_owned()),
            // The two ways in which C spells the name of an enum.
            ["typedef", "enum", ..] | ["typedef", "int32_t", _] => {}
            // `typedef RESULT (*NAME)(PARAMETERS)`.
            ["typedef", .., ")"] => {
                let open = words.iter().position(|w| *w == "(").expect("the name stands in parentheses");
                let parameters = &tokens[open + 5..tokens.len() - 1];
                self.callbacks.push(function(doc, &words[1..open], words[open + 2], parameters));
            }
            [.., ")"] => {
                let open = words.iter().position(|w| *w == "(").expect("a function has parameters");
                let result: Vec<_> = words[..open - 1].iter().copied().filter(|w| *w != "TRTLLM_MUST_USE").collect();
                let parameters = &tokens[open + 1..tokens.len() - 1];
                self.functions.push(function(doc, &result, words[open - 1], parameters));
            }
            other => panic!("a declaration of unknown shape in the headers: {}", other.join(" ")),
        }
    }
}

fn function(doc: String, result: &[&str], name: &str, parameters: &[Token]) -> Function {
    let parameters = match parameters {
        [] => Vec::new(),
        [void] if void.is("void") => Vec::new(),
        list => list.split(|t| t.is(",")).map(variable).collect(),
    };
    Function { name: name.to_owned(), result: result.join(" "), parameters, doc }
}

fn variable(tokens: &[Token]) -> Variable {
    let (doc, tokens) = split_doc(tokens);
    let words: Vec<_> = tokens.iter().filter_map(Token::word).collect();
    let (name, of) = words.split_last().expect("a variable has a name and a type");
    Variable { name: (*name).to_owned(), of: of.join(" "), doc }
}

/// `enum NAME : int32_t { A = 0, B = 1, }`.
fn values(words: &[&str]) -> Vec<(String, i64)> {
    let open = words.iter().position(|w| *w == "{").expect("an enum has values");
    let entries = words[open + 1..words.len() - 1].split(|w| *w == ",").filter(|entry| !entry.is_empty());
    let value = |entry: &[&str]| match entry {
        [name, "=", value] => ((*name).to_owned(), value.parse().expect("a value is a number")),
        other => panic!("an enumerator of unknown shape: {}", other.join(" ")),
    };
    entries.map(value).collect()
}

fn constant(line: &str) -> Option<(String, i64)> {
    let (name, value) = line.strip_prefix("#define ")?.split_once(' ')?;
    Some((name.to_owned(), value.parse().ok()?))
}

enum Token {
    Doc(String),
    Word(String),
}

impl Token {
    fn word(&self) -> Option<&str> {
        match self {
            Token::Word(word) => Some(word),
            Token::Doc(_) => None,
        }
    }

    fn is(&self, word: &str) -> bool {
        self.word() == Some(word)
    }
}

/// The header without directives, continuation lines and the braces of `extern "C"`.
fn without_directives(text: &str) -> String {
    let (mut kept, mut continued) = (String::new(), false);
    for line in text.lines() {
        if !continued && !line.starts_with('#') && !line.contains("extern \"C\"") {
            kept.push_str(line);
            kept.push('\n');
        }
        continued = line.ends_with('\\') && (continued || line.starts_with('#'));
    }
    kept
}

fn tokens(text: &str) -> Vec<Token> {
    let (mut tokens, mut rest) = (Vec::new(), text.trim_start());
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("/*") {
            let end = rest.find("*/").expect("a comment ends") + 2;
            tokens.push(Token::Doc(comment(&rest[..end])));
            end
        } else {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').unwrap_or(rest.len());
            let end = end.max(first.len_utf8());
            tokens.push(Token::Word(rest[..end].to_owned()));
            end
        };
        rest = rest[length..].trim_start();
    }
    tokens
}

/// The text of a comment on one line.
fn comment(text: &str) -> String {
    let lines = text.trim_start_matches("/*").trim_end_matches("*/").lines();
    lines.map(|line| line.trim().trim_start_matches('*').trim()).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// Where the `;` of the first declaration stands.
fn declaration_end(tokens: &[Token]) -> usize {
    let mut depth = 0;
    let end = tokens.iter().position(|token| {
        depth += i32::from(token.is("{")) - i32::from(token.is("}"));
        depth == 0 && token.is(";")
    });
    end.expect("a declaration ends with a semicolon")
}

/// The last comment before the first word, and what follows it.
fn split_doc(tokens: &[Token]) -> (String, &[Token]) {
    let start = tokens.iter().position(|token| token.word().is_some()).expect("there is a declaration");
    let doc = tokens[..start].iter().rev().find_map(|token| match token {
        Token::Doc(text) => Some(text.clone()),
        Token::Word(_) => None,
    });
    (doc.unwrap_or_default(), &tokens[start..])
}
