#include "measure.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "clock.hpp"

namespace {

void require_tokens(std::uint64_t expected, std::uint64_t delivered) {
    if (expected == delivered) return;
    throw std::runtime_error("a request gave " + std::to_string(delivered) + " tokens instead of " +
                             std::to_string(expected));
}

struct Times {
    double first_token = 0;
    double total = 0;
    std::vector<double> per_token;
};

// A slow client gets several tokens in one response: each of them then took its share of the time.
Times time_one(trtllm::Executor &executor, const trtllm::Request &request, std::uint32_t output) {
    Times times;
    std::size_t delivered = 0;
    const Clock::time_point begin = Clock::now();
    Clock::time_point before = begin;
    for (const trtllm::Response &response : executor.stream(request)) {
        const std::size_t tokens = response.tokens().size();
        if (tokens == 0) continue;
        const Clock::time_point now = Clock::now();
        if (delivered == 0) {
            times.first_token = seconds_between(begin, now);
        } else {
            times.per_token.insert(times.per_token.end(), tokens,
                                   seconds_between(before, now) / static_cast<double>(tokens));
        }
        delivered += tokens;
        before = now;
    }
    times.total = seconds_between(begin, before);
    require_tokens(output, delivered);
    return times;
}

struct Run {
    double seconds = 0;
    std::vector<double> first_token;
};

Run serve(trtllm::Executor &executor, std::vector<trtllm::Request> requests, std::uint32_t concurrency,
          std::uint32_t output) {
    constexpr std::size_t most_responses = 64;
    Run run;
    std::size_t submitted = 0;
    std::size_t ended = 0;
    const Clock::time_point begin = Clock::now();
    while (ended < requests.size()) {
        for (; submitted < requests.size() && submitted - ended < concurrency; ++submitted) {
            executor.submit(requests[submitted]);
        }
        for (const trtllm::Response &response : executor.await_many(most_responses)) {
            response.check();
            if (!response.last()) continue;
            const trtllm_request_stats stats = response.stats();
            require_tokens(output, stats.generated_tokens);
            run.first_token.push_back(static_cast<double>(stats.first_token_ns) / 1e9);
            ++ended;
        }
    }
    run.seconds = seconds_since(begin);
    return run;
}

std::vector<double> scaled(const std::vector<double> &values, double factor) {
    std::vector<double> result = values;
    for (double &value : result) value *= factor;
    return result;
}

}  // namespace

Latency measure_latency(trtllm::Executor &executor, Workload &workload, const Options &options) {
    std::vector<double> first_token;
    std::vector<double> per_token;
    std::vector<double> total;
    for (std::uint32_t run = 0; run < options.warmup + options.repeat; ++run) {
        const Times times = time_one(executor, workload.next(), options.output);
        if (run < options.warmup) continue;
        first_token.push_back(times.first_token);
        total.push_back(times.total);
        per_token.insert(per_token.end(), times.per_token.begin(), times.per_token.end());
    }
    Latency latency;
    latency.first_token_s = Summary::of(first_token);
    latency.per_token_s = Summary::of(per_token);
    latency.total_s = Summary::of(total);
    latency.prefill_tokens_per_s = options.input / latency.first_token_s.median;
    if (latency.per_token_s.median > 0) latency.decode_tokens_per_s = 1 / latency.per_token_s.median;
    return latency;
}

Throughput measure_throughput(trtllm::Executor &executor, Workload &workload, const Options &options,
                              std::uint32_t concurrency) {
    const std::uint32_t requests = options.requests_at(concurrency);
    std::vector<double> requests_per_s;
    std::vector<double> first_token;
    for (std::uint32_t i = 0; i < options.warmup + options.repeat; ++i) {
        const Run run = serve(executor, workload.several(requests), concurrency, options.output);
        if (i < options.warmup) continue;
        requests_per_s.push_back(requests / run.seconds);
        first_token.insert(first_token.end(), run.first_token.begin(), run.first_token.end());
    }
    Throughput throughput;
    throughput.concurrency = concurrency;
    throughput.requests = requests;
    throughput.requests_per_s = Summary::of(requests_per_s);
    throughput.output_tokens_per_s = Summary::of(scaled(requests_per_s, options.output));
    throughput.total_tokens_per_s = Summary::of(scaled(requests_per_s, double{1} * options.input + options.output));
    throughput.first_token_s = Summary::of(first_token);
    return throughput;
}
