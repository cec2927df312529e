#include "engine_source.hpp"

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "clock.hpp"

namespace {

bool show_progress(std::string_view phase, double fraction) {
    std::fprintf(stderr, "\r%-24.*s %3d %%", static_cast<int>(phase.size()), phase.data(),
                 static_cast<int>(fraction * 100));
    return true;
}

std::string temporary_path() {
    const std::string name = "trtllm-bench-" + std::to_string(getpid()) + ".engine";
    return (std::filesystem::temp_directory_path() / name).string();
}

}  // namespace

EngineSource::EngineSource(const Options &options) : path_(options.source_path) {
    if (options.source != Options::Source::engine) build(options);
}

EngineSource::~EngineSource() {
    std::error_code ignored;
    if (remove_) std::filesystem::remove(path_, ignored);
}

void EngineSource::build(const Options &options) {
    const bool terminal = isatty(STDERR_FILENO) != 0;
    trtllm::BuildConfig config;
    config.target = options.target;
    config.precision = options.precision;
    config.kv_precision = options.kv_precision;
    config.head_precision = options.head_precision;
    config.archs = options.archs.empty() ? nullptr : options.archs.c_str();
    config.invariant = options.invariant;
    config.default_tactics = options.default_tactics;
    config.seed = options.seed;
    config.dummy_weights = options.source == Options::Source::dummy;
    path_ = options.out.empty() ? temporary_path() : options.out;

    const Clock::time_point begin = Clock::now();
    trtllm::build(options.source_path, path_, config, terminal ? trtllm::Progress(show_progress) : nullptr);
    build_seconds_ = seconds_since(begin);
    remove_ = !options.keep;
    if (terminal) std::fputc('\n', stderr);
}
