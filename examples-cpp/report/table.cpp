#include "table.hpp"

#include "figure.hpp"

void write_bar(Html &html, const std::vector<Piece> &pieces) {
    std::uint64_t total = 0;
    for (const Piece &piece : pieces) total += piece.size;
    html.element("div", {{"class", "bar"}}, [&] {
        for (const auto &[name, size] : pieces) {
            if (size == 0) continue;
            const std::string title = name + ": " + bytes(size) + ", " + share(size, total);
            html.element(
                "i", {{"class", "part-" + name}, {"style", "flex-grow:" + std::to_string(size)}, {"title", title}}, "");
        }
    });
}

void write_key(Html &html, const std::string &name) {
    html.element("i", {{"class", "key part-" + name}}, "");
}
