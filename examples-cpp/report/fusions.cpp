#include <algorithm>
#include <cstddef>

#include "figure.hpp"
#include "sections.hpp"
#include "table.hpp"

namespace {

struct Pattern {
    std::string operation;
    std::string parts;
    std::size_t nodes;
    std::size_t times;
};

// Names without what tells one layer from another.
std::string parts_of(const Json &step) {
    std::string parts;
    for (const Json &node : step["fused"].items()) {
        parts += (parts.empty() ? "" : " + ") + local_name(node.text(), module_of(node.text()));
    }
    return parts;
}

std::vector<Pattern> patterns_of(const Json &engine) {
    std::vector<Pattern> patterns;
    for (const Json &step : engine["steps"].items()) {
        const std::size_t nodes = step["fused"].items().size();
        if (nodes < 2) continue;
        const std::string &operation = step["op"]["kind"].text();
        const std::string parts = parts_of(step);
        const auto same = [&](const Pattern &known) { return known.operation == operation && known.parts == parts; };
        const auto known = std::find_if(patterns.begin(), patterns.end(), same);
        known == patterns.end() ? patterns.push_back({operation, parts, nodes, 1}) : void(++known->times);
    }
    return patterns;
}

void write_passes(Html &html, const Json &build) {
    std::uint64_t before = build["nodes"].whole();
    std::uint64_t most = before;
    for (const Json &pass : build["passes"].items()) most = std::max(most, pass["nodes"].whole());
    write_table(html, {"pass", "#applied", "#nodes before", "#after", "graph afterwards"}, [&] {
        for (const Json &pass : build["passes"].items()) {
            const std::uint64_t after = pass["nodes"].whole();
            const double part = most == 0 ? 0 : 100 * static_cast<double>(after) / static_cast<double>(most);
            html.element("tr", {{"class", pass["rewrites"].whole() == 0 ? "idle" : ""}}, [&] {
                write_code(html, pass["name"].text());
                write_number(html, count(pass["rewrites"].whole()));
                write_number(html, count(before));
                write_number(html, count(after));
                html.element("td", {{"class", "wide"}}, [&] {
                    html.element("i", {{"class", "gauge"}, {"style", "width:" + decimal(part) + "%"}}, "");
                });
            });
            before = after;
        }
    });
}

void write_patterns(Html &html, const std::vector<Pattern> &patterns) {
    html.element("h3", "What became one step");
    write_table(html, {"step", "made of", "#nodes", "#times"}, [&] {
        for (const Pattern &pattern : patterns) {
            html.element("tr", {}, [&] {
                write_code(html, pattern.operation);
                write_code(html, pattern.parts);
                write_number(html, std::to_string(pattern.nodes) + " → 1");
                write_number(html, count(pattern.times));
            });
        }
    });
}

}  // namespace

void write_fusions(Html &html, const Json &engine) {
    const Json &build = engine["build"];
    const std::vector<Pattern> patterns = patterns_of(engine);
    html.element("section", {{"id", "fusions"}}, [&] {
        html.element("h2", "Fusions");
        if (!build["passes"].items().empty()) {
            html.element("p",
                         count(build["nodes"].whole()) + " nodes of the network became " +
                             count(engine["steps"].items().size()) +
                             " steps. Passes run in this order; slices of a fused result are nodes, but no steps.");
            write_passes(html, build);
        }
        if (!patterns.empty()) write_patterns(html, patterns);
    });
}
