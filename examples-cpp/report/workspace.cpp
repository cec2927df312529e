#include <algorithm>

#include "figure.hpp"
#include "sections.hpp"
#include "table.hpp"

namespace {

// Of the picture, in its own units.
constexpr double width = 1000, left = 56, row = 22, gap = 3, top = 18;

// The picture of lifetimes: a column for each step, a row for each slot.
class Picture {
   public:
    Picture(Html &html, const Plan &plan, std::size_t slots)
        : html_(html), plan_(plan), slots_(slots), step_((width - left) / static_cast<double>(plan.steps().size())) {}

    void write() {
        const double height = top + row * static_cast<double>(slots_);
        html_.element("div", {{"class", "scroll"}}, [&] {
            html_.element("svg",
                          {{"xmlns", "http://www.w3.org/2000/svg"},
                           {"viewBox", "0 0 " + decimal(width) + " " + decimal(height)},
                           {"role", "img"},
                           {"aria-label", "lifetimes of values in the slots of the workspace"}},
                          [&] {
                              for (const Module &module : plan_.modules()) write_module(module, height);
                              for (std::size_t slot = 0; slot < slots_; ++slot) write_slot(slot);
                              write_values();
                          });
        });
    }

   private:
    double x(std::size_t step) const { return left + step_ * static_cast<double>(step); }
    double y(std::size_t slot) const { return top + row * static_cast<double>(slot); }

    void write_text(double x, double y, const std::string &text) {
        html_.element("text", {{"x", decimal(x)}, {"y", decimal(y)}}, text);
    }

    void write_module(const Module &module, double height) {
        const std::string at = decimal(x(module.first));
        html_.empty("line", {{"x1", at}, {"x2", at}, {"y1", "0"}, {"y2", decimal(height)}});
        const std::string number = module.name.substr(module.name.rfind('.') + 1);
        if (step_ * static_cast<double>(module.end - module.first) > 16) {
            write_text(x(module.first) + 3, 11, step_ > 8 ? module.name : number);
        }
    }

    void write_slot(std::size_t slot) { write_text(0, y(slot) + 15, "slot " + std::to_string(slot)); }

    void write_values() {
        const std::vector<std::optional<Lifetime>> lifetimes = plan_.lifetimes();
        for (std::size_t index = 0; index < lifetimes.size(); ++index) {
            if (lifetimes[index]) write_value(plan_.values()[index], *lifetimes[index]);
        }
    }

    void write_value(const Json &value, const Lifetime &life) {
        const double length = step_ * static_cast<double>(life.last - life.first + 1);
        const std::string title = value["name"].text() + ": " + value["dtype"].text() + "[" + value["rows"].text() +
                                  ", " + value["columns"].plain() + "], steps " + std::to_string(life.first) + " to " +
                                  std::to_string(life.last);
        html_.element("rect",
                      {{"class", std::string("part-") + name_of(plan_.part(life.first))},
                       {"x", decimal(x(life.first))},
                       {"y", decimal(y(value["slot"].index()) + gap)},
                       {"width", decimal(std::max(1.0, length - 1))},
                       {"height", decimal(row - 2 * gap)},
                       {"rx", "2"}},
                      [&] { html_.element("title", title); });
    }

    Html &html_;
    const Plan &plan_;
    std::size_t slots_;
    double step_;
};

void write_slots(Html &html, const Json::Items &slots) {
    write_table(html, {"slot", "#bytes per token", "#bytes per row of logits"}, [&] {
        for (std::size_t slot = 0; slot < slots.size(); ++slot) {
            html.element("tr", {}, [&] {
                write_cell(html, std::to_string(slot));
                write_number(html, count(slots[slot]["bytes_per_token"].whole()));
                write_number(html, count(slots[slot]["bytes_per_logit_row"].whole()));
            });
        }
    });
}

// What a step of so many tokens and rows of logits needs.
std::string need(const Json::Items &slots, std::uint64_t tokens, std::uint64_t rows) {
    std::uint64_t sum = 0;
    for (const Json &slot : slots) {
        sum += std::max(tokens * slot["bytes_per_token"].whole(), rows * slot["bytes_per_logit_row"].whole());
    }
    return bytes(sum);
}

void write_cache(Html &html, const Json::Items &groups) {
    html.element("h3", "KV cache");
    write_table(
        html,
        {"group", "#layers", "#KV heads", "#head size", "type", "#window", "#bytes per token", "#bytes per block"},
        [&] {
            for (std::size_t group = 0; group < groups.size(); ++group) {
                const Json &facts = groups[group];
                html.element("tr", {}, [&] {
                    write_cell(html, std::to_string(group));
                    write_number(html, count(facts["layers"].items().size()));
                    write_number(html, count(facts["kv_heads"].whole()));
                    write_number(html, count(facts["head_dim"].whole()));
                    write_code(html, facts["dtype"].text());
                    write_number(html, facts["window"].is_null() ? "all" : count(facts["window"].whole()));
                    write_number(html, count(facts["bytes_per_token"].whole()));
                    write_number(html, count(facts["bytes_per_block"].whole()));
                });
            }
        });
}

}  // namespace

void write_workspace(Html &html, const Json &engine, const Plan &plan) {
    const Json::Items &slots = engine["slots"].items(), &groups = engine["kv_groups"].items();
    html.element("section", {{"id", "workspace"}}, [&] {
        html.element("h2", "Workspace and cache");
        if (!slots.empty() && !plan.steps().empty()) {
            html.element("p", "Values whose lifetimes do not overlap share a slot. A step of 1 token needs " +
                                  need(slots, 1, 1) + ", one of 512 tokens and 64 rows of logits " +
                                  need(slots, 512, 64) + ".");
            Picture(html, plan, slots.size()).write();
            write_slots(html, slots);
        }
        if (!groups.empty()) write_cache(html, groups);
    });
}
