/** Owners of C handles, and texts of unknown size. Part of trtllm.hpp. */

#ifndef TRTLLM_HANDLE_HPP
#define TRTLLM_HANDLE_HPP

#include <trtllm.h>

#include <cstddef>
#include <memory>
#include <string>

#include "trtllm/status.hpp"

namespace trtllm::detail {

struct Destroy {
    void operator()(trtllm_engine *handle) const noexcept { trtllm_engine_destroy(handle); }
    void operator()(trtllm_executor *handle) const noexcept { trtllm_executor_destroy(handle); }
    void operator()(trtllm_network *handle) const noexcept { trtllm_network_destroy(handle); }
    void operator()(trtllm_request *handle) const noexcept { trtllm_request_destroy(handle); }
    void operator()(trtllm_tokenizer *handle) const noexcept { trtllm_tokenizer_destroy(handle); }
};

/** Owns a handle. Handles look like pointers and are never dereferenced. */
template <typename T>
using Handle = std::unique_ptr<T, Destroy>;

/** Calls `create(T **)` and owns what it made. */
template <typename T, typename Create>
Handle<T> make(Create create) {
    T *handle = nullptr;
    check(create(&handle));
    return Handle<T>(handle);
}

/** Takes a text of unknown size from `read(buffer, capacity, &length)`, also when it grows between two calls. */
template <typename Read>
std::string text(Read read) {
    std::size_t length = 0;
    std::string buffer;
    check(read(nullptr, std::size_t{0}, &length));
    for (;;) {
        buffer.resize(length + 64);
        const trtllm_status status = read(&buffer[0], buffer.size(), &length);
        if (status == TRTLLM_STATUS_BUFFER_TOO_SMALL) continue;
        check(status);
        buffer.resize(length);
        return buffer;
    }
}

}  // namespace trtllm::detail

#endif  // TRTLLM_HANDLE_HPP
