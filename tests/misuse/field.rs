//! What may be wrong with a field of a config struct.

use crate::headers::{Enum, Headers, Struct, Variable};

/// The values that a number refuses, each with its status, and extreme ones that it takes.
struct Number {
    field: &'static str,
    refuses: &'static [(&'static str, &'static str)],
    takes: &'static [&'static str],
}

const fn number(
    field: &'static str,
    refuses: &'static [(&'static str, &'static str)],
    takes: &'static [&'static str],
) -> Number {
    Number { field, refuses, takes }
}

const ARGUMENT: &str = "INVALID_ARGUMENT";

macro_rules! bad {
    ($($value:literal)*) => { &[$(($value, ARGUMENT)),*] };
}

const NUMBERS: &[Number] = &[
    number("trtllm_sampling.seed", &[], &["UINT64_MAX"]),
    number("trtllm_sampling.temperature", bad!["NAN" "INFINITY" "-INFINITY" "-1.0f" "100.5f"], &["100.0f"]),
    number("trtllm_sampling.top_k", &[], &["UINT32_MAX"]),
    number("trtllm_sampling.top_p", bad!["NAN" "INFINITY" "-INFINITY" "-1.0f" "0.0f" "1.5f"], &[]),
    number("trtllm_sampling.min_p", bad!["NAN" "INFINITY" "-INFINITY" "-1.0f" "1.5f"], &[]),
    number("trtllm_sampling.repetition_penalty", bad!["NAN" "INFINITY" "-INFINITY" "-1.0f" "0.0f"], &["3e38f"]),
    number("trtllm_sampling.presence_penalty", bad!["NAN" "INFINITY" "-INFINITY"], &["-3e38f", "3e38f"]),
    number("trtllm_sampling.frequency_penalty", bad!["NAN" "INFINITY" "-INFINITY"], &["-3e38f", "3e38f"]),
    number("trtllm_sampling.min_tokens", bad!["UINT32_MAX" "129"], &[]),
    number("trtllm_sampling.max_tokens", &[("0", ARGUMENT), ("UINT32_MAX", "REQUEST_TOO_LARGE")], &[]),
    number("trtllm_sampling.n", bad!["0" "129" "UINT32_MAX"], &[]),
    number("trtllm_sampling.logprobs", bad!["-2" "INT32_MIN" "1025" "INT32_MAX"], &["1024"]),
    number("trtllm_build_config.seed", &[], &["UINT64_MAX"]),
    number("trtllm_build_config.max_positions", bad!["UINT32_MAX"], &["1"]),
    number(
        "trtllm_executor_config.memory_budget",
        &[("1", "BUDGET_EXCEEDED"), ("1 << 20", "BUDGET_EXCEEDED")],
        &["UINT64_MAX"],
    ),
    number(
        "trtllm_executor_config.kv_tokens",
        &[("UINT64_MAX", ARGUMENT), ("(uint64_t)1 << 60", ARGUMENT), ("(uint64_t)1 << 35", "OUT_OF_MEMORY")],
        &["1"],
    ),
    number("trtllm_executor_config.max_batch_size", bad!["0" "(1 << 20) + 1" "UINT32_MAX"], &[]),
    number("trtllm_executor_config.max_batch_tokens", bad!["0" "(1 << 20) + 1" "UINT32_MAX"], &[]),
    number("trtllm_executor_config.max_sequence_tokens", &[], &["1", "UINT32_MAX"]),
    number("trtllm_executor_config.max_queue", bad!["0" "(1 << 20) + 1" "UINT32_MAX"], &["1 << 20"]),
    number("trtllm_executor_config.max_pending_responses", bad!["0" "(1 << 20) + 1" "UINT32_MAX"], &["1 << 20"]),
    number("trtllm_executor_config.threads", bad!["1025" "UINT32_MAX"], &[]),
    number("trtllm_executor_config.device", &[], &["UINT32_MAX"]),
    number("trtllm_executor_config.reserved", bad!["1" "UINT32_MAX"], &[]),
];

/// Names of numbers above that no header has.
pub fn stale(headers: &Headers) -> Vec<String> {
    let has = |number: &&Number| {
        let (of, field) = number.field.split_once('.').expect("a struct and a field");
        headers.structs.iter().any(|s| s.name == of && s.fields.iter().any(|f| f.name == field))
    };
    NUMBERS.iter().filter(|number| !has(number)).map(|number| number.field.to_owned()).collect()
}

/// The cases of one field of the config `of`, which `function` takes as `parameter`; `None` for a field that nothing is
/// known about.
pub fn cases(headers: &Headers, function: &str, parameter: &str, of: &Struct, field: &Variable) -> Option<String> {
    let name = &field.name;
    let place = format!("{function}, {parameter}, {name}, {}", of.name);
    // A request is judged when it is submitted.
    let refused = if function.starts_with("trtllm_request_") { "FIELD_LATER" } else { "FIELD" };
    let is_wrong = |value: &str, status: &str, culprit: &str| {
        format!("    {refused}({place}, {value}, {status}, \"{culprit}\");\n")
    };
    let full_name = format!("`{parameter}.{name}`");
    if let Some(number) = NUMBERS.iter().find(|number| number.field == format!("{}.{name}", of.name)) {
        let culprit = |status: &str| if status == ARGUMENT { name.as_str() } else { "" };
        let refuses = number.refuses.iter().map(|(value, status)| is_wrong(value, status, culprit(status)));
        let takes = number.takes.iter().map(|value| format!("    FIELD_TAKEN({place}, {value});\n"));
        return Some(refuses.chain(takes).collect());
    }
    let names_enum = headers.enums.iter().find(|e| field.doc.starts_with(&format!("A `{}`", e.name)));
    match (name.as_str(), field.of.as_str()) {
        // Judged as a whole, with what its count says, or not to be judged.
        ("struct_size" | "disabled_pass_count", "size_t") => Some(String::new()),
        (_, "trtllm_progress_callback" | "void *") => Some(String::new()),
        (_, "int32_t") if field.doc.starts_with("1: ") => {
            Some(["-1", "2", "256", "INT32_MIN", "INT32_MAX"].map(|v| is_wrong(v, ARGUMENT, &full_name)).concat())
        }
        (_, "int32_t") => {
            let values = values_outside(names_enum?, field.doc.contains("0 counts as"));
            Some(values.iter().map(|v| is_wrong(v, ARGUMENT, &full_name)).collect())
        }
        (_, "const char *") => {
            let names = ["string(\"\")", "endless_name()", "string(\"\\xff\")"];
            let wrong = names.map(|text| is_wrong(text, ARGUMENT, &full_name)).concat();
            Some(wrong + &is_wrong("string(\"no such\")", ARGUMENT, "no such"))
        }
        (_, "const char * const *") => Some(format!("    FIELD_NAMES({place});\n")),
        _ => None,
    }
}

/// Numbers around an enum's values that are none of them.
pub fn values_outside(of: &Enum, zero_counts: bool) -> Vec<String> {
    let known: Vec<_> = of.values.iter().map(|(_, value)| *value).collect();
    let near = known.iter().flat_map(|value| [value - 1, value + 1, value + 256, value + 65536, -value]);
    let mut values: Vec<_> = near.filter(|value| !known.contains(value) && !(zero_counts && *value == 0)).collect();
    values.sort_unstable();
    values.dedup();
    let extremes = ["INT32_MIN".to_owned(), "INT32_MAX".to_owned()];
    values.iter().map(ToString::to_string).chain(extremes).collect()
}
