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

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <future>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace trtllm {

/** A failure of the library: `what()` is its message, `status()` its code. */
class Error : public std::runtime_error {
   public:
    Error(trtllm_status status, const std::string &message) : std::runtime_error(message), status_(status) {}

    trtllm_status status() const noexcept { return status_; }

   private:
    trtllm_status status_;
};

/** A borrowed array, as `std::span` of C++20. Converts from anything with `data()` and `size()`. */
template <typename T>
class Span {
   public:
    using value_type = std::remove_cv_t<T>;

    constexpr Span() noexcept = default;
    constexpr Span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}

    template <typename Container,
              typename = std::enable_if_t<std::is_convertible_v<decltype(std::declval<Container &>().data()), T *>>>
    constexpr Span(Container &&container) noexcept : data_(container.data()), size_(container.size()) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t index) const noexcept { return data_[index]; }

   private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/** Sampling parameters, begun from the defaults: greedy, at most 128 tokens. */
struct Sampling : trtllm_sampling {
    Sampling() noexcept : trtllm_sampling(TRTLLM_SAMPLING_INIT) {}
    Sampling(const trtllm_sampling &sampling) noexcept : trtllm_sampling(sampling) {}
};

/** How an engine is built, begun from the defaults. */
struct BuildConfig : trtllm_build_config {
    BuildConfig() noexcept : trtllm_build_config(TRTLLM_BUILD_CONFIG_INIT) {}
};

/** How an engine is loaded, begun from the defaults. */
struct EngineConfig : trtllm_engine_config {
    EngineConfig() noexcept : trtllm_engine_config(TRTLLM_ENGINE_CONFIG_INIT) {}
};

/** Limits and resources of an executor, begun from the defaults. */
struct ExecutorConfig : trtllm_executor_config {
    ExecutorConfig() noexcept : trtllm_executor_config(TRTLLM_EXECUTOR_CONFIG_INIT) {}
};

/**
 * Is told how far a build or a load is: the phase and its done fraction from 0 to 1, on the thread that called.
 * Returning false cancels: the call then throws an `Error` with `TRTLLM_STATUS_CANCELLED`. An exception cancels too,
 * and the call throws that one.
 */
using Progress = std::function<bool(std::string_view phase, double fraction)>;

namespace detail {

/** Throws the calling thread's last error unless `status` is OK. */
inline void check(trtllm_status status) {
    if (status != TRTLLM_STATUS_OK) throw Error(status, trtllm_last_error_message());
}

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

/** A `Progress` on its way through C, and what it threw. */
struct ProgressCall {
    const Progress &progress;
    std::exception_ptr thrown = nullptr;

    static std::int32_t on_progress(void *user_data, const char *phase, double fraction) noexcept {
        auto *self = static_cast<ProgressCall *>(user_data);
        try {
            return self->progress(phase, fraction) ? 0 : 1;
        } catch (...) {
            self->thrown = std::current_exception();
            return 1;
        }
    }

    /** Runs `call` with a copy of `config` that reports here; rethrows what the function threw. */
    template <typename Config, typename Call>
    void run(Config config, Call call) {
        if (progress) {
            config.progress = &on_progress;
            config.user_data = this;
        }
        const trtllm_status status = call(config);
        if (thrown) std::rethrow_exception(thrown);
        check(status);
    }
};

}  // namespace detail

/** Throws unless the loaded library fits the headers that this program was compiled with. */
inline void check_version() {
    detail::check(trtllm_check_version(TRTLLM_VERSION_MAJOR, TRTLLM_VERSION_MINOR));
}

/**
 * Builds the engine file `engine_path` from a Hugging Face checkpoint. The file appears, or replaces an older one, only
 * when it is complete. A `progress` takes the place of the config's own callback.
 */
inline void build(const std::string &checkpoint_path, const std::string &engine_path, const BuildConfig &config = {},
                  const Progress &progress = {}) {
    detail::ProgressCall{progress}.run(config, [&](const BuildConfig &reporting) {
        return trtllm_build(checkpoint_path.c_str(), engine_path.c_str(), &reporting);
    });
}

/** A loaded engine. */
class Engine {
   public:
    /** Loads an engine file. A `progress` takes the place of the config's own callback. */
    explicit Engine(const std::string &path, const EngineConfig &config = {}, const Progress &progress = {}) {
        detail::ProgressCall{progress}.run(config, [&](const EngineConfig &reporting) {
            trtllm_engine *handle = nullptr;
            const trtllm_status status = trtllm_engine_load(path.c_str(), &reporting, &handle);
            handle_.reset(handle);
            return status;
        });
    }

    trtllm_engine *get() const noexcept { return handle_.get(); }

