//! What a parameter is for. That decides its valid value and what may be wrong with it.

use crate::headers::{Function, Headers, Struct};

/// The role of a parameter, with the parameters that belong to it.
pub enum Role<'a> {
    /// A handle that the call uses.
    Handle,
    /// Where one new handle goes.
    NewHandle,
    /// Where up to `capacity` new handles go.
    NewHandles {
        capacity: &'a str,
    },
    /// A struct that the caller fills.
    Config(&'a Struct),
    /// A struct that the library fills, of `size` bytes.
    Filled {
        of: &'a Struct,
        size: &'a str,
    },
    /// Text and `length`.
    Text {
        length: &'a str,
    },
    Tokens {
        length: &'a str,
    },
    Bytes {
        length: &'a str,
    },
    Names {
        length: &'a str,
    },
    /// A path of this name, ended by a NUL.
    Path,
    /// A text ended by a NUL.
    EndedText,
    /// A result of unknown size.
    Buffer {
        capacity: &'a str,
        length: &'a str,
    },
    /// Where one number goes.
    NewNumber,
    /// A size, length or capacity: judged with what it is the size of. The value is a C expression.
    Size(String),
    Flag,
    RequestId,
    Timeout,
    Milliseconds,
    TokenId,
    Bias,
    Version,
    Callback {
        user_data: &'a str,
        free: &'a str,
    },
    /// Judged with the callback. The value is a C expression.
    OfCallback(&'static str),
}

/// The role of the parameter `at`; `None` when this test does not know such a parameter.
pub fn role<'a>(headers: &'a Headers, function: &'a Function, at: usize) -> Option<Role<'a>> {
    let parameter = &function.parameters[at];
    let name = |index: usize| function.parameters.get(index).map_or("", |p| p.name.as_str());
    let of = |index: usize| function.parameters.get(index).map_or("", |p| p.of.as_str());
    let before = |distance: usize| at.checked_sub(distance).map_or(("", ""), |index| (of(index), name(index)));
    let base = parameter.of.trim_start_matches("const ").trim_end_matches([' ', '*']);
    let handle = headers.handles.iter().any(|h| h == base);
    let of_struct = headers.structs.iter().find(|s| s.name == base);
    Some(match (parameter.of.as_str(), parameter.name.as_str()) {
        (t, _) if handle && t.ends_with("* *") => match before(1) {
            ("size_t", "capacity") => Role::NewHandles { capacity: name(at - 1) },
            _ => Role::NewHandle,
        },
        (_, _) if handle => Role::Handle,
        (t, _) if of_struct.is_some_and(Struct::is_config) && t.starts_with("const ") => Role::Config(of_struct?),
        (_, _) if of_struct.is_some() && before(1).0 == "size_t" => Role::Filled { of: of_struct?, size: name(at - 1) },
        ("size_t", n) if n.ends_with("_size") => Role::Size(format!("sizeof *a.{}", name(at + 1))),
        ("const char *", _) if of(at + 1) == "size_t" => Role::Text { length: name(at + 1) },
        ("const uint32_t *", _) if of(at + 1) == "size_t" => Role::Tokens { length: name(at + 1) },
        ("const uint8_t *", _) if of(at + 1) == "size_t" => Role::Bytes { length: name(at + 1) },
        ("const char * const *", _) if of(at + 1) == "size_t" => Role::Names { length: name(at + 1) },
        ("size_t", _) => Role::Size(
            match before(1) {
                ("const char *", "messages") => "strlen(MESSAGES)",
                ("const char *", _) => "strlen(PROMPT)",
                ("const uint32_t *", _) => "LENGTH_OF(TOKENS)",
                ("const uint8_t *", _) => "strlen(SALT)",
                ("const char * const *", _) => "1",
                ("char *" | "uint32_t *", buffer) => return Some(Role::Size(format!("BUFFER / sizeof *a.{buffer}"))),
                _ if parameter.name == "capacity" && of(at + 1).ends_with("* *") => "HANDLES",
                _ => return None,
            }
            .to_owned(),
        ),
        ("const char *", n) if n.ends_with("path") => Role::Path,
        ("const char *", "text") => Role::EndedText,
        ("char *" | "uint32_t *", _) if (of(at + 1), of(at + 2)) == ("size_t", "size_t *") => {
            Role::Buffer { capacity: name(at + 1), length: name(at + 2) }
        }
        ("size_t *" | "uint64_t *", _) => Role::NewNumber,
        ("int32_t", _) => Role::Flag,
        ("uint64_t", "request_id") => Role::RequestId,
        ("int64_t", "timeout_ms") => Role::Timeout,
        ("uint64_t", "milliseconds") => Role::Milliseconds,
        ("uint32_t", "token") => Role::TokenId,
        ("float", "bias") => Role::Bias,
        ("uint32_t", "major" | "minor") => Role::Version,
        ("trtllm_response_callback", _) => Role::Callback { user_data: name(at + 1), free: name(at + 2) },
        ("void *", _) => Role::OfCallback("&frees"),
        ("trtllm_user_data_free", _) => Role::OfCallback("freed"),
        _ => return None,
    })
}

impl Role<'_> {
    /// A C expression for a valid value of the parameter `name` of `function`; `a` are the arguments before it.
    pub fn valid(&self, function: &Function, name: &str) -> Option<String> {
        let of = function.parameters.iter().find(|p| p.name == name).map_or("", |p| p.of.as_str());
        let base = of.trim_start_matches("const ").trim_end_matches([' ', '*']);
        Some(match self {
            Role::Handle => format!("world.{}", noun(base)),
            Role::NewHandle | Role::NewNumber => format!("output(sizeof *a.{name})"),
            Role::NewHandles { .. } => format!("output(HANDLES * sizeof *a.{name})"),
            Role::Config(of) => format!("valid_{}()", of.name),
            Role::Filled { of, .. } => format!("output(sizeof({}))", of.name),
            Role::Text { .. } if name == "messages" => "input(MESSAGES, strlen(MESSAGES))".to_owned(),
            Role::Text { .. } => "input(PROMPT, strlen(PROMPT))".to_owned(),
            Role::Tokens { .. } => "input(TOKENS, sizeof TOKENS)".to_owned(),
            Role::Bytes { .. } => "input(SALT, strlen(SALT))".to_owned(),
            Role::Names { .. } => "names(string(\"qkv\"))".to_owned(),
            Role::Path => match name {
                "checkpoint_path" => "string(world.checkpoint)".to_owned(),
                "engine_path" => "string(world.build_path)".to_owned(),
                "path" => "string(world.engine_path)".to_owned(),
                _ => return None,
            },
            Role::EndedText => "string(PROMPT)".to_owned(),
            Role::Buffer { .. } => "output(BUFFER)".to_owned(),
            Role::Size(value) => value.clone(),
            Role::Flag => "1".to_owned(),
            // The first request was given this id, and has ended.
            Role::RequestId if waits(function) => "TRTLLM_ANY_REQUEST".to_owned(),
            Role::RequestId => "1".to_owned(),
            Role::Timeout => "0".to_owned(),
            Role::Milliseconds => "1000".to_owned(),
            Role::TokenId => "5".to_owned(),
            Role::Bias => "1.0f".to_owned(),
            Role::Version => format!("TRTLLM_VERSION_{}", name.to_uppercase()),
            Role::Callback { .. } => "heard".to_owned(),
            Role::OfCallback(value) => (*value).to_owned(),
        })
    }
}

/// Whether the function waits for a response.
pub fn waits(function: &Function) -> bool {
    function.parameters.iter().any(|parameter| parameter.name == "timeout_ms")
}

/// `engine` of `trtllm_engine`.
pub fn noun(handle: &str) -> &str {
    handle.trim_start_matches("trtllm_")
}
