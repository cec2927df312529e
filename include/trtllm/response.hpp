/** What a request gives, piece by piece. Part of trtllm.hpp. */

#ifndef TRTLLM_RESPONSE_HPP
#define TRTLLM_RESPONSE_HPP

#include <trtllm/response.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "trtllm/handle.hpp"
#include "trtllm/span.hpp"

namespace trtllm {

/**
 * A piece of a request's output. Everything that it returns is borrowed from it.
 *
 * Owned by whoever took it from an executor; the one that a callback is given ends with the callback.
 */
class Response {
   public:
    /** Takes `handle`, as `trtllm_executor_await` returns it. */
    static Response take(trtllm_response *handle) { return Response(handle, Release{true}); }

    /** Looks at a response that somebody else destroys, and later. */
    static Response borrow(const trtllm_response *handle) {
        return Response(const_cast<trtllm_response *>(handle), Release{false});
    }

    const trtllm_response *get() const noexcept { return handle_.get(); }
    const trtllm_response_view &view() const noexcept { return view_; }

    std::string_view text() const noexcept { return {view_.text, view_.text_length}; }
    Span<const std::uint32_t> tokens() const noexcept { return {view_.tokens, view_.token_count}; }

    /** One entry for each new token; empty unless asked for. */
    Span<const trtllm_token_logprob> logprobs() const noexcept {
        return {view_.logprobs, view_.logprobs ? view_.token_count : 0};
    }

    /** The most likely tokens where new token number `index` was chosen; empty unless asked for. */
    Span<const trtllm_token_logprob> top_logprobs(std::size_t index) const noexcept {
        if (!view_.top_logprobs) return {};
        return {view_.top_logprobs + index * view_.top_logprobs_per_token, view_.top_logprobs_per_token};
    }

    Span<const float> context_logits() const noexcept { return {view_.context_logits, view_.context_logits_count}; }
    Span<const float> generation_logits() const noexcept {
        return {view_.generation_logits, view_.generation_logits_count};
    }

    std::uint64_t request_id() const noexcept { return view_.request_id; }
    std::uint32_t sequence() const noexcept { return view_.sequence; }

    /** Other than NONE in the last response of a sequence. */
    trtllm_finish_reason finish_reason() const noexcept {
        return static_cast<trtllm_finish_reason>(view_.finish_reason);
    }

    /** Whether no further response of the request follows. */
    bool last() const noexcept { return view_.last != 0; }

    trtllm_status status() const noexcept { return static_cast<trtllm_status>(view_.status); }

    /** Throws when the sequence failed. Cancelling and a time limit are ends and not failures. */
    void check() const {
        if (view_.finish_reason == TRTLLM_FINISH_REASON_ERROR) throw Error(status(), view_.error_message);
    }

    /** Times and counts of the request, complete in its last response. */
    trtllm_request_stats stats() const {
        trtllm_request_stats stats;
        detail::check(trtllm_response_get_stats(get(), sizeof stats, &stats));
        return stats;
    }

    std::string stats_json() const {
        return detail::text([this](char *buffer, std::size_t capacity, std::size_t *length) {
            return trtllm_response_stats_json(get(), buffer, capacity, length);
        });
    }

   private:
    struct Release {
        bool owned = false;
        void operator()(trtllm_response *handle) const noexcept {
            if (owned) trtllm_response_destroy(handle);
        }
    };

    Response(trtllm_response *handle, Release release) : handle_(handle, release) {
        detail::check(trtllm_response_get(handle, sizeof view_, &view_));
    }

    std::unique_ptr<trtllm_response, Release> handle_;
    trtllm_response_view view_;
};

/** Receives the responses of a request on one of the library's threads; see `Executor::submit`. */
using ResponseCallback = std::function<void(const Response &)>;

}  // namespace trtllm

#endif  // TRTLLM_RESPONSE_HPP
