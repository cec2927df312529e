/** What is to be generated. Part of trtllm.hpp. */

#ifndef TRTLLM_REQUEST_HPP
#define TRTLLM_REQUEST_HPP

#include <trtllm/request.h>

#include <chrono>
#include <cstdint>
#include <string_view>
#include <utility>

#include "trtllm/handle.hpp"
#include "trtllm/span.hpp"

namespace trtllm {

/**
 * A generation request: the prompt, how to sample, what to return. It belongs to no executor, may be changed and
 * submitted again, and may be destroyed as soon as it is submitted. Setters return the request, to be chained.
 */
class Request {
   public:
    /** No prompt yet, the engine's sampling defaults, streaming. */
    Request() : handle_(detail::make<trtllm_request>(&trtllm_request_create)) {}

    static Request from_text(std::string_view text) { return std::move(Request().set_text(text)); }
    static Request from_tokens(Span<const std::uint32_t> tokens) { return std::move(Request().set_tokens(tokens)); }

    /** From a JSON array of `{"role": ..., "content": ...}`. */
    static Request from_chat(std::string_view messages) { return std::move(Request().set_chat(messages)); }

    trtllm_request *get() const noexcept { return handle_.get(); }

    Request &set_text(std::string_view text) { return done(trtllm_request_set_text(get(), text.data(), text.size())); }
    Request &set_tokens(Span<const std::uint32_t> tokens) {
        return done(trtllm_request_set_tokens(get(), tokens.data(), tokens.size()));
    }
    Request &set_chat(std::string_view messages) {
        return done(trtllm_request_set_chat(get(), messages.data(), messages.size()));
    }
    Request &set_sampling(const trtllm_sampling &sampling) {
        return done(trtllm_request_set_sampling(get(), &sampling));
    }
    Request &add_stop(std::string_view text) {
        return done(trtllm_request_add_stop_string(get(), text.data(), text.size()));
    }
    Request &add_stop_tokens(Span<const std::uint32_t> tokens) {
        return done(trtllm_request_add_stop_tokens(get(), tokens.data(), tokens.size()));
    }
    Request &add_logit_bias(std::uint32_t token, float bias) {
        return done(trtllm_request_add_logit_bias(get(), token, bias));
    }

    /** Whether responses come as tokens come, or one for each sequence, at its end. */
    Request &set_stream(bool stream) { return done(trtllm_request_set_stream(get(), stream)); }

    /** Zero: no limit. */
    Request &set_time_limit(std::chrono::milliseconds limit) {
        return done(trtllm_request_set_time_limit(get(), static_cast<std::uint64_t>(limit.count())));
    }
    Request &set_salt(std::string_view salt) {
        return done(trtllm_request_set_salt(get(), reinterpret_cast<const std::uint8_t *>(salt.data()), salt.size()));
    }
    Request &set_return_logits(bool context, bool generation) {
        return done(trtllm_request_set_return_logits(get(), context, generation));
    }

   private:
    Request &done(trtllm_status status) {
        detail::check(status);
        return *this;
    }

    detail::Handle<trtllm_request> handle_;
};

}  // namespace trtllm

#endif  // TRTLLM_REQUEST_HPP
