// Tables and bars, as every section uses them.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "html.hpp"

// A table with a head; columns whose name begins with `#` hold numbers. `rows` writes the rows.
template <typename Rows>
void write_table(Html &html, std::initializer_list<const char *> columns, const Rows &rows) {
    html.element("div", {{"class", "scroll"}}, [&] {
        html.element("table", {}, [&] {
            html.element("thead", {}, [&] {
                html.element("tr", {}, [&] {
                    for (const char *column : columns) {
                        const bool number = column[0] == '#';
                        html.element("th", {{"class", number ? "n" : ""}}, column + (number ? 1 : 0));
                    }
                });
            });
            html.element("tbody", {}, rows);
        });
    });
}

inline void write_cell(Html &html, const std::string &text) {
    html.element("td", text);
}
inline void write_number(Html &html, const std::string &text) {
    html.element("td", {{"class", "n"}}, text);
}
inline void write_code(Html &html, const std::string &text) {
    html.element("td", {{"class", "c"}}, text);
}

// A part of a bar: its colour is that of the class `part-NAME`.
struct Piece {
    std::string name;
    std::uint64_t size;
};

// A bar whose pieces are as long as their sizes are large.
void write_bar(Html &html, const std::vector<Piece> &pieces);
// The square that tells a name's colour.
void write_key(Html &html, const std::string &name);
