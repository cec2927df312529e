/**
 * libtrtllm for C++17: owners, exceptions and iterable streams on top of the C headers, header-only.
 *
 *     trtllm::build("checkpoint/", "model.engine");
 *     trtllm::Engine engine("model.engine");
 *     trtllm::Executor executor(engine);
 *     for (const trtllm::Response &response : executor.stream("Once upon a time")) std::cout << response.text();
 *
 * Errors
 *     What fails throws `trtllm::Error`, with the library's message and its `trtllm_status`. Destructors never throw.
 *
 * Ownership
 *     `Engine`, `Executor`, `Request`, `Response`, `Tokenizer`, `Network` and `Stream` own what they name, can be moved
 * and not copied. They may be destroyed in any order: what is made from an object keeps alive what it needs of it. A
 *     moved-from object may only be assigned to or destroyed. `get()` lends the C handle. Views (`std::string_view`,
 * `Span`) that a function returns are borrowed from the object that returned them; views that a function takes are
 * borrowed for the time of the call.
 *
 * Threads
 *     As in C: every member function may be called from every thread, also on one object, save where it says otherwise.
 *     Moving, assigning and destroying an object exclude every other use of it.
 *
 * The C headers say what each value means; they are included and may be used side by side.
 */

#ifndef TRTLLM_HPP
#define TRTLLM_HPP

#include <trtllm.h>

#include "trtllm/builder.hpp"
#include "trtllm/callback.hpp"
#include "trtllm/engine.hpp"
#include "trtllm/executor.hpp"
#include "trtllm/handle.hpp"
#include "trtllm/network.hpp"
#include "trtllm/progress.hpp"
#include "trtllm/request.hpp"
#include "trtllm/response.hpp"
#include "trtllm/sampling.hpp"
#include "trtllm/span.hpp"
#include "trtllm/status.hpp"
#include "trtllm/stream.hpp"
#include "trtllm/tokenizer.hpp"
#include "trtllm/version.hpp"

#endif  // TRTLLM_HPP
