#include <vector>

#include "figure.hpp"
#include "sections.hpp"

namespace {

struct Fact {
    const char *name;
    std::string value;
};

using Facts = std::vector<Fact>;

std::uint64_t parameters(const Plan &plan) {
    std::uint64_t total = 0;
    std::vector<bool> is_scale(plan.weights().size());
    for (const Json &weight : plan.weights()) {
        const Json &scales = weight["scales_index"];
        if (!scales.is_null()) is_scale.at(scales.index()) = true;
    }
    for (std::size_t index = 0; index < plan.weights().size(); ++index) {
        std::uint64_t elements = is_scale[index] ? 0 : 1;
        for (const Json &extent : plan.weights()[index]["shape"].items()) elements *= extent.whole();
        total += elements;
    }
    return total;
}

// The distinct types of the KV cache.
std::string kv_types(const Json &engine) {
    std::string types;
    for (const Json &group : engine["kv_groups"].items()) {
        const std::string &type = group["dtype"].text();
        if (types.find(type) == std::string::npos) types += (types.empty() ? "" : ", ") + type;
    }
    return types.empty() ? "none" : types;
}

// The element type of the weights of the last linear layer.
std::string head_type(const Plan &plan) {
    std::string type = "none";
    for (std::size_t step = 0; step < plan.steps().size(); ++step) {
        const Json::Items &weights = plan.steps()[step]["weights"].items();
        if (plan.part(step) == Part::head && !weights.empty()) type = weights[0]["dtype"].text();
    }
    return type;
}

void tiles(Html &html, const Facts &facts) {
    html.element("div", {{"class", "tiles"}}, [&] {
        for (const Fact &fact : facts) {
            html.element("div", {{"class", "tile"}}, [&] {
                html.element("b", fact.value);
                html.element("span", fact.name);
            });
        }
    });
}

void list(Html &html, const Facts &facts) {
    html.element("dl", {{"class", "facts"}}, [&] {
        for (const Fact &fact : facts) {
            html.element("div", {}, [&] {
                html.element("dt", fact.name);
                html.element("dd", fact.value);
            });
        }
    });
}

}  // namespace

void write_facts(Html &html, const Json &engine, const Plan &plan) {
    const Json &model = engine["model"], &build = engine["build"], &totals = engine["totals"];
    const std::uint64_t per_token = totals["kv_bytes_per_token"].whole();
    html.element("section", {{"id", "facts"}}, [&] {
        tiles(html, {{"parameters", count(parameters(plan))},
                     {"file", bytes(engine["file_bytes"].whole())},
                     {"KV cache per token", bytes(per_token)},
                     {"KV cache of the longest request", bytes(per_token * model["max_positions"].whole())},
                     {"steps", count(plan.steps().size())}});
        Facts facts = {{"target", engine["target"].text()},
                       {"precision", engine["precision"].text()},
                       {"KV cache", kv_types(engine)},
                       {"head", head_type(plan)},
                       {"layers", count(model["layers"].whole())},
                       {"hidden size", count(model["hidden_size"].whole())},
                       {"vocabulary", count(model["vocab_size"].whole())},
                       {"longest request", count(model["max_positions"].whole()) + " tokens"},
                       {"ends with token", model["eos_token_ids"].plain()},
                       {"begins with token", model["bos_token_id"].is_null() ? "none" : model["bos_token_id"].plain()},
                       {"bits independent of the batch",
                        engine["invariant"].truth() || engine["target"].text() == "cpu" ? "yes" : "no"},
                       {"format version", engine["format_version"].plain()}};
        if (!build["library"].is_null()) facts.push_back({"built by libtrtllm", build["library"].text()});
        if (!build["kernels"]["compiler"].is_null()) {
            facts.push_back({"kernels compiled by NVRTC", build["kernels"]["compiler"].text()});
        }
        list(html, facts);
    });
}
