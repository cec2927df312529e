//! libtrtllm: from a Hugging Face checkpoint to served text, as one shared library.
//!
//! From a checkpoint to text, with every check left out:
//!
//!     trtllm_engine *engine; trtllm_executor *executor; trtllm_response *response; trtllm_response_view view; uint64_t id;
//!     trtllm_build("checkpoint/", "model.engine", NULL);
//!     trtllm_engine_load("model.engine", NULL, &engine);
//!     trtllm_executor_create(engine, NULL, &executor);
//!     trtllm_executor_submit_text(executor, "Once upon a time", NULL, &id);
//!     do {
//!         trtllm_executor_await(executor, id, TRTLLM_WAIT_FOREVER, &response);
//!         trtllm_response_get(response, sizeof view, &view);
//!         fwrite(view.text, 1, view.text_length, stdout);
//!         trtllm_response_destroy(response);
//!     } while (!view.last);
//!
//! Status and errors
//!     A function that can fail returns a `trtllm_status`; 0 is success. `trtllm_last_error_message` tells what was wrong
//!     with which argument, file or request: it belongs to the calling thread and stays valid until that thread's next
//!     call. When a call fails its outputs are untouched; the only exception is the length of a result that did not fit
//!     the caller's buffer. The library never prints, aborts, exits or handles signals, and no panic or exception leaves it.
//!
//! Handles
//!     `trtllm_engine *` and its like look like pointers and point to nothing: they name an entry of the library's
//!     own table. A destroyed handle, a handle of another type and an arbitrary number are refused with
//!     `TRTLLM_STATUS_INVALID_HANDLE`. What is made from a handle keeps the object alive, so that handles may be destroyed
//!     in any order. Every destroy accepts NULL.
//!
//! Ownership
//!     Each function says what it does with its arguments: it *borrows* them for the time of the call, *copies* them, or
//!     *returns* something that the caller *owns* (and destroys) or *borrows* from a handle. Never `free` what the library
//!     returned. Text is UTF-8: prompts and results are a pointer and a length in bytes, paths and names end with a NUL.
//!
//! Results of unknown size
//!     Such a function takes a buffer, its capacity and a length. With a NULL buffer and capacity 0 it only writes the
//!     length (for text: without the NUL that the function adds, so a buffer needs one byte more). A buffer that is too small
//!     gives `TRTLLM_STATUS_BUFFER_TOO_SMALL`, writes the needed length and leaves the buffer as it is.
//!
//! Structs
//!     A config struct begins with `struct_size` and starts from its `_INIT` macro (or its `_init` function, for languages
//!     without macros); NULL in its place means the defaults. Structs that the library fills are passed with their size. Both
//!     only ever grow at the end, so that a program works with a newer library without being compiled anew.
//!
//! Threads
//!     Every function may be called from every thread at any time, on the same handles too. What a program itself must not do
//!     is go on using borrowed pointers after another thread has destroyed the handle that they belong to.

#![allow(clippy::missing_safety_doc)] // The C documentation of each function is its contract: pointers are NULL or valid.
#![allow(non_camel_case_types)] // Names of the C types.

mod argument;
mod callback;
#[cfg(all(test, feature = "compiler"))]
mod exports;
mod handle;
mod panic;
mod sized;

#[cfg(feature = "compiler")]
pub mod builder;
pub mod engine;
pub mod executor;
#[cfg(feature = "compiler")]
pub mod network;
pub mod request;
pub mod response;
pub mod sampling;
pub mod status;
pub mod tokenizer;
pub mod version;
