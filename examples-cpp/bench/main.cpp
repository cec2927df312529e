// Measures latency, throughput and decode steps of an engine. `bench` alone shows its options; README.md of this folder
// says what the figures mean.
#include <algorithm>
#include <iostream>
#include <stdexcept>
#include <trtllm.hpp>

#include "clock.hpp"
#include "decode.hpp"
#include "engine_source.hpp"
#include "machine.hpp"
#include "measure.hpp"
#include "options.hpp"
#include "report.hpp"
#include "workload.hpp"

namespace {

const char *precision_name(int32_t precision) {
    switch (precision) {
        case TRTLLM_PRECISION_F32:
            return "f32";
        case TRTLLM_PRECISION_BF16:
            return "bf16";
        case TRTLLM_PRECISION_F16:
            return "f16";
        case TRTLLM_PRECISION_FP8:
            return "fp8";
        case TRTLLM_PRECISION_INT8:
            return "int8";
        case TRTLLM_PRECISION_INT8_W8A8:
            return "int8_w8a8";
        default:
            return "unknown";
    }
}

void describe(Report &report, const trtllm_engine_info &info) {
    report.machine = Machine::here();
    report.library = trtllm_version_string();
    report.architecture = info.architecture;
    report.precision = precision_name(info.precision);
    report.kv_precision = precision_name(info.kv_precision);
    report.head_precision = precision_name(info.head_precision);
    report.weight_bytes = info.weight_bytes;
}

Report measure(const Options &options) {
    constexpr std::uint32_t probe_tokens = 8;
    Report report;
    const EngineSource source(options);
    report.build_s = source.build_seconds();
    reset_peak_rss();

    const Clock::time_point begin = Clock::now();
    const trtllm::Engine engine(source.path());
    report.load_s = seconds_since(begin);
    trtllm::Executor executor(engine, options.executor_config());
    Workload workload(options, engine.info().vocab_size);
    report.probe_tokens = std::min(probe_tokens, options.input);
    executor.generate(workload.next(report.probe_tokens, 1));
    report.load_to_first_token_s = seconds_since(begin);

    describe(report, engine.info());
    if (options.latency) report.latency = measure_latency(executor, workload, options);
    if (options.throughput) {
        for (const std::uint32_t concurrency : options.concurrency) {
            report.throughput.push_back(measure_throughput(executor, workload, options, concurrency));
        }
    }
    if (options.decode) {
        for (const std::uint32_t concurrency : options.concurrency) {
            report.decode.push_back(measure_decode(executor, workload, options, concurrency));
        }
    }
    report.cache_bytes = options.executor_config().kv_tokens * engine.info().kv_bytes_per_token;
    report.peak_rss_bytes = peak_rss_bytes();
    return report;
}

}  // namespace

int main(int argc, char **argv) {
    try {
        trtllm::check_version();
        const Options options = Options::parse(argc, argv);
        const Report report = measure(options);
        std::cout << (options.json ? report.json(options) : report.table(options));
        return 0;
    } catch (const std::invalid_argument &error) {
        std::cerr << error.what() << "\n\n" << Options::usage();
        return 2;
    } catch (const std::exception &error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
