#include "plan.hpp"

#include <algorithm>
#include <map>

namespace {

bool is_one_of(const std::string &kind, std::initializer_list<const char *> kinds) {
    return std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
}

const std::string &operation(const Json &step) {
    return step["op"]["kind"].text();
}

bool is_attention(const Json &step) {
    return is_one_of(operation(step), {"attention", "fused_attention", "cache_append", "rope", "rope_angles"});
}

bool is_linear(const Json &step) {
    return is_one_of(operation(step), {"linear", "gated_linear"});
}

void describe_views(std::string &out, const Json &views) {
    for (const Json &view : views.items()) {
        out += view["rows"].text() + view["dtype"].text() + view["start"].plain() + "+" + view["columns"].plain() + " ";
    }
}

std::string likeness_of(const Json &step) {
    std::string out;
    const auto add = [&out](const auto &self, const Json::Members &members) -> void {
        for (const auto &[key, value] : members) {
            // Layers differ in their place in the cache.
            if (key == "layer") continue;
            out += key + "=";
            value.members().empty() ? void(out += value.plain() + " ") : self(self, value.members());
        }
    };
    add(add, step["op"].members());
    describe_views(out, step["inputs"]);
    describe_views(out, step["outputs"]);
    for (const Json &weight : step["weights"].items()) {
        out +=
            weight["shape"].plain() + weight["dtype"].text() + weight["packing"].text() + weight["scales"].text() + " ";
    }
    return out + ";";
}

}  // namespace

const char *name_of(Part part) {
    switch (part) {
        case Part::embedding:
            return "embedding";
        case Part::attention:
            return "attention";
        case Part::mlp:
            return "mlp";
        case Part::norm:
            return "norm";
        case Part::head:
            return "head";
        case Part::other:
            break;
    }
    return "other";
}

Plan::Plan(const Json &engine) : engine_(engine), writer_(values().size()), readers_(values().size()) {
    for (std::size_t step = 0; step < steps().size(); ++step) {
        for (const Json &view : steps()[step]["inputs"].items()) readers_.at(view["index"].index()).push_back(step);
        for (const Json &view : steps()[step]["outputs"].items()) writer_.at(view["index"].index()) = step;
    }
    for (std::size_t step = 0; step < steps().size(); ++step) parts_.push_back(part_of(step));
}

Part Plan::part_of(std::size_t step) const {
    const std::string &kind = operation(steps()[step]);
    if (is_attention(steps()[step])) return Part::attention;
    if (is_linear(steps()[step])) return part_of_linear(step);
    if (is_one_of(kind, {"embedding", "position_embedding"})) return Part::embedding;
    return kind.find("norm") == std::string::npos ? Part::other : Part::norm;
}

Part Plan::part_of_linear(std::size_t step) const {
    for (const Json &view : steps()[step]["outputs"].items()) {
        for (const Json &output : engine_["outputs"].items()) {
            if (output["index"].index() == view["index"].index()) return Part::head;
        }
    }
    return reads_attention(step) || feeds_attention(step, 0) ? Part::attention : Part::mlp;
}

// Whether the step reads what an attention wrote, or rows of it.
bool Plan::reads_attention(std::size_t step) const {
    for (const Json &view : steps()[step]["inputs"].items()) {
        const std::optional<std::size_t> writer = writer_.at(view["index"].index());
        // A plan computes forwards; a description that does not could go in circles.
        if (!writer || *writer >= step) continue;
        if (is_attention(steps()[*writer])) return true;
        if (operation(steps()[*writer]) == "gather_rows" && reads_attention(*writer)) return true;
    }
    return false;
}

// Whether an attention needs the step's result before another linear layer has made something else of it.
bool Plan::feeds_attention(std::size_t step, int depth) const {
    constexpr int furthest = 3;
    for (const Json &view : steps()[step]["outputs"].items()) {
        for (const std::size_t reader : readers_.at(view["index"].index())) {
            if (is_attention(steps()[reader])) return true;
            if (depth < furthest && !is_linear(steps()[reader]) && feeds_attention(reader, depth + 1)) return true;
        }
    }
    return false;
}

std::vector<Module> Plan::modules() const {
    std::vector<Module> modules;
    const std::vector<std::string> names = module_names();
    for (std::size_t step = 0; step < steps().size(); ++step) {
        if (modules.empty() || modules.back().name != names[step]) modules.push_back({names[step], step, step, ""});
        modules.back().end = step + 1;
        modules.back().likeness += likeness_of(steps()[step]);
    }
    return modules;
}

// By step. What belongs to an earlier module than the step before it, or to none amid the steps of one, counts to that
// one.
std::vector<std::string> Plan::module_names() const {
    std::vector<std::string> names;
    std::map<std::string, std::size_t> first, last;
    for (const Json &step : steps()) {
        names.push_back(module_of(step["name"].text()));
        first.emplace(names.back(), names.size() - 1);
        last[names.back()] = names.size() - 1;
    }
    for (std::size_t step = 1; step < names.size(); ++step) {
        const std::string &before = names[step - 1];
        const bool amid = names[step].empty() && last[before] > step;
        const bool late = !names[step].empty() && first[names[step]] < first[before];
        if (!before.empty() && (amid || late)) names[step] = before;
    }
    return names;
}

std::vector<Part> Plan::weight_parts() const {
    std::vector<std::optional<Part>> parts(weights().size());
    for (std::size_t step = 0; step < steps().size(); ++step) {
        for (const Json &weight : steps()[step]["weights"].items()) {
            const std::size_t index = weight["index"].index();
            if (parts.at(index)) continue;
            parts[index] = part(step);
            const Json &scales = weights()[index]["scales_index"];
            if (!scales.is_null()) parts.at(scales.index()) = part(step);
        }
    }
    std::vector<Part> known;
    for (const std::optional<Part> &part : parts) known.push_back(part.value_or(Part::other));
    return known;
}

std::vector<std::optional<Lifetime>> Plan::lifetimes() const {
    std::vector<std::optional<Lifetime>> lifetimes(values().size());
    for (std::size_t value = 0; value < values().size(); ++value) {
        if (!writer_[value]) continue;
        const std::size_t first = *writer_[value];
        lifetimes[value] = {first, readers_[value].empty() ? first : std::max(first, readers_[value].back())};
    }
    for (const Json &output : engine_["outputs"].items()) {
        std::optional<Lifetime> &lifetime = lifetimes.at(output["index"].index());
        if (lifetime) lifetime->last = steps().size() - 1;
    }
    return lifetimes;
}

std::string module_of(const std::string &name) {
    const std::size_t joint = name.rfind('+');
    if (joint != std::string::npos) {
        const std::string module = module_of(name.substr(joint + 1));
        return module.empty() ? module_of(name.substr(0, joint)) : module;
    }
    std::string module;
    for (std::size_t dot = name.find('.', 1); dot != std::string::npos; dot = name.find('.', dot + 1)) {
        const std::size_t before = name.rfind('.', dot - 1);
        const std::string part = name.substr(before == std::string::npos ? 0 : before + 1, dot - 1 - before);
        const bool number = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
        if (number) module = name.substr(0, dot);
    }
    return module;
}

std::string local_name(const std::string &name, const std::string &module) {
    const std::size_t joint = name.rfind('+');
    if (joint != std::string::npos) {
        return local_name(name.substr(0, joint), module) + "+" + local_name(name.substr(joint + 1), module);
    }
    const bool within = !module.empty() && name.compare(0, module.size() + 1, module + ".") == 0;
    return within ? name.substr(module.size() + 1) : name;
}
