// Everything that was measured, and its two ways onto paper.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "decode.hpp"
#include "machine.hpp"
#include "measure.hpp"
#include "options.hpp"

struct Report {
    Machine machine;
    std::string library;
    std::string architecture;
    std::string precision;
    std::string kv_precision;
    std::string head_precision;
    std::uint64_t weight_bytes = 0;

    // Nothing when the engine was there.
    std::optional<double> build_s;
    // Engine alone, until it can be given to an executor.
    double load_s = 0;
    // From the begin of the load to the first token of a prompt of `probe_tokens`.
    double load_to_first_token_s = 0;
    std::uint32_t probe_tokens = 0;

    std::optional<Latency> latency;
    std::vector<Throughput> throughput;
    std::vector<Decode> decode;

    // Cache for the tokens that the executor was asked to hold.
    std::uint64_t cache_bytes = 0;
    // Of the process, from the load on.
    std::uint64_t peak_rss_bytes = 0;

    std::string table(const Options &options) const;
    std::string json(const Options &options) const;
};
