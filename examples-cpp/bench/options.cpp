#include "options.hpp"

#include <algorithm>
#include <charconv>
#include <functional>
#include <map>
#include <stdexcept>
#include <string_view>

namespace {

using Setter = std::function<void(Options &, std::string_view)>;

template <typename Number>
Number number(std::string_view text) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) {
        throw std::invalid_argument("not a whole number in range: '" + std::string(text) + "'");
    }
    return value;
}

template <typename Number>
Number positive(std::string_view text) {
    const Number value = number<Number>(text);
    if (value == 0) throw std::invalid_argument("must be at least 1");
    return value;
}

std::vector<std::uint32_t> positive_list(std::string_view text) {
    std::vector<std::uint32_t> values;
    for (;;) {
        const std::size_t comma = text.find(',');
        values.push_back(positive<std::uint32_t>(text.substr(0, comma)));
        if (comma == std::string_view::npos) return values;
        text.remove_prefix(comma + 1);
    }
}

trtllm_precision precision(std::string_view name) {
    if (name == "auto") return TRTLLM_PRECISION_AUTO;
    if (name == "f32") return TRTLLM_PRECISION_F32;
    if (name == "bf16") return TRTLLM_PRECISION_BF16;
    if (name == "f16") return TRTLLM_PRECISION_F16;
    if (name == "fp8") return TRTLLM_PRECISION_FP8;
    if (name == "int8") return TRTLLM_PRECISION_INT8;
    if (name == "int8_w8a8") return TRTLLM_PRECISION_INT8_W8A8;
    throw std::invalid_argument("is none of auto, f32, bf16, f16, fp8, int8, int8_w8a8: '" + std::string(name) + "'");
}

trtllm_target target(std::string_view name) {
    if (name == "cpu") return TRTLLM_TARGET_CPU;
    if (name == "cuda") return TRTLLM_TARGET_CUDA;
    throw std::invalid_argument("is none of cpu, cuda: '" + std::string(name) + "'");
}

Setter source(Options::Source source) {
    return [source](Options &options, std::string_view path) {
        if (!options.source_path.empty()) throw std::invalid_argument("a second source of the engine");
        options.source = source;
        options.source_path = path;
    };
}

template <typename Field, typename Parse>
Setter field(Field Options::*member, Parse parse) {
    return [member, parse](Options &options, std::string_view text) { options.*member = parse(text); };
}

const std::map<std::string_view, Setter> &valued() {
    static const std::map<std::string_view, Setter> setters = {
        {"--engine", source(Options::Source::engine)},
        {"--checkpoint", source(Options::Source::checkpoint)},
        {"--dummy-weights", source(Options::Source::dummy)},
        {"--out", field(&Options::out, [](std::string_view text) { return std::string(text); })},
        {"--target", field(&Options::target, target)},
        {"--precision", field(&Options::precision, precision)},
        {"--kv-precision", field(&Options::kv_precision, precision)},
        {"--head-precision", field(&Options::head_precision, precision)},
        {"--archs", field(&Options::archs, [](std::string_view text) { return std::string(text); })},
        {"--isa", field(&Options::isa, [](std::string_view text) { return std::string(text); })},
        {"--threads", field(&Options::threads, number<std::uint32_t>)},
        {"--batch", field(&Options::batch, positive<std::uint32_t>)},
        {"--batch-tokens", field(&Options::batch_tokens, positive<std::uint32_t>)},
        {"--kv-tokens", field(&Options::kv_tokens, positive<std::uint64_t>)},
        {"--input", field(&Options::input, positive<std::uint32_t>)},
        {"--output", field(&Options::output, positive<std::uint32_t>)},
        {"--requests", field(&Options::requests, positive<std::uint32_t>)},
        {"--concurrency", field(&Options::concurrency, positive_list)},
        {"--repeat", field(&Options::repeat, positive<std::uint32_t>)},
        {"--warmup", field(&Options::warmup, number<std::uint32_t>)},
        {"--seed", field(&Options::seed, number<std::uint64_t>)},
    };
    return setters;
}

void set_valued(Options &options, std::string_view name, const char *value) {
    const auto setter = valued().find(name);
    if (setter == valued().end()) throw std::invalid_argument("unknown argument: " + std::string(name));
    if (!value) throw std::invalid_argument(std::string(name) + " needs a value");
    try {
        setter->second(options, value);
    } catch (const std::invalid_argument &error) {
        throw std::invalid_argument(std::string(name) + ": " + error.what());
    }
}

}  // namespace

