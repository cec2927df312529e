//! A C translation unit that stands for the library: everything that the headers declare, with empty functions. Compiled with
//! debug information it is what `abidiff` compares.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::headers::{Function, Headers, Variable};
use crate::programs::{include, succeed};

/// The headers as one file without comments. Reading it gives the same [`Headers`].
pub fn declarations(headers: &Headers) -> String {
    let mut text = "#include <stddef.h>\n#include <stdint.h>\n\n".to_owned();
    let mut line = |line: String| writeln!(text, "{line}").expect("a String takes everything");
    headers.constants.iter().for_each(|(name, value)| line(format!("#define {name} {value}")));
    headers.handles.iter().for_each(|name| line(format!("typedef struct {name} {name};")));
    for each in &headers.enums {
        let values: String = each.values.iter().map(|(name, value)| format!("    {name} = {value},\n")).collect();
        line(format!("enum {0} {{\n{values}}};\ntypedef int32_t {0};", each.name));
    }
    for callback in &headers.callbacks {
        line(format!("typedef {} (*{})({});", callback.result, callback.name, parameters(callback)));
    }
    for each in &headers.structs {
        let fields: String = each.fields.iter().map(|f| format!("    {} {};\n", f.of, f.name)).collect();
        line(format!("typedef struct {{\n{fields}}} {};", each.name));
    }
    for function in &headers.functions {
        line(format!("{} {}({});", function.result, function.name, parameters(function)));
    }
    text
}

/// Every function of `headers` with an empty body, and one for each type, so that `abidiff` reaches those that no function
/// mentions. Constants are the values of an enum of their own; the version, which is to change, is left out.
fn definitions(headers: &Headers) -> String {
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect("a String takes everything");
    for function in &headers.functions {
        line(format!("{} {}({}) {{ return 0; }}", function.result, function.name, parameters(function)));
    }
    let enums = headers.enums.iter().map(|each| format!("enum {}", each.name));
    let structs = headers.structs.iter().map(|each| each.name.clone());
    let handles = headers.handles.iter().cloned();
    let callbacks = headers.callbacks.iter().map(|each| each.name.clone());
    for of in enums.chain(structs).chain(handles).chain(callbacks) {
        line(format!("{of} *type_{}(void) {{ return 0; }}", of.replace(' ', "_")));
    }
    let constants = headers.constants.iter().filter(|(name, _)| !name.starts_with("TRTLLM_VERSION_"));
    let constants: String = constants.map(|(name, _)| format!("CONSTANT_{name} = {name}, ")).collect();
    line(format!("enum constants {{ {constants}}};\nenum constants *constants(void) {{ return 0; }}"));
    text
}

fn parameters(function: &Function) -> String {
    let parameter = |variable: &Variable| format!("{} {}", variable.of, variable.name);
    match function.parameters.as_slice() {
        [] => "void".to_owned(),
        list => list.iter().map(parameter).collect::<Vec<_>>().join(", "),
    }
}

/// Compiles the stub of what `headers` says.
pub fn compile(headers: &Headers, folder: &Path, name: &str) -> PathBuf {
    compile_text(&(declarations(headers) + &definitions(headers)), folder, name)
}

/// Compiles the stub over the headers themselves.
pub fn compile_installed(headers: &Headers, folder: &Path, name: &str) -> PathBuf {
    compile_text(&("#include \"trtllm.h\"\n".to_owned() + &definitions(headers)), folder, name)
}

fn compile_text(text: &str, folder: &Path, name: &str) -> PathBuf {
    let source = folder.join(name).with_extension("c");
    let object = source.with_extension("so");
    std::fs::write(&source, text).expect("a fresh folder is writable");
    let mut command = Command::new("gcc");
    command.args(["-std=c11", "-g", "-shared", "-fPIC", "-fno-eliminate-unused-debug-types", "-I"]).arg(include());
    succeed(command.arg("-o").arg(&object).arg(&source));
    object
}