    /** What is to know about the engine; the pointers in it are borrowed from this object. */
    trtllm_engine_info info() const {
        trtllm_engine_info info;
        detail::check(trtllm_engine_get_info(get(), sizeof info, &info));
        return info;
    }

    /** The generation defaults of the checkpoint, to be changed and used. */
    Sampling sampling() const {
        Sampling sampling;
        detail::check(trtllm_engine_get_sampling(get(), sizeof(trtllm_sampling), &sampling));
        return sampling;
    }

    /** The model and every plan step as JSON. */
    std::string inspect() const {
        return detail::text([this](char *buffer, std::size_t capacity, std::size_t *length) {
            return trtllm_engine_inspect(get(), buffer, capacity, length);
        });
    }

    /** Describes an engine file as `inspect()`, without loading its weights. */
    static std::string inspect_file(const std::string &path) {
        return detail::text([&path](char *buffer, std::size_t capacity, std::size_t *length) {
            return trtllm_engine_inspect_file(path.c_str(), buffer, capacity, length);
        });
    }

   private:
    detail::Handle<trtllm_engine> handle_;
};

/** The tokenizer and the chat template of an engine. */
class Tokenizer {
   public:
    /** Throws with `TRTLLM_STATUS_NOT_FOUND` when the engine was built without one. */
    explicit Tokenizer(const Engine &engine)
        : handle_(detail::make<trtllm_tokenizer>(
              [&](trtllm_tokenizer **handle) { return trtllm_tokenizer_create(engine.get(), handle); })) {}

    trtllm_tokenizer *get() const noexcept { return handle_.get(); }

    std::vector<std::uint32_t> encode(std::string_view text, bool add_special_tokens = true) const {
        std::size_t count = 0;
        detail::check(encode_into(text, add_special_tokens, nullptr, 0, &count));
        std::vector<std::uint32_t> tokens(count);
        if (count > 0) detail::check(encode_into(text, add_special_tokens, tokens.data(), count, &count));
        return tokens;
    }

    std::string decode(Span<const std::uint32_t> tokens, bool skip_special_tokens = true) const {
        return detail::text([&](char *buffer, std::size_t capacity, std::size_t *length) {
            return trtllm_tokenizer_decode(get(), tokens.data(), tokens.size(), skip_special_tokens, buffer, capacity,
                                           length);
        });
    }

    /** Renders a JSON array of `{"role": ..., "content": ...}` by the chat template. */
    std::string apply_chat_template(std::string_view messages, bool add_generation_prompt = true) const {
        return detail::text([&](char *buffer, std::size_t capacity, std::size_t *length) {
            return trtllm_tokenizer_apply_chat_template(get(), messages.data(), messages.size(), add_generation_prompt,
                                                        buffer, capacity, length);
        });
    }

   private:
    trtllm_status encode_into(std::string_view text, bool add_special_tokens, std::uint32_t *tokens,
                              std::size_t capacity, std::size_t *count) const noexcept {
        return trtllm_tokenizer_encode(get(), text.data(), text.size(), add_special_tokens, tokens, capacity, count);
    }

    detail::Handle<trtllm_tokenizer> handle_;
};

/** The network of a checkpoint, to look at. */
class Network {
   public:
    /** Takes a checkpoint's folder, or the path of its `config.json`. Weights are not read. */
    static Network from_checkpoint(const std::string &path) {
        return Network(detail::make<trtllm_network>(
            [&](trtllm_network **handle) { return trtllm_network_from_checkpoint(path.c_str(), handle); }));
    }

    trtllm_network *get() const noexcept { return handle_.get(); }

    /** Runs the compiler's passes except those named. A failure leaves the network as it was. */
    void run_passes(const std::vector<std::string> &disabled = {}) {
        std::vector<const char *> names;
        names.reserve(disabled.size());
        for (const std::string &name : disabled) names.push_back(name.c_str());
        detail::check(trtllm_network_run_passes(get(), names.empty() ? nullptr : names.data(), names.size()));
    }

    /** One node a line. */
    std::string text() const {
        return detail::text([this](char *buffer, std::size_t capacity, std::size_t *length) {
            return trtllm_network_text(get(), buffer, capacity, length);
        });
    }

    /** In the DOT language of Graphviz. */
    std::string dot() const {
        return detail::text([this](char *buffer, std::size_t capacity, std::size_t *length) {
            return trtllm_network_dot(get(), buffer, capacity, length);
        });
    }

   private:
    explicit Network(detail::Handle<trtllm_network> handle) noexcept : handle_(std::move(handle)) {}

    detail::Handle<trtllm_network> handle_;
};

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

namespace detail {

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

#endif  // TRTLLM_HPP
