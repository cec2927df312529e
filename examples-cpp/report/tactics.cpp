#include <algorithm>

#include "figure.hpp"
#include "sections.hpp"
#include "table.hpp"

namespace {

// `{"gemv": {"rows": 1, ...}}` or `"generic"`.
std::string kind_of(const Json &tactic) {
    return tactic.members().empty() ? tactic.text() : tactic.members()[0].key;
}

std::string form_of(const Json &tactic) {
    return tactic.members().empty() ? "" : tactic.members()[0].value.plain();
}

std::string name_of(const Json &tactic) {
    return kind_of(tactic) + " " + form_of(tactic);
}

// Microseconds of a tactic; 0 when there are none.
double time_of(const Json &layer, const Json &tactic) {
    for (const Json &time : layer["times"].items()) {
        if (name_of(time["tactic"]) == name_of(tactic)) return time["microseconds"].number();
    }
    return 0;
}

bool has_macro(const Json &layer, const std::string &macro) {
    return (" " + layer["layer"].text() + " ").find(" " + macro + " ") != std::string::npos;
}

double elements_of(const Json &layer) {
    return layer["n"].number() * layer["k"].number() * (has_macro(layer, "GATED") ? 2 : 1);
}

// The speed of a layer, as reading its weights and as multiplying.
std::string gigabytes(const Json &layer, double microseconds) {
    return decimal(elements_of(layer) * (has_macro(layer, "WEIGHT_E4M3") ? 1 : 2) / microseconds / 1e3);
}

std::string teraflops(const Json &layer, double microseconds) {
    return decimal(2 * layer["rows"].number() * elements_of(layer) / microseconds / 1e6);
}

void write_tactic(Html &html, const Json &tactic) {
    html.element("td", {{"class", "c"}}, [&] {
        html.text(kind_of(tactic));
        html.element("small", form_of(tactic));
    });
}

void write_times(Html &html, const Json &layer) {
    double longest = 0;
    for (const Json &time : layer["times"].items()) longest = std::max(longest, time["microseconds"].number());
    html.element("td", {{"class", "wide"}}, [&] {
        for (const Json &time : layer["times"].items()) {
            const double microseconds = time["microseconds"].number();
            const bool chosen = name_of(time["tactic"]) == name_of(layer["chosen"].items().at(0));
            html.element("div", {{"class", "race"}, {"title", name_of(time["tactic"])}}, [&] {
                html.element("span", kind_of(time["tactic"]));
                html.element("i",
                             {{"class", chosen ? "gauge chosen" : "gauge"},
                              {"style", "width:" + decimal(60 * microseconds / longest) + "%"}},
                             "");
                html.element("span", decimal(microseconds));
            });
        }
    });
}

void write_rows(Html &html, const Json &layer) {
    if (layer["chosen"].items().empty()) return;
    const Json &chosen = layer["chosen"].items()[0];
    const double time = time_of(layer, chosen), by_default = time_of(layer, layer["default"]);
    html.element("tr", {}, [&] {
        write_number(html, count(layer["rows"].whole()));
        write_tactic(html, chosen);
        write_number(html, decimal(time));
        write_number(html, time > 0 ? gigabytes(layer, time) : "");
        write_number(html, time > 0 ? teraflops(layer, time) : "");
        write_number(html, by_default > 0 ? decimal(by_default) : "refused");
        write_number(html, count(layer["candidates"].whole()));
        write_times(html, layer);
    });
}

void write_layers(Html &html, const Json::Items &layers) {
    for (std::size_t at = 0; at < layers.size();) {
        const Json &first = layers[at];
        html.element("h3", {}, [&] {
            html.text("linear " + count(first["k"].whole()) + " → " + count(first["n"].whole()));
            html.element("small", first["layer"].text());
        });
        write_table(html,
                    {"#rows", "chosen", "#µs", "#GB/s of weights", "#TFLOP/s", "#µs of the default", "#candidates",
                     "µs of the fastest of each kind"},
                    [&] {
                        for (; at < layers.size() && layers[at]["layer"].text() == first["layer"].text(); ++at) {
                            write_rows(html, layers[at]);
                        }
                    });
    }
}

}  // namespace

void write_tactics(Html &html, const Json &engine) {
    const Json &kernels = engine["build"]["kernels"], &tuning = kernels["tuning"];
    if (kernels.is_null()) return;
    html.element("section", {{"id", "tactics"}}, [&] {
        html.element("h2", "Kernels and tactics");
        write_table(html, {"compiled for", "#kernels", "#"}, [&] {
            for (const Json::Member &arch : kernels["archs"].members()) {
                html.element("tr", {}, [&] {
                    write_code(html, arch.key);
                    write_number(html, count(arch.value["kernels"].whole()));
                    write_number(html, bytes(arch.value["bytes"].whole()));
                });
            }
        });
        if (tuning.is_null()) {
            html.element("p", "Kernels were chosen by rule: nothing was measured when this engine was built.");
            return;
        }
        html.element("p", "Measured on " + tuning["device"].text() + " (" + tuning["arch"].text() +
                              "): " + count(tuning["measured"].whole()) + " candidates, and " +
                              count(tuning["remembered"].whole()) + " whose times earlier builds left. " +
                              count(tuning["refused"].whole()) + " were refused by the device.");
        write_layers(html, tuning["measurements"].items());
    });
}
