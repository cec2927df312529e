#![no_main]

#[path = "../targets.rs"]
mod targets;

// The hook that libfuzzer-sys installs would abort on panics that the library catches; those that escape still abort.
libfuzzer_sys::fuzz_target!(init: drop(std::panic::take_hook()), |bytes: &[u8]| {
    targets::messages(bytes);
});
