// Writes a page that is HTML and well-formed XML at once. Whatever comes from outside goes through `text` or the value
// of an attribute, which escape it; tags and names of attributes are the program's own.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

class Html {
   public:
    using Attributes = std::initializer_list<std::pair<const char *, std::string>>;

    // An element whose content `content` writes.
    template <typename Content>
    void element(const char *tag, Attributes attributes, const Content &content) {
        open(tag, attributes);
        content();
        close(tag);
    }
    void element(const char *tag, Attributes attributes, const std::string &content) {
        element(tag, attributes, [&] { text(content); });
    }
    void element(const char *tag, Attributes attributes, const char *content) {
        element(tag, attributes, std::string(content));
    }
    void element(const char *tag, const std::string &content) { element(tag, {}, content); }
    void element(const char *tag, const char *content) { element(tag, {}, content); }

    // An element that has no content.
    void empty(const char *tag, Attributes attributes);
    void text(std::string_view text);
    // Markup of the program itself.
    void literal(const char *markup) { out_ += markup; }

    const std::string &page() const { return out_; }

   private:
    void open(const char *tag, Attributes attributes);
    void begin(const char *tag, Attributes attributes);
    void close(const char *tag);

    std::string out_;
};
