/** Serves many requests on one engine. Part of trtllm.hpp. */

#ifndef TRTLLM_EXECUTOR_HPP
#define TRTLLM_EXECUTOR_HPP

#include <trtllm/executor.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "trtllm/callback.hpp"
#include "trtllm/engine.hpp"
#include "trtllm/handle.hpp"
#include "trtllm/request.hpp"
#include "trtllm/response.hpp"
#include "trtllm/stream.hpp"

namespace trtllm {

/** Limits and resources of an executor, begun from the defaults. */
struct ExecutorConfig : trtllm_executor_config {
    ExecutorConfig() noexcept : trtllm_executor_config(TRTLLM_EXECUTOR_CONFIG_INIT) {}
};

/** A request that was submitted with a callback. */
struct Delivery {
    std::uint64_t request_id;
    /** Ready when no callback can come any more; `get()` rethrows what the callback threw. Its destructor does not
     * wait. */
    std::future<void> done;
};

/**
 * Serves many requests on one engine at once.
 *
 * Not to be destroyed inside a callback: the library refuses to wait for itself, and the executor would go on for good.
 */
class Executor {
   public:
    /** Waits without end. */
    static constexpr std::chrono::milliseconds forever{TRTLLM_WAIT_FOREVER};

    explicit Executor(const Engine &engine, const ExecutorConfig &config = {})
        : handle_(detail::make<trtllm_executor>(
              [&](trtllm_executor **handle) { return trtllm_executor_create(engine.get(), &config, handle); })) {}

    trtllm_executor *get() const noexcept { return handle_.get(); }

    /** Submits a request whose responses are to be awaited; returns the id that names it in them. */
    std::uint64_t submit(const Request &request) {
        std::uint64_t request_id = 0;
        detail::check(trtllm_executor_submit(get(), request.get(), &request_id));
        return request_id;
    }

    /**
     * Submits a request whose responses go to `callback`, in order, on one of the library's threads. The callback may
     * submit and cancel. An exception that leaves it cancels the request and ends the calls of this callback;
     * `Delivery::done` hands it on. The callback is destroyed, on a thread of the library, before `done` can be waited
     * for a second time.
     *
     * One thread at a time for one `request`.
     */
    Delivery submit(Request &request, ResponseCallback callback) {
        auto owned = std::make_unique<detail::Callback>();
        owned->function = std::move(callback);
        owned->executor = get();
        Delivery delivery{0, owned->done.get_future()};
        detail::check(trtllm_request_set_callback(request.get(), &detail::Callback::on_response, owned.get(),
                                                  &detail::Callback::on_free));
        owned.release();
        const trtllm_status status = trtllm_executor_submit(get(), request.get(), &delivery.request_id);
        const Error refusal(status, status == TRTLLM_STATUS_OK ? "" : trtllm_last_error_message());
        detail::check(trtllm_request_set_callback(request.get(), nullptr, nullptr, nullptr));
        if (status != TRTLLM_STATUS_OK) throw refusal;
        return delivery;
    }

    /** Submits a request and gives its responses as they come. */
    Stream stream(const Request &request) { return Stream(get(), submit(request)); }

    /** As above, with a text as prompt and the engine's sampling defaults. */
    Stream stream(std::string_view prompt) { return stream(Request::from_text(prompt)); }

    Stream stream(std::string_view prompt, const trtllm_sampling &sampling) {
        return stream(Request::from_text(prompt).set_sampling(sampling));
    }

    /** The whole text of a request's first sequence; throws when it fails. Blocks until it is there. */
    std::string generate(const Request &request) {
        std::string text;
        for (const Response &response : stream(request)) {
            if (response.sequence() == 0) text += response.text();
        }
        return text;
    }

    /** As above, with a text as prompt and the engine's sampling defaults. */
    std::string generate(std::string_view prompt) { return generate(Request::from_text(prompt).set_stream(false)); }

    std::string generate(std::string_view prompt, const trtllm_sampling &sampling) {
        return generate(Request::from_text(prompt).set_stream(false).set_sampling(sampling));
    }

    /** Asks to end a request early; one that has ended is no error. */
    void cancel(std::uint64_t request_id) { detail::check(trtllm_executor_cancel(get(), request_id)); }

    /** Waits for the next response of a request, or of any; nothing when the timeout passes. */
    std::optional<Response> await(std::uint64_t request_id = TRTLLM_ANY_REQUEST,
                                  std::chrono::milliseconds timeout = forever) {
        return detail::await(get(), request_id, timeout.count());
    }

    /** Waits likewise, then takes all that are there, up to `most`; none when the timeout passes. */
    std::vector<Response> await_many(std::size_t most, std::uint64_t request_id = TRTLLM_ANY_REQUEST,
                                     std::chrono::milliseconds timeout = forever) {
        std::vector<trtllm_response *> handles(most);
        std::vector<Response> responses;
        responses.reserve(most);
        std::size_t count = 0;
        const trtllm_status status =
            trtllm_executor_await_many(get(), request_id, timeout.count(), most, handles.data(), &count);
        if (status == TRTLLM_STATUS_TIMEOUT) return responses;
        detail::check(status);
        for (std::size_t i = 0; i < count; ++i) responses.push_back(Response::take(handles[i]));
        return responses;
    }

    /** Accepts no more requests, ends those there are and stops the threads; responses can still be awaited. */
    void shutdown() { detail::check(trtllm_executor_shutdown(get())); }

    /** Throws what stopped the executor, if anything did. */
    void check_health() const { detail::check(trtllm_executor_check_health(get())); }

    trtllm_executor_stats stats() const {
        trtllm_executor_stats stats;
        detail::check(trtllm_executor_get_stats(get(), sizeof stats, &stats));
        return stats;
    }

    std::string stats_json() const {
        return detail::text([this](char *buffer, std::size_t capacity, std::size_t *length) {
            return trtllm_executor_stats_json(get(), buffer, capacity, length);
        });
    }

    // The latest steps as a JSON array, oldest first.
    std::string iterations_json() const {
        return detail::text([this](char *buffer, std::size_t capacity, std::size_t *length) {
            return trtllm_executor_iterations_json(get(), buffer, capacity, length);
        });
    }

   private:
    detail::Handle<trtllm_executor> handle_;
};

}  // namespace trtllm

#endif  // TRTLLM_EXECUTOR_HPP
