// Two measurements: how long one request alone takes, and how much is done when many are served.
#pragma once

#include <cstdint>
#include <trtllm.hpp>

#include "options.hpp"
#include "summary.hpp"
#include "workload.hpp"

// One request at a time, as a client sees it: times end when a response is in its hands.
struct Latency {
    // From submit to the first delivered token.
    Summary first_token_s;
    // From one delivered token to the next, over all runs.
    Summary per_token_s;
    // From submit to the last token.
    Summary total_s;
    // Prompt tokens by the median time to the first token.
    double prefill_tokens_per_s = 0;
    // The inverse of the median time per token.
    double decode_tokens_per_s = 0;
};

// `concurrency` requests in flight: each that ends makes room for the next, until `requests` are answered.
struct Throughput {
    std::uint32_t concurrency = 0;
    std::uint32_t requests = 0;
    Summary output_tokens_per_s;
    // Prompts and answers together.
    Summary total_tokens_per_s;
    Summary requests_per_s;
    Summary first_token_s;
};

Latency measure_latency(trtllm::Executor &executor, Workload &workload, const Options &options);
Throughput measure_throughput(trtllm::Executor &executor, Workload &workload, const Options &options,
                              std::uint32_t concurrency);
