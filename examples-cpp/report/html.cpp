#include "html.hpp"

void Html::empty(const char *tag, Attributes attributes) {
    begin(tag, attributes);
    out_ += "/>";
}

void Html::text(std::string_view text) {
    for (const char c : text) {
        switch (c) {
            case '&':
                out_ += "&amp;";
                break;
            case '<':
                out_ += "&lt;";
                break;
            case '>':
                out_ += "&gt;";
                break;
            case '"':
                out_ += "&quot;";
                break;
            case '\'':
                out_ += "&#39;";
                break;
            default:
                // XML has no other control characters, however they are written.
                const bool control = static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t';
                out_ += control ? "\xEF\xBF\xBD" : std::string(1, c);
        }
    }
}

void Html::open(const char *tag, Attributes attributes) {
    begin(tag, attributes);
    out_ += '>';
}

void Html::begin(const char *tag, Attributes attributes) {
    out_ += '<';
    out_ += tag;
    for (const auto &[name, value] : attributes) {
        out_ += ' ';
        out_ += name;
        out_ += "=\"";
        text(value);
        out_ += '"';
    }
}

void Html::close(const char *tag) {
    out_ += "</";
    out_ += tag;
    out_ += ">\n";
}