Options Options::parse(int argc, char **argv) {
    Options options;
    bool latency = false;
    bool throughput = false;
    bool decode = false;
    for (int i = 1; i < argc; ++i) {
        const std::string_view name = argv[i];
        if (name == "latency") {
            latency = true;
        } else if (name == "throughput") {
            throughput = true;
        } else if (name == "decode") {
            decode = true;
        } else if (name == "--json") {
            options.json = true;
        } else if (name == "--invariant") {
            options.invariant = true;
        } else if (name == "--default-tactics") {
            options.default_tactics = true;
        } else if (name == "--keep") {
            options.keep = true;
        } else {
            set_valued(options, name, i + 1 < argc ? argv[i + 1] : nullptr);
            ++i;
        }
    }
    if (options.source_path.empty())
        throw std::invalid_argument("one of --engine, --checkpoint, --dummy-weights is needed");
    if (options.keep && options.out.empty()) throw std::invalid_argument("--keep needs --out, to say where");
    if (latency || throughput || decode) {
        options.latency = latency;
        options.throughput = throughput;
        options.decode = decode;
    }
    return options;
}

const char *Options::usage() {
    return "usage: bench [latency] [throughput] [decode] SOURCE [OPTION ...]; latency and throughput by default\n"
           "\n"
           "  SOURCE, one of\n"
           "    --engine FILE                an engine that is there\n"
           "    --checkpoint DIR             is built first\n"
           "    --dummy-weights CONFIG.json  is built first, with random weights of that shape\n"
           "  build\n"
           "    --target cpu|cuda            default cpu\n"
           "    --precision auto|f32|bf16|f16|fp8|int8|int8_w8a8\n"
           "                                 default auto\n"
           "    --kv-precision, --head-precision\n"
           "                                 of the cache and the last layer; likewise\n"
           "    --archs LIST                 kernels of a CUDA engine, e.g. 80;90a; default: the GPU here\n"
           "    --invariant                  a request's bits depend on nothing but itself, on a GPU too\n"
           "    --default-tactics            kernels by rule, not by measurement on the GPU here\n"
           "    --out FILE                   where to build; default a temporary file\n"
           "    --keep                       leave what was built at --out\n"
           "  executor\n"
           "    --threads N                  default 0: as the library chooses\n"
           "    --isa NAME                   default: the best of this machine\n"
           "    --batch N                    sequences at once; default the highest concurrency\n"
           "    --batch-tokens N             tokens in one step; default 512\n"
           "    --kv-tokens N                tokens in the cache; default what the workload needs\n"
           "  workload\n"
           "    --input N, --output N        tokens of each prompt and answer; default 128 and 64\n"
           "    --requests N                 of one throughput run; default 2 for each concurrent one, at least 4\n"
           "    --concurrency N[,N...]       requests in flight; default 1,8\n"
           "    --repeat N, --warmup N       measured and unmeasured runs; default 3 and 1\n"
           "    --seed N                     of prompts and dummy weights; default 0\n"
           "  --json                         one JSON object instead of the table\n";
}

std::uint32_t Options::most_concurrency() const {
    return throughput || decode ? *std::max_element(concurrency.begin(), concurrency.end()) : 1;
}

std::uint32_t Options::requests_at(std::uint32_t concurrent) const {
    return requests ? requests : std::max(2 * concurrent, 4U);
}

trtllm::ExecutorConfig Options::executor_config() const {
    // Caches are handed out in blocks; a sequence may leave part of its last one unused.
    constexpr std::uint64_t block_slack = 64;
    trtllm::ExecutorConfig config;
    config.max_batch_size = batch ? batch : most_concurrency();
    config.max_batch_tokens = batch_tokens;
    config.max_sequence_tokens = input + output;
    config.kv_tokens = kv_tokens ? kv_tokens : config.max_batch_size * (std::uint64_t{input} + output + block_slack);
    config.max_queue = std::max(config.max_queue, most_concurrency());
    config.threads = threads;
    config.isa = isa.empty() ? nullptr : isa.c_str();
    config.prefix_reuse = 0;
    return config;
}
