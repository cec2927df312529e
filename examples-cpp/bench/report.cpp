#include "report.hpp"

#include <cstdarg>
#include <cstdio>

#include "json.hpp"

namespace {

#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
std::string
line(const char *format, ...) {
    char buffer[512];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(buffer, sizeof buffer, format, arguments);
    va_end(arguments);
    return std::string(buffer) + "\n";
}

std::string row(const char *name, const Summary &summary, double scale, const char *unit) {
    return line("  %-22s %12.2f %12.2f %12.2f %12.2f %12.2f  %s", name, summary.median * scale, summary.min * scale,
                summary.lower_quartile * scale, summary.upper_quartile * scale, summary.max * scale, unit);
}

std::string head(const std::string &title) {
    return "\n" + line("%-24s %12s %12s %12s %12s %12s", title.c_str(), "median", "min", "25 %", "75 %", "max");
}

std::string latency_table(const Latency &latency) {
    return head("latency, one request") + row("first token", latency.first_token_s, 1e3, "ms") +
           row("per token after", latency.per_token_s, 1e3, "ms") + row("whole answer", latency.total_s, 1e3, "ms") +
           line("  %-22s %12.2f tokens/s", "prefill", latency.prefill_tokens_per_s) +
           line("  %-22s %12.2f tokens/s", "decode", latency.decode_tokens_per_s);
}

std::string throughput_table(const Throughput &throughput, const Throughput &base) {
    const double factor = throughput.output_tokens_per_s.median / base.output_tokens_per_s.median;
    std::string text = head("throughput, " + std::to_string(throughput.concurrency) + " at once") +
                       row("output", throughput.output_tokens_per_s, 1, "tokens/s") +
                       row("input and output", throughput.total_tokens_per_s, 1, "tokens/s") +
                       row("requests", throughput.requests_per_s, 1, "requests/s") +
                       row("first token", throughput.first_token_s, 1e3, "ms");
    if (&throughput != &base) {
        text += line("  %-22s %12.2f times the output of %u at once", "scaling", factor, base.concurrency);
    }
    return text;
}

std::string decode_table(const Decode &decode) {
    const Steps &steps = decode.steps;
    const auto per_step = [&steps](const char *name, double sum) {
        return line("  %-22s %12.3f ms a step", name, steps.per_step(sum) * 1e3);
    };
    return head("decode, " + std::to_string(decode.concurrency) + " at once") + row("step", decode.step_s, 1e3, "ms") +
           per_step("on the device", steps.device_s) + per_step("exposed host time", steps.exposed_s()) +
           per_step("device idle", steps.idle_s) + line("  %-22s %12.0f", "steps", static_cast<double>(steps.count));
}

JsonObject json_of(const Summary &summary) {
    return JsonObject()
        .add("median", summary.median)
        .add("min", summary.min)
        .add("lower_quartile", summary.lower_quartile)
        .add("upper_quartile", summary.upper_quartile)
        .add("max", summary.max)
        .add("count", std::uint64_t{summary.count});
}

JsonObject json_of(const Latency &latency) {
    return JsonObject()
        .add("first_token_s", json_of(latency.first_token_s))
        .add("per_token_s", json_of(latency.per_token_s))
        .add("total_s", json_of(latency.total_s))
        .add("prefill_tokens_per_s", latency.prefill_tokens_per_s)
        .add("decode_tokens_per_s", latency.decode_tokens_per_s);
}

JsonObject json_of(const Throughput &throughput, const Throughput &base) {
    return JsonObject()
        .add("concurrency", throughput.concurrency)
        .add("requests", throughput.requests)
        .add("output_tokens_per_s", json_of(throughput.output_tokens_per_s))
        .add("total_tokens_per_s", json_of(throughput.total_tokens_per_s))
        .add("requests_per_s", json_of(throughput.requests_per_s))
        .add("first_token_s", json_of(throughput.first_token_s))
        .add("scaling", throughput.output_tokens_per_s.median / base.output_tokens_per_s.median);
}

JsonObject json_of(const Decode &decode) {
    const Steps &steps = decode.steps;
    return JsonObject()
        .add("concurrency", decode.concurrency)
        .add("step_s", json_of(decode.step_s))
        .add("steps", steps.count)
        .add("device_s", steps.per_step(steps.device_s))
        .add("exposed_host_s", steps.per_step(steps.exposed_s()))
        .add("device_idle_s", steps.per_step(steps.idle_s));
}

JsonObject json_of(const Options &options) {
    return JsonObject()
        .add("source", options.source_path)
        .add("input", options.input)
        .add("output", options.output)
        .add("threads", options.threads)
        .add("isa", options.isa.empty() ? "auto" : options.isa)
        .add("batch", options.executor_config().max_batch_size)
        .add("batch_tokens", options.batch_tokens)
        .add("kv_tokens", options.executor_config().kv_tokens)
        .add("repeat", options.repeat)
        .add("warmup", options.warmup)
        .add("seed", options.seed);
}

}  // namespace

std::string Report::table(const Options &options) const {
    constexpr double mebibyte = 1024.0 * 1024.0;
    std::string text =
        line("libtrtllm %s, %s, %u hardware threads", library.c_str(), machine.cpu.c_str(), machine.threads);
    text += line("%s, %s, cache %s, head %s, %.1f MiB of weights; %u tokens in, %u out; %u runs after %u for warm-up",
                 architecture.c_str(), precision.c_str(), kv_precision.c_str(), head_precision.c_str(),
                 static_cast<double>(weight_bytes) / mebibyte, options.input, options.output, options.repeat,
                 options.warmup);
    text += "\n";
    if (build_s) text += line("%-24s %12.3f s", "build", *build_s);
    text += line("%-24s %12.3f s", "load", load_s);
    text +=
        line("%-24s %12.3f s, with a prompt of %u tokens", "load to first token", load_to_first_token_s, probe_tokens);
    if (latency) text += latency_table(*latency);
    for (const Throughput &at : throughput) text += throughput_table(at, throughput.front());
    for (const Decode &at : decode) text += decode_table(at);
    text += "\n";
    text += line("%-24s %12.1f MiB", "cache", static_cast<double>(cache_bytes) / mebibyte);
    text += line("%-24s %12.1f MiB", "peak resident memory", static_cast<double>(peak_rss_bytes) / mebibyte);
    return text;
}

std::string Report::json(const Options &options) const {
    JsonObject report;
    report.add("library", library)
        .add("cpu", machine.cpu)
        .add("hardware_threads", std::uint32_t{machine.threads})
        .add("architecture", architecture)
        .add("precision", precision)
        .add("kv_precision", kv_precision)
        .add("head_precision", head_precision)
        .add("weight_bytes", weight_bytes)
        .add("options", json_of(options));
    if (build_s) report.add("build_s", *build_s);
    report.add("load_s", load_s).add("load_to_first_token_s", load_to_first_token_s).add("probe_tokens", probe_tokens);
    if (latency) report.add("latency", json_of(*latency));
    std::vector<JsonObject> runs;
    for (const Throughput &at : throughput) runs.push_back(json_of(at, throughput.front()));
    std::vector<JsonObject> decodes;
    for (const Decode &at : decode) decodes.push_back(json_of(at));
    report.add("throughput", runs)
        .add("decode", decodes)
        .add("cache_bytes", cache_bytes)
        .add("peak_rss_bytes", peak_rss_bytes);
    return report.text() + "\n";
}
