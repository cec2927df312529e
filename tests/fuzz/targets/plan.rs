#![no_main]

#[path = "../targets.rs"]
mod targets;

// The hook that libfuzzer-sys installs would abort on panics that the library catches; those that escape still abort.
libfuzzer_sys::fuzz_target!(init: drop(std::panic::take_hook()), |bytes: &[u8]| {
    match targets::is_rare(bytes) {
        true => targets::plan(bytes),
        false => targets::plan_in_memory(bytes),
    };
});
