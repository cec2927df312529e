#include "figure.hpp"
#include "sections.hpp"
#include "table.hpp"

namespace {

// What an operation carries beside its kind, without what is off.
std::string attributes(const Json &operation) {
    std::string out;
    const auto add = [&out](const auto &self, const Json::Members &members) -> void {
        for (const auto &[key, value] : members) {
            const bool known = (", " + out + ",").find(", " + key + " " + value.plain() + ",") != std::string::npos;
            if (key == "kind" || value.is_null() || value.plain() == "no" || known) continue;
            if (!value.members().empty()) {
                self(self, value.members());
            } else {
                out += (out.empty() ? "" : ", ") + key + (value.truth() ? "" : " " + value.plain());
            }
        }
    };
    add(add, operation.members());
    return out;
}

void write_operation(Html &html, const Json &step, const std::string &module) {
    html.element("td", {{"class", "c"}}, [&] {
        html.text(step["op"]["kind"].text());
        if (step["fused"].items().size() < 2) return;
        std::string parts;
        for (const Json &node : step["fused"].items()) {
            parts += (parts.empty() ? "" : " + ") + local_name(node.text(), module);
        }
        html.element("small", {{"class", "fused"}}, "fused: " + parts);
    });
}

void write_views(Html &html, const Json &views, const std::string &module) {
    html.element("td", {{"class", "c"}}, [&] {
        for (const Json &view : views.items()) {
            const std::string rows = view["rows"].text() == "tokens" ? "T" : "R";
            html.element("div", {}, [&] {
                html.text(local_name(view["value"].text(), module));
                if (view["start"].whole() > 0) html.text("@" + view["start"].plain());
                html.element("small", view["dtype"].text() + "[" + rows + ", " + view["columns"].plain() + "]");
            });
        }
    });
}

void write_weights(Html &html, const Json &weights, const std::string &module) {
    html.element("td", {{"class", "c"}}, [&] {
        for (const Json &weight : weights.items()) {
            const std::string scales = weight["scales"].is_null() ? "" : ", scale by " + weight["scales"].text();
            html.element("div", {}, [&] {
                html.text(local_name(weight["name"].text(), module));
                html.element("small", weight["dtype"].text() + "[" + weight["shape"].plain() + "] " +
                                          bytes(weight["bytes"].whole()) + scales);
            });
        }
    });
}

void write_step(Html &html, const Plan &plan, std::size_t index, const std::string &module) {
    const Json &step = plan.steps()[index];
    html.element("tr", {}, [&] {
        write_number(html, std::to_string(index));
        html.element("td", {}, [&] {
            write_key(html, name_of(plan.part(index)));
            html.element("b", local_name(step["name"].text(), module));
            html.element("small", attributes(step["op"]));
        });
        write_operation(html, step, module);
        write_views(html, step["inputs"], module);
        write_weights(html, step["weights"], module);
        write_views(html, step["outputs"], module);
    });
}

void write_module(Html &html, const Plan &plan, const Module &module) {
    write_table(html, {"#", "step", "operation", "reads", "weights", "writes"}, [&] {
        for (std::size_t step = module.first; step < module.end; ++step) write_step(html, plan, step, module.name);
    });
}

// Modules from `first` on that are like the one before them.
std::size_t alike(const std::vector<Module> &modules, std::size_t first) {
    std::size_t end = first;
    while (first > 0 && end < modules.size() && modules[end].likeness == modules[first - 1].likeness) ++end;
    return end;
}

void write_legend(Html &html) {
    html.element("p", {{"class", "note"}}, [&] {
        for (const Part part : all_parts) {
            html.element("span", {{"class", "legend"}}, [&] {
                write_key(html, name_of(part));
                html.text(name_of(part));
            });
        }
    });
}

std::string title_of(const std::vector<Module> &modules, std::size_t index) {
    if (!modules[index].name.empty()) return modules[index].name;
    return index == 0 ? "before the layers" : index + 1 == modules.size() ? "after the layers" : "between the layers";
}

}  // namespace

void write_steps(Html &html, const Plan &plan) {
    const std::vector<Module> modules = plan.modules();
    html.element("section", {{"id", "plan"}}, [&] {
        html.element("h2", "Plan");
        html.element("p",
                     "T is the number of tokens of a step of the engine, R the number of those whose logits are "
                     "wanted. Layers like the one before are folded.");
        write_legend(html);
        for (std::size_t at = 0; at < modules.size();) {
            const std::size_t end = alike(modules, at);
            if (end == at) {
                html.element("h3", title_of(modules, at));
                write_module(html, plan, modules[at++]);
                continue;
            }
            html.element("details", {}, [&] {
                const std::string last = end == at + 1 ? " is" : " to " + modules[end - 1].name + " are";
                html.element("summary", modules[at].name + last + " like " + modules[at - 1].name);
                for (; at < end; ++at) {
                    html.element("h3", modules[at].name);
                    write_module(html, plan, modules[at]);
                }
            });
        }
    });
}
