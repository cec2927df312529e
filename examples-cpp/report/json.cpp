#include "json.hpp"

#include <cstdio>
#include <cstdlib>
#include <stdexcept>

namespace {

constexpr int deepest = 64;

class Reader {
   public:
    explicit Reader(std::string_view text) : text_(text) {}

    Json document() {
        Json value = this->value(0);
        if (peek() != '\0') fail();
        return value;
    }

   private:
    [[noreturn]] void fail() const {
        throw std::runtime_error("the description of the engine is no JSON at byte " + std::to_string(at_));
    }

    // The next character that is no space; NUL at the end.
    char peek() {
        while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) ++at_;
        return at_ < text_.size() ? text_[at_] : '\0';
    }

    bool take(char wanted) {
        if (peek() != wanted) return false;
        ++at_;
        return true;
    }

    void expect(char wanted) {
        if (!take(wanted)) fail();
    }

    bool take_word(std::string_view word) {
        if (text_.substr(at_, word.size()) != word) return false;
        at_ += word.size();
        return true;
    }

    Json value(int depth) {
        if (depth > deepest) fail();
        switch (peek()) {
            case '{':
                return object(depth);
            case '[':
                return array(depth);
            case '"':
                return Json(string());
            default:
                break;
        }
        if (take_word("null")) return Json();
        if (take_word("true")) return Json(true);
        if (take_word("false")) return Json(false);
        return number();
    }

    Json object(int depth) {
        Json::Members members;
        expect('{');
        if (take('}')) return Json(std::move(members));
        do {
            if (peek() != '"') fail();
            std::string key = string();
            expect(':');
            members.push_back({std::move(key), value(depth + 1)});
        } while (take(','));
        expect('}');
        return Json(std::move(members));
    }

    Json array(int depth) {
        Json::Items items;
        expect('[');
        if (take(']')) return Json(std::move(items));
        do {
            items.push_back(value(depth + 1));
        } while (take(','));
        expect(']');
        return Json(std::move(items));
    }

    Json number() {
        const std::size_t end = text_.find_first_not_of("+-.0123456789eE", at_);
        const std::string digits(text_.substr(at_, end == std::string_view::npos ? end : end - at_));
        char *stop = nullptr;
        const double value = std::strtod(digits.c_str(), &stop);
        if (digits.empty() || *stop != '\0') fail();
        at_ += digits.size();
        return Json(value);
    }

    std::string string() {
        std::string out;
        for (++at_; at_ < text_.size(); ++at_) {
            if (text_[at_] == '"') {
                ++at_;
                return out;
            }
            if (text_[at_] == '\\') {
                escape(out);
            } else {
                out += text_[at_];
            }
        }
        fail();
    }

    // At a backslash; ends at the last character of the escape.
    void escape(std::string &out) {
        constexpr std::string_view letters = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
        if (++at_ >= text_.size()) fail();
        if (text_[at_] == 'u') return append_utf8(out, code_point());
        const std::size_t letter = letters.find(text_[at_]);
        if (letter == std::string_view::npos) fail();
        out += meanings[letter];
    }

    std::uint32_t code_point() {
        const std::uint32_t first = hexadecimal();
        if (first < 0xD800 || first > 0xDFFF) return first;
        if (text_.substr(at_ + 1, 2) != "\\u") fail();
        at_ += 2;
        const std::uint32_t second = hexadecimal();
        if (first > 0xDBFF || second < 0xDC00 || second > 0xDFFF) fail();
        return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
    }

    // The four digits after the `u`.
    std::uint32_t hexadecimal() {
        const std::string digits(text_.substr(at_ + 1, 4));
        char *stop = nullptr;
        const unsigned long value = std::strtoul(digits.c_str(), &stop, 16);
        if (digits.size() != 4 || *stop != '\0') fail();
        at_ += 4;
        return static_cast<std::uint32_t>(value);
    }

    static void append_utf8(std::string &out, std::uint32_t code) {
        const auto put = [&out](std::uint32_t byte) { out += static_cast<char>(static_cast<unsigned char>(byte)); };
        if (code < 0x80) return put(code);
        const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
        put((more == 1 ? 0xC0U : more == 2 ? 0xE0U : 0xF0U) | (code >> (6 * more)));
        for (int left = more - 1; left >= 0; --left) put(0x80U | ((code >> (6 * left)) & 0x3FU));
    }

    std::string_view text_;
    std::size_t at_ = 0;
};

}  // namespace

Json Json::parse(std::string_view text) {
    return Reader(text).document();
}

const std::string &Json::text() const {
    static const std::string none;
    return as<std::string>() ? *as<std::string>() : none;
}

const Json::Items &Json::items() const {
    static const Items none;
    return as<Items>() ? *as<Items>() : none;
}

const Json::Members &Json::members() const {
    static const Members none;
    return as<Members>() ? *as<Members>() : none;
}

const Json &Json::operator[](std::string_view key) const {
    static const Json none;
    for (const Member &member : members()) {
        if (member.key == key) return member.value;
    }
    return none;
}

std::string Json::plain() const {
    if (as<bool>()) return truth() ? "yes" : "no";
    if (as<std::string>()) return text();
    std::string out;
    if (as<double>()) {
        char digits[32];
        std::snprintf(digits, sizeof digits, number() == static_cast<double>(whole()) ? "%.0f" : "%.6g", number());
        return digits;
    }
    for (const Json &item : items()) out += (out.empty() ? "" : ", ") + item.plain();
    for (const Member &member : members()) out += (out.empty() ? "" : ", ") + member.key + " " + member.value.plain();
    return out;
}
