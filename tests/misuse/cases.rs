//! The C program of all misuse: for every function a valid call, and calls in which one argument is wrong.

use std::fmt::Write as _;

use crate::field;
use crate::headers::{Enum, Function, Headers, Struct};
use crate::parameter::{Role, noun, role, waits};

/// The program, or the names of what it does not know how to misuse.
pub fn program(headers: &Headers) -> Result<String, Vec<String>> {
    let mut unknown = field::stale(headers);
    let mut text = "#define _DEFAULT_SOURCE\n#include \"misuse.h\"\n\n".to_owned();
    headers.structs.iter().filter(|s| s.is_config()).for_each(|config| text += &defaults(config));
    for function in &headers.functions {
        match cases(headers, function) {
            Ok(cases) => text += &cases,
            Err(names) => unknown.extend(names),
        }
    }
    text += "int main(int argc, char **argv) {\n    create_world(argc, argv);\n";
    for config in headers.structs.iter().filter(|s| s.is_config()) {
        writeln!(text, "    SAME_DEFAULTS({});", config.name).expect("a String takes everything");
    }
    for function in &headers.functions {
        writeln!(text, "    {}_cases();\n    still_works();", function.name).expect("a String takes everything");
    }
    text += "    destroy_world();\n    return 0;\n}\n";
    if unknown.is_empty() { Ok(text) } else { Err(unknown) }
}

fn defaults(config: &Struct) -> String {
    let (name, init) = (&config.name, config.initializer());
    format!(
        "static {name} {name}_default(void) {{\n    {name} config = {init};\n    return config;\n}}\n\n\
         static inline {name} *valid_{name}(void) {{\n    {name} config = {init};\n    return input(&config, sizeof config);\n}}\n\n"
    )
}

fn cases(headers: &Headers, function: &Function) -> Result<String, Vec<String>> {
    if function.result != "trtllm_status" || function.parameters.is_empty() {
        return without_status(headers, function).ok_or_else(|| vec![function.name.clone()]);
    }
    let (mut unknown, mut roles) = (Vec::new(), Vec::new());
    for (at, parameter) in function.parameters.iter().enumerate() {
        let known = role(headers, function, at);
        match known.and_then(|role| role.valid(function, &parameter.name).map(|valid| (role, valid))) {
            Some(pair) => roles.push(pair),
            None => unknown.push(format!("{}({} {})", function.name, parameter.of, parameter.name)),
        }
    }
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let mut body = valid_use(function);
    for (parameter, (role, _)) in function.parameters.iter().zip(&roles) {
        match misuse(headers, function, &parameter.name, role) {
            Ok(lines) => body += &lines,
            Err(names) => unknown.extend(names),
        }
    }
    let valid: Vec<_> = roles.into_iter().map(|(_, valid)| valid).collect();
    let text = call(function, &valid) + &format!("static void {}_cases(void) {{\n{body}}}\n\n", function.name);
    if unknown.is_empty() { Ok(text) } else { Err(unknown) }
}

/// The arguments of a function as a struct, valid ones, the call with them, and the end of what it returned.
fn call(function: &Function, valid: &[String]) -> String {
    let name = &function.name;
    let fields: String = function.parameters.iter().map(|p| format!("    {} {};\n", p.of, p.name)).collect();
    let values = function.parameters.iter().zip(valid);
    let values: String = values.map(|(p, value)| format!("    a.{} = {value};\n", p.name)).collect();
    let arguments: Vec<_> = function.parameters.iter().map(|p| format!("a->{}", p.name)).collect();
    format!(
        "typedef struct {{\n{fields}}} {name}_arguments;\n\n\
         static {name}_arguments {name}_valid(void) {{\n    {name}_arguments a;\n{values}    return a;\n}}\n\n\
         static trtllm_status {name}_call(const {name}_arguments *a) {{\n    return {name}({});\n}}\n\n\
         static void {name}_release(const {name}_arguments *a) {{\n    (void)a;\n{}}}\n\n",
        arguments.join(", "),
        release(function)
    )
}

