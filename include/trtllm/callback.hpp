/** A function on its way through C. Part of trtllm.hpp. */

#ifndef TRTLLM_CALLBACK_HPP
#define TRTLLM_CALLBACK_HPP

#include <trtllm/executor.h>

#include <cstdint>
#include <exception>
#include <future>
#include <memory>

#include "trtllm/response.hpp"

namespace trtllm::detail {

/** A `ResponseCallback` on its way through C: lives until no response can come any more. */
struct Callback {
    ResponseCallback function;
    /** Only a name: a destroyed executor is refused by the library. */
    trtllm_executor *executor;
    std::promise<void> done;
    std::exception_ptr thrown;

    static void on_response(void *user_data, const trtllm_response *handle) noexcept {
        auto *self = static_cast<Callback *>(user_data);
        if (self->thrown) return;
        std::uint64_t request_id = TRTLLM_ANY_REQUEST;
        try {
            const Response response = Response::borrow(handle);
            request_id = response.request_id();
            self->function(response);
        } catch (...) {
            self->thrown = std::current_exception();
            // When even this fails, the request ends by itself and is not listened to.
            static_cast<void>(trtllm_executor_cancel(self->executor, request_id));
        }
    }

    static void on_free(void *user_data) noexcept {
        const std::unique_ptr<Callback> self(static_cast<Callback *>(user_data));
        self->function = nullptr;
        if (self->thrown) {
            self->done.set_exception(self->thrown);
        } else {
            self->done.set_value();
        }
    }
};

}  // namespace trtllm::detail

#endif  // TRTLLM_CALLBACK_HPP
