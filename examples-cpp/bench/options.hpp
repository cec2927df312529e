// What the user asked for.
#pragma once

#include <cstdint>
#include <string>
#include <trtllm.hpp>
#include <vector>

struct Options {
    enum class Source { engine, checkpoint, dummy };

    Source source = Source::engine;
    std::string source_path;
    // Where an engine is built; empty: a file in the folder for temporary files.
    std::string out;
    bool keep = false;

    bool latency = true;
    bool throughput = true;
    bool decode = false;
    bool json = false;

    trtllm_target target = TRTLLM_TARGET_CPU;
    trtllm_precision precision = TRTLLM_PRECISION_AUTO;
    trtllm_precision kv_precision = TRTLLM_PRECISION_AUTO;
    trtllm_precision head_precision = TRTLLM_PRECISION_AUTO;
    std::string archs;
    bool invariant = false;
    bool default_tactics = false;
    std::string isa;
    std::uint32_t threads = 0;
    std::uint32_t batch = 0;
    std::uint32_t batch_tokens = 512;
    std::uint64_t kv_tokens = 0;

    std::uint32_t input = 128;
    std::uint32_t output = 64;
    std::uint32_t requests = 0;
    std::vector<std::uint32_t> concurrency = {1, 8};
    std::uint32_t repeat = 3;
    std::uint32_t warmup = 1;
    std::uint64_t seed = 0;

    // Throws std::invalid_argument that names the argument.
    static Options parse(int argc, char **argv);
    static const char *usage();

    std::uint32_t most_concurrency() const;
    // Requests of one throughput run: as asked, or enough that the end of the run, when it runs dry, does not decide.
    std::uint32_t requests_at(std::uint32_t concurrency) const;
    // Limits that just hold the workload. Prefix reuse is off: every prompt is computed. Borrows `isa`.
    trtllm::ExecutorConfig executor_config() const;
};
