// What trtllm.hpp adds to the C headers: owners, exceptions, streams, callbacks.
//
//     header CHECKPOINT ENGINE       (ENGINE is written)
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <trtllm.hpp>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

template <typename T>
constexpr bool move_only = std::is_nothrow_move_constructible_v<T> &&std::is_nothrow_move_assignable_v<T> &&
                           !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T>;

static_assert(move_only<trtllm::Engine> && move_only<trtllm::Executor> && move_only<trtllm::Network>);
static_assert(move_only<trtllm::Request> && move_only<trtllm::Tokenizer> && move_only<trtllm::Stream>);
static_assert(move_only<trtllm::Response>);

constexpr std::string_view prompt = "Once upon a time";

void require(bool condition, const std::string &what) {
    if (!condition) throw std::runtime_error("not so: " + what);
}

// The status of the `Error` that `action` throws; OK when it throws none.
trtllm_status status_of(const std::function<void()> &action) {
    try {
        action();
        return TRTLLM_STATUS_OK;
    } catch (const trtllm::Error &error) {
        require(std::string_view(error.what()).size() > 0, "an error says what was wrong");
        return error.status();
    }
}

// Ends only by being cancelled, within the time of a test.
trtllm::Request long_request() {
    trtllm::Sampling sampling;
    sampling.max_tokens = 900;
    sampling.ignore_eos = 1;
    trtllm::Request request = trtllm::Request::from_text(prompt);
    request.set_sampling(sampling);
    return request;
}

void require_idle(const trtllm::Executor &executor) {
    const trtllm_executor_stats stats = executor.stats();
    require(stats.waiting == 0 && stats.running == 0, "nothing waits or runs");
    require(stats.kv_blocks_used == 0, "no request holds cache blocks");
}

void build_reports_progress(const std::string &checkpoint, const std::string &engine) {
    struct Stop {};
    std::size_t reports = 0;
    double last = -1;
    const auto cancel = [](std::string_view, double) { return false; };
    const auto stop = [](std::string_view, double) -> bool { throw Stop(); };
    require(status_of([&] { trtllm::build(checkpoint, engine, {}, cancel); }) == TRTLLM_STATUS_CANCELLED,
            "false cancels a build");
    bool stopped = false;
    try {
        trtllm::build(checkpoint, engine, {}, stop);
    } catch (const Stop &) {
        stopped = true;
    }
    require(stopped, "an exception of the progress function comes out of build");
    require(status_of([&] { trtllm::Engine nothing(engine); }) == TRTLLM_STATUS_NOT_FOUND,
            "a cancelled build leaves no file");

    trtllm::build(checkpoint, engine, {}, [&](std::string_view phase, double fraction) {
        ++reports;
        last = fraction;
        return !phase.empty();
    });
    require(reports > 0 && last == 1.0, "a build reports up to its end");
}

void errors_name_their_cause(const std::string &engine_path) {
    require(status_of([] { trtllm::Engine engine("no/such.engine"); }) == TRTLLM_STATUS_NOT_FOUND, "a missing engine");
    require(status_of([] { trtllm::Network::from_checkpoint("no/such/folder"); }) == TRTLLM_STATUS_NOT_FOUND,
            "a missing checkpoint");
    const trtllm::Engine engine(engine_path);
    trtllm::Executor executor(engine);
    require(status_of([&] { executor.submit(trtllm::Request()); }) != TRTLLM_STATUS_OK, "a request without prompt");
    trtllm::Sampling sampling;
    sampling.temperature = -1;
    require(status_of([&] { executor.generate(prompt, sampling); }) == TRTLLM_STATUS_INVALID_ARGUMENT,
            "a negative temperature");
    const std::vector<std::uint32_t> outside = {4294967295U};
    require(
        status_of([&] { executor.submit(trtllm::Request::from_tokens(outside)); }) == TRTLLM_STATUS_INVALID_ARGUMENT,
        "a token outside the vocabulary");
    require_idle(executor);
}