fn release(function: &Function) -> String {
    let mut text = String::new();
    for parameter in &function.parameters {
        let base = parameter.of.trim_end_matches([' ', '*']);
        let line = match (parameter.of.as_str(), parameter.name.as_str()) {
            (of, "responses") if of.ends_with("* *") => {
                format!("    for (size_t i = 0; i < *a->count; i++) OK({base}_destroy(a->responses[i]));\n")
            }
            (of, name) if of.ends_with("* *") => format!("    OK({base}_destroy(*a->{name}));\n"),
            ("uint64_t *", "request_id") => "    finish(*a->request_id, NULL);\n".to_owned(),
            (_, name) if function.name.ends_with("_shutdown") => format!("    OK({base}_destroy(a->{name}));\n"),
            _ => continue,
        };
        text += &line;
    }
    text
}

/// The valid call, of functions that end an object with one of its own.
fn valid_use(function: &Function) -> String {
    let name = &function.name;
    let change = match function.parameters.first() {
        Some(first) if name.ends_with("_destroy") || name.ends_with("_shutdown") => {
            format!("a.{} = spare_{}()", first.name, noun(first.of.trim_end_matches([' ', '*'])))
        }
        _ if waits(function) => "(a.request_id = submitted(), a.timeout_ms = TRTLLM_WAIT_FOREVER)".to_owned(),
        _ => "(void)0".to_owned(),
    };
    format!("    ACCEPTED({name}, \"all\", \"valid\", {change});\n")
}

/// The cases in which the parameter `name` is wrong.
fn misuse(headers: &Headers, function: &Function, name: &str, role: &Role) -> Result<String, Vec<String>> {
    let f = &function.name;
    let of = function.parameters.iter().find(|p| p.name == name).map_or("", |p| p.of.as_str());
    let null = format!("    NULL_POINTER({f}, {name});\n");
    let null_is_fine = format!("    ACCEPTED({f}, \"{name}\", \"NULL\", a.{name} = NULL);\n");
    let array = |length: &str| {
        format!("    NULL_WITH_LENGTH({f}, {name}, {length});\n    LENGTHS({f}, {name}, {length}, \"`{name}`\");\n")
    };
    let empty = |length: &str, culprit: &str| match function.doc.contains("Not empty") {
        true => {
            format!("    REFUSED({f}, \"{name}\", \"empty\", a.{length} = 0, INVALID_ARGUMENT, \"`{culprit}`\");\n")
        }
        false => format!("    ACCEPTED({f}, \"{name}\", \"empty\", (a.{name} = NULL, a.{length} = 0));\n"),
    };
    Ok(match role {
        Role::Handle => {
            let base = of.trim_start_matches("const ").trim_end_matches([' ', '*']);
            let handles = format!("    HANDLE({f}, {name}, {});\n", noun(base).to_uppercase());
            handles + if function.doc.contains("NULL is fine") { &null_is_fine } else { &null }
        }
        Role::NewHandle | Role::NewNumber => format!("{null}    MISALIGNED({f}, {name});\n"),
        Role::NewHandles { capacity } => {
            format!("{null}    MISALIGNED({f}, {name});\n    CAPACITY({f}, {capacity});\n")
        }
        Role::Config(of) => config(headers, function, name, of, &null, &null_is_fine)?,
        Role::Filled { of, size } => {
            format!("{null}    MISALIGNED({f}, {name});\n    SIZE_OF_RESULT({f}, {name}, {size}, {});\n", of.name)
        }
        Role::Text { length } if name == "messages" => {
            array(length) + &format!("    NOT_UTF8({f}, {name}, {length});\n    NOT_MESSAGES({f}, {name}, {length});\n")
        }
        Role::Text { length } => {
            array(length) + &format!("    NOT_UTF8({f}, {name}, {length});\n") + &empty(length, name)
        }
        Role::Tokens { length } => array(length) + &format!("    MISALIGNED({f}, {name});\n") + &empty(length, length),
        Role::Bytes { length } => {
            array(length) + &format!("    BYTES({f}, {name}, {length});\n") + &empty(length, name)
        }
        Role::Names { length } => format!("    NAMES({f}, {name}, {length});\n") + &empty(length, name),
        Role::Path => {
            let missing = if name == "engine_path" { "NO_FOLDER" } else { "NO_FILE" };
            format!("{null}    STRING_NOT_UTF8({f}, {name});\n    NAME({f}, {name});\n    {missing}({f}, {name});\n")
        }
        Role::EndedText => format!("{null}    STRING_NOT_UTF8({f}, {name});\n    ENDLESS_TEXT({f}, {name});\n"),
        Role::Buffer { capacity, length } => {
            let nul = usize::from(of == "char *");
            let aligned =
                if nul == 0 { format!("    MISALIGNED_RESULT({f}, {name}, {capacity});\n") } else { String::new() };
            format!("{aligned}    RESULT({f}, {name}, {capacity}, {length}, {nul});\n")
        }
        Role::Size(_) | Role::OfCallback(_) => String::new(),
        Role::Flag => format!("    FLAG({f}, {name});\n"),
        Role::RequestId => format!("    REQUEST_ID({f}, {name});\n"),
        Role::Timeout => format!("    TIMEOUT({f}, {name});\n"),
        Role::Milliseconds => format!("    MILLISECONDS({f}, {name});\n"),
        Role::TokenId => format!("    TOKEN_ID({f}, {name});\n"),
        Role::Bias => format!("    BIAS({f}, {name});\n"),
        Role::Version => format!("    VERSION({f}, {name});\n"),
        Role::Callback { user_data, free } => format!("    CALLBACK({f}, {name}, {user_data}, {free});\n"),
    })
}

