// Just enough JSON to write a report.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

class JsonObject {
   public:
    JsonObject &add(std::string_view key, std::string_view value);
    JsonObject &add(std::string_view key, const char *value) { return add(key, std::string_view(value)); }
    JsonObject &add(std::string_view key, double value);
    JsonObject &add(std::string_view key, std::uint64_t value);
    JsonObject &add(std::string_view key, std::uint32_t value) { return add(key, std::uint64_t{value}); }
    JsonObject &add(std::string_view key, const JsonObject &value);
    JsonObject &add(std::string_view key, const std::vector<JsonObject> &values);

    std::string text() const { return "{" + members_ + "}"; }

   private:
    JsonObject &add_raw(std::string_view key, std::string_view value);

    std::string members_;
};