void tokenizer_round_trip(const trtllm::Engine &engine) {
    const trtllm::Tokenizer tokenizer(engine);
    const std::vector<std::uint32_t> tokens = tokenizer.encode(prompt, false);
    require(!tokens.empty() && tokenizer.decode(tokens) == prompt, "text survives encoding and decoding");
    require(tokenizer.encode("", false).empty() && tokenizer.decode({}).empty(), "nothing stays nothing");
    const std::string chat = tokenizer.apply_chat_template(R"([{"role":"user","content":"Hello"}])");
    require(chat.find("Hello") != std::string::npos, "the template has the message in it");
}

void descriptions(const trtllm::Engine &engine, const std::string &checkpoint, const std::string &engine_path) {
    require(engine.info().vocab_size > 0 && engine.info().layers > 0, "the engine knows its shape");
    require(engine.sampling().struct_size == sizeof(trtllm_sampling), "the engine's sampling can be used");
    require(engine.inspect().front() == '{' && engine.inspect() == trtllm::Engine::inspect_file(engine_path),
            "an engine and its file are described alike");
    trtllm::Network network = trtllm::Network::from_checkpoint(checkpoint);
    const std::string before = network.text();
    network.run_passes();
    require(network.text().size() < before.size(), "passes make the network smaller");
    require(network.dot().find("digraph") != std::string::npos, "the network can be drawn");
}

void stream_gives_what_generate_gives(const trtllm::Engine &engine) {
    trtllm::Executor executor(engine);
    trtllm::Sampling sampling;
    sampling.max_tokens = 40;
    std::string streamed;
    std::size_t responses = 0;
    bool last = false;
    for (const trtllm::Response &response : executor.stream(prompt, sampling)) {
        require(!last, "nothing follows the last response");
        streamed += response.text();
        last = response.last();
        ++responses;
    }
    require(last && responses > 1, "a stream comes in pieces and ends");
    require(!streamed.empty() && streamed == executor.generate(prompt, sampling), "both ways give one text");
    require_idle(executor);

    trtllm::Stream stream = executor.stream(prompt, sampling);
    trtllm::Stream moved = std::move(stream);
    require(!(stream.begin() != stream.end()), "a moved-from stream is empty");
    std::string text;
    while (const trtllm::Response *response = moved.next()) text += response->text();
    require(text == streamed && moved.next() == nullptr, "a moved stream goes on, and ends once");
}

void early_end_of_a_stream_cancels(const trtllm::Engine &engine) {
    trtllm::Executor executor(engine);
    for (const trtllm::Response &response : executor.stream(long_request())) {
        require(response.sequence() == 0, "one sequence");
        break;
    }
    require_idle(executor);
    require(executor.stats().cancelled == 1, "leaving the loop cancels");
    { const trtllm::Stream unread = executor.stream(long_request()); }
    require_idle(executor);
    require(!executor.await(TRTLLM_ANY_REQUEST, std::chrono::milliseconds(0)), "no response is left behind");

    trtllm::Stream stream = executor.stream(long_request());
    trtllm_finish_reason reason = TRTLLM_FINISH_REASON_NONE;
    for (const trtllm::Response &response : stream) {
        stream.cancel();
        reason = response.finish_reason();
    }
    require(reason == TRTLLM_FINISH_REASON_CANCELLED, "a cancelled stream comes to its end");

    trtllm::Stream outlives = executor.stream(long_request());
    { const trtllm::Executor gone = std::move(executor); }
    require(status_of([&] { outlives.next(); }) != TRTLLM_STATUS_OK, "a stream notices that its executor is gone");
}

