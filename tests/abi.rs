//! The binary interface that the headers promise: the same layout in C and Rust, and nothing taken back between versions.

#[path = "common/headers.rs"]
mod headers;
#[path = "common/programs.rs"]
mod programs;

#[path = "abi/changes.rs"]
mod changes;
#[path = "abi/layout.rs"]
mod layout;
#[path = "abi/stub.rs"]
mod stub;
