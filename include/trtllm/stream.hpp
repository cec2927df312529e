/** The responses of one request, to be iterated. Part of trtllm.hpp. */

#ifndef TRTLLM_STREAM_HPP
#define TRTLLM_STREAM_HPP

#include <trtllm/executor.h>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <utility>

#include "trtllm/response.hpp"

namespace trtllm {

namespace detail {

/** Takes the next response of a request; nothing when the timeout passes. */
inline std::optional<Response> await(trtllm_executor *executor, std::uint64_t request_id, std::int64_t timeout_ms) {
    trtllm_response *response = nullptr;
    const trtllm_status status = trtllm_executor_await(executor, request_id, timeout_ms, &response);
    if (status == TRTLLM_STATUS_TIMEOUT) return std::nullopt;
    check(status);
    return Response::take(response);
}

}  // namespace detail

/**
 * The responses of one request, to be iterated once:
 *
 *     for (const trtllm::Response &response : executor.stream(request)) std::cout << response.text();
 *
 * Advancing waits for the next response and destroys the one before. A failed sequence throws its `Error` instead of
 * giving its response. Destroying a stream before its end cancels the request and takes what is left of it, so that
 * nothing stays behind in the executor; this waits for the step that runs.
 *
 * One thread at a time.
 */
class Stream {
   public:
    class End {};

    class Iterator {
       public:
        using iterator_category = std::input_iterator_tag;
        using value_type = Response;
        using difference_type = std::ptrdiff_t;
        using pointer = const Response *;
        using reference = const Response &;

        explicit Iterator(Stream &stream) noexcept : stream_(&stream) {}

        reference operator*() const noexcept { return *stream_->current_; }
        pointer operator->() const noexcept { return &*stream_->current_; }
        Iterator &operator++() {
            stream_->next();
            return *this;
        }
        void operator++(int) { ++*this; }

        friend bool operator==(const Iterator &iterator, End) noexcept { return iterator.ended(); }
        friend bool operator!=(const Iterator &iterator, End) noexcept { return !iterator.ended(); }
        friend bool operator==(End, const Iterator &iterator) noexcept { return iterator.ended(); }
        friend bool operator!=(End, const Iterator &iterator) noexcept { return !iterator.ended(); }

       private:
        bool ended() const noexcept { return !stream_->current_; }

        Stream *stream_;
    };

    /** The responses of a request that was submitted for `trtllm_executor_await`; nobody else may await it. */
    Stream(trtllm_executor *executor, std::uint64_t request_id) noexcept
        : executor_(executor), request_id_(request_id), open_(true) {}

    Stream(Stream &&other) noexcept
        : executor_(other.executor_),
          request_id_(other.request_id_),
          open_(std::exchange(other.open_, false)),
          current_(std::move(other.current_)) {
        other.current_.reset();
    }
    Stream &operator=(Stream &&other) noexcept {
        if (this == &other) return *this;
        abandon();
        executor_ = other.executor_;
        request_id_ = other.request_id_;
        open_ = std::exchange(other.open_, false);
        current_ = std::move(other.current_);
        other.current_.reset();
        return *this;
    }
    ~Stream() { abandon(); }

    std::uint64_t request_id() const noexcept { return request_id_; }

    /** Waits for the first response, unless it is there already. */
    Iterator begin() {
        if (open_ && !current_) next();
        return Iterator(*this);
    }
    End end() const noexcept { return {}; }

    /** Waits for the next response, which the stream owns; NULL after the last one. */
    const Response *next() {
        current_.reset();
        if (!open_) return nullptr;
        std::optional<Response> response = detail::await(executor_, request_id_, TRTLLM_WAIT_FOREVER);
        if (response->last()) open_ = false;
        response->check();
        current_ = std::move(response);
        return &*current_;
    }

    /** Asks to end the request early; the stream goes on to its last response. Safe from any thread. */
    void cancel() { detail::check(trtllm_executor_cancel(executor_, request_id_)); }

   private:
    /** Cancels and drains; a library that refuses to await has nothing left to take. */
    void abandon() noexcept {
        current_.reset();
        if (!open_) return;
        open_ = false;
        static_cast<void>(trtllm_executor_cancel(executor_, request_id_));
        for (;;) {
            trtllm_response *response = nullptr;
            if (trtllm_executor_await(executor_, request_id_, TRTLLM_WAIT_FOREVER, &response) != TRTLLM_STATUS_OK)
                return;
            trtllm_response_destroy(response);
        }
    }

    trtllm_executor *executor_;
    std::uint64_t request_id_;
    /** Whether the last response is still to come. */
    bool open_;
    std::optional<Response> current_;
};

}  // namespace trtllm

#endif  // TRTLLM_STREAM_HPP
