#include "sections.hpp"

namespace {

void write_text(Html &html, const char *title, const std::string &text) {
    html.element("details", {}, [&] {
        html.element("summary", title);
        html.element("pre", text);
    });
}

}  // namespace

void write_network(Html &html, const std::string &before, const std::string &after) {
    html.element("section", {{"id", "network"}}, [&] {
        html.element("h2", "Network");
        write_text(html, "As the checkpoint describes it", before);
        write_text(html, "After all passes", after);
    });
}