void await_takes_responses(const trtllm::Engine &engine) {
    trtllm::Executor executor(engine);
    trtllm::Request request = trtllm::Request::from_text(prompt);
    request.set_stream(false);
    const std::uint64_t first = executor.submit(request);
    const std::uint64_t second = executor.submit(request);
    require(first != second, "each submission has its own id");
    std::size_t ended = 0;
    while (ended < 2) {
        for (const trtllm::Response &response : executor.await_many(8)) {
            response.check();
            require(response.last() && response.stats().generated_tokens == response.tokens().size(),
                    "one response each");
            require(response.stats_json().front() == '{', "statistics as JSON");
            ++ended;
        }
    }
    require(executor.await_many(8, TRTLLM_ANY_REQUEST, std::chrono::milliseconds(0)).empty(), "nothing is left");
    require(status_of([&] { executor.await(first); }) == TRTLLM_STATUS_NOT_FOUND, "a request that has ended");
}

void callbacks_deliver(const trtllm::Engine &engine) {
    trtllm::Executor executor(engine);
    trtllm::Sampling sampling;
    sampling.max_tokens = 40;
    trtllm::Request request = trtllm::Request::from_text(prompt);
    request.set_sampling(sampling);
    std::string text;
    const auto alive = std::make_shared<int>(0);
    trtllm::Delivery delivery =
        executor.submit(request, [&text, alive](const trtllm::Response &response) { text += response.text(); });
    delivery.done.get();
    require(alive.use_count() == 1, "the callback is gone when it is done");
    require(text == executor.generate(request), "the request is as it was, and the text the same");
}

void a_throwing_callback_cancels(const trtllm::Engine &engine) {
    trtllm::Executor executor(engine);
    trtllm::Request request = long_request();
    std::atomic<int> calls{0};
    trtllm::Delivery delivery = executor.submit(request, [&calls](const trtllm::Response &) {
        ++calls;
        throw std::domain_error("enough");
    });
    std::string thrown;
    try {
        delivery.done.get();
    } catch (const std::domain_error &error) {
        thrown = error.what();
    }
    require(thrown == "enough", "the exception of a callback comes out of its future");
    require(calls == 1, "a callback that threw is not called again");
    require(executor.stats().cancelled == 1, "and its request is cancelled");
}

void a_refused_submission_keeps_nothing(const trtllm::Engine &engine) {
    trtllm::Executor executor(engine);
    trtllm::Request request;
    const auto alive = std::make_shared<int>(0);
    const auto submit = [&] { executor.submit(request, [alive](const trtllm::Response &) {}); };
    require(status_of(submit) != TRTLLM_STATUS_OK, "a request without prompt is refused");
    require(alive.use_count() == 1, "its callback is destroyed");
}

void threads_share_an_executor(const trtllm::Engine &engine) {
    trtllm::Executor executor(engine);
    trtllm::Sampling sampling;
    sampling.max_tokens = 20;
    const std::string expected = executor.generate(prompt, sampling);
    std::atomic<int> equal{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] { equal += executor.generate(prompt, sampling) == expected; });
    }
    for (std::thread &thread : threads) thread.join();
    require(equal == 4, "every thread gets its text");
    executor.check_health();
    executor.shutdown();
    require(status_of([&] { executor.generate(prompt); }) == TRTLLM_STATUS_SHUTTING_DOWN, "a shut down executor");
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 3) {
        std::cerr << "usage: " << argv[0] << " CHECKPOINT ENGINE\n";
        return 2;
    }
    try {
        const std::string checkpoint = argv[1];
        const std::string path = argv[2];
        build_reports_progress(checkpoint, path);
        errors_name_their_cause(path);
        const trtllm::Engine engine(path);
        tokenizer_round_trip(engine);
        descriptions(engine, checkpoint, path);
        stream_gives_what_generate_gives(engine);
        early_end_of_a_stream_cancels(engine);
        await_takes_responses(engine);
        callbacks_deliver(engine);
        a_throwing_callback_cancels(engine);
        a_refused_submission_keeps_nothing(engine);
        threads_share_an_executor(engine);
        return 0;
    } catch (const std::exception &error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
