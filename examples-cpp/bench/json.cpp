#include "json.hpp"

#include <cmath>
#include <cstdio>

namespace {

std::string quoted(std::string_view text) {
    std::string json = "\"";
    for (const char c : text) {
        if (static_cast<unsigned char>(c) < 0x20) {
            json += ' ';
            continue;
        }
        if (c == '"' || c == '\\') json += '\\';
        json += c;
    }
    return json + '"';
}

}  // namespace

JsonObject &JsonObject::add(std::string_view key, std::string_view value) {
    return add_raw(key, quoted(value));
}

JsonObject &JsonObject::add(std::string_view key, double value) {
    char number[32];
    std::snprintf(number, sizeof number, "%.9g", value);
    return add_raw(key, std::isfinite(value) ? number : "null");
}

JsonObject &JsonObject::add(std::string_view key, std::uint64_t value) {
    return add_raw(key, std::to_string(value));
}

JsonObject &JsonObject::add(std::string_view key, const JsonObject &value) {
    return add_raw(key, value.text());
}

JsonObject &JsonObject::add(std::string_view key, const std::vector<JsonObject> &values) {
    std::string array;
    for (const JsonObject &value : values) array += (array.empty() ? "" : ",") + value.text();
    return add_raw(key, "[" + array + "]");
}

JsonObject &JsonObject::add_raw(std::string_view key, std::string_view value) {
    if (!members_.empty()) members_ += ',';
    members_ += quoted(key);
    members_ += ':';
    members_ += value;
    return *this;
}