fn config(
    headers: &Headers,
    function: &Function,
    name: &str,
    of: &Struct,
    null: &str,
    null_is_fine: &str,
) -> Result<String, Vec<String>> {
    let mut text = if function.doc.contains("NULL") { null_is_fine.to_owned() } else { null.to_owned() };
    writeln!(text, "    CONFIG_SIZE({}, {name}, {});", function.name, of.name).expect("a String takes everything");
    let mut unknown = Vec::new();
    for each in &of.fields {
        match field::cases(headers, &function.name, name, of, each) {
            Some(cases) => text += &cases,
            None => unknown.push(format!("{}.{} of type {}", of.name, each.name, each.of)),
        }
    }
    if unknown.is_empty() { Ok(text) } else { Err(unknown) }
}

/// Functions that cannot fail: what they say about every number, or about nothing.
fn without_status(headers: &Headers, function: &Function) -> Option<String> {
    let name = &function.name;
    let body = match (function.result.as_str(), function.parameters.as_slice()) {
        ("const char *", []) => {
            format!("    begin(\"{name}\", \"all\", \"text\");\n    if ({name}() == NULL) wrong(\"NULL\");\n")
        }
        ("uint32_t", []) => {
            format!(
                "    begin(\"{name}\", \"all\", \"number\");\n    if ({name}() != TRTLLM_VERSION_NUMBER) wrong(\"differs\");\n"
            )
        }
        ("trtllm_status", []) => {
            format!(
                "    begin(\"{name}\", \"all\", \"status\");\n    if (*trtllm_status_name({name}()) == '\\0') wrong(\"none\");\n"
            )
        }
        ("const char *", [parameter]) if parameter.of == "int32_t" => {
            let prefix = format!("trtllm_{}", parameter.name);
            names(name, headers.enums.iter().find(|e| e.name == prefix)?)
        }
        _ => return None,
    };
    Some(format!("static void {name}_cases(void) {{\n{body}}}\n\n"))
}

fn names(function: &str, of: &Enum) -> String {
    let prefix = format!("{}_", of.name.to_uppercase());
    let known = of.values.iter().map(|(name, value)| (value.to_string(), name.trim_start_matches(&prefix).to_owned()));
    let others = field::values_outside(of, false).into_iter().map(|value| (value, "UNKNOWN".to_owned()));
    known.chain(others).map(|(value, name)| format!("    NAMED({function}, {value}, \"{name}\");\n")).collect()
}
