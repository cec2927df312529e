// Just enough JSON to read what the library writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

class Json {
   public:
    struct Member;
    using Items = std::vector<Json>;
    using Members = std::vector<Member>;

    Json() = default;
    explicit Json(bool value) : value_(value) {}
    explicit Json(double value) : value_(value) {}
    explicit Json(std::string value) : value_(std::move(value)) {}
    explicit Json(Items value) : value_(std::move(value)) {}
    explicit Json(Members value) : value_(std::move(value)) {}

    // Throws std::runtime_error when `text` is no JSON.
    static Json parse(std::string_view text);

    // What is not there, or of another kind, reads as null, nothing, zero or empty.
    bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
    bool truth() const { return as<bool>() && *as<bool>(); }
    double number() const { return as<double>() ? *as<double>() : 0; }
    std::uint64_t whole() const { return number() > 0 ? static_cast<std::uint64_t>(number()) : 0; }
    std::size_t index() const { return static_cast<std::size_t>(whole()); }
    const std::string &text() const;
    const Items &items() const;
    const Members &members() const;
    const Json &operator[](std::string_view key) const;

    // As a person reads it: texts without quotes, what is composed without braces.
    std::string plain() const;

   private:
    template <typename T>
    const T *as() const {
        return std::get_if<T>(&value_);
    }

    std::variant<std::monostate, bool, double, std::string, Items, Members> value_;
};

struct Json::Member {
    std::string key;
    Json value;
};
