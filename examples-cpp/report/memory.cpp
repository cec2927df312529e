#include <array>

#include "figure.hpp"
#include "sections.hpp"
#include "table.hpp"

namespace {

struct Sum {
    std::uint64_t weights = 0;
    std::uint64_t bytes = 0;
    std::string types;

    void add(const Json &weight) {
        ++weights;
        bytes += weight["bytes"].whole();
        const std::string &type = weight["dtype"].text();
        if ((", " + types + ",").find(", " + type + ",") == std::string::npos) {
            types += (types.empty() ? "" : ", ") + type;
        }
    }
};

void write_file(Html &html, const Json &engine) {
    const std::uint64_t total = engine["file_bytes"].whole();
    html.element("h3", "Sections of the file");
    std::vector<Piece> pieces;
    for (const Json &section : engine["sections"].items()) {
        pieces.push_back({section["kind"].text(), section["bytes"].whole()});
    }
    write_bar(html, pieces);
    write_table(html, {"section", "#offset", "#bytes", "#", "#share", "checksum (xxh3-64)"}, [&] {
        for (const Json &section : engine["sections"].items()) {
            const std::string &kind = section["kind"].text();
            html.element("tr", {}, [&] {
                html.element("td", {}, [&] {
                    write_key(html, kind);
                    html.text(kind);
                });
                write_number(html, count(section["offset"].whole()));
                write_number(html, count(section["bytes"].whole()));
                write_number(html, bytes(section["bytes"].whole()));
                write_number(html, share(section["bytes"].whole(), total));
                section["checksum"].is_null() ? write_cell(html, "one for each weight")
                                              : write_code(html, section["checksum"].text());
            });
        }
    });
}

void write_weights(Html &html, const Plan &plan) {
    std::array<Sum, std::size(all_parts)> sums;
    Sum total;
    const std::vector<Part> parts = plan.weight_parts();
    for (std::size_t weight = 0; weight < parts.size(); ++weight) {
        sums[static_cast<std::size_t>(parts[weight])].add(plan.weights()[weight]);
        total.add(plan.weights()[weight]);
    }
    html.element("h3", "Weights by part of the model");
    std::vector<Piece> pieces;
    for (const Part part : all_parts) pieces.push_back({name_of(part), sums[static_cast<std::size_t>(part)].bytes});
    write_bar(html, pieces);
    write_table(html, {"part", "#weights", "types", "#bytes", "#", "#share"}, [&] {
        for (const Part part : all_parts) {
            const Sum &sum = sums[static_cast<std::size_t>(part)];
            if (sum.weights == 0) continue;
            html.element("tr", {}, [&] {
                html.element("td", {}, [&] {
                    write_key(html, name_of(part));
                    html.text(name_of(part));
                });
                write_number(html, count(sum.weights));
                write_cell(html, sum.types);
                write_number(html, count(sum.bytes));
                write_number(html, bytes(sum.bytes));
                write_number(html, share(sum.bytes, total.bytes));
            });
        }
    });
    html.element("p", {{"class", "note"}},
                 "A weight that several steps use counts where it is used first; scales count "
                 "with their matrices.");
}

}  // namespace

void write_memory(Html &html, const Json &engine, const Plan &plan) {
    html.element("section", {{"id", "memory"}}, [&] {
        html.element("h2", "Memory");
        write_file(html, engine);
        write_weights(html, plan);
    });
}
