#include "figure.hpp"

#include <cstdio>

std::string bytes(std::uint64_t count) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = static_cast<double>(count);
    int unit = 0;
    for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
    return (unit == 0 ? std::to_string(count) : decimal(value)) + " " + units[unit];
}

std::string count(std::uint64_t number) {
    std::string digits = std::to_string(number);
    for (std::size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, ",");
    return digits;
}

std::string share(std::uint64_t part, std::uint64_t whole) {
    const double percent = whole == 0 ? 0 : 100 * static_cast<double>(part) / static_cast<double>(whole);
    if (part > 0 && percent < 0.1) return "< 0.1 %";
    char text[32];
    std::snprintf(text, sizeof text, "%.1f %%", percent);
    return text;
}

std::string decimal(double number) {
    char text[32];
    std::snprintf(text, sizeof text, number >= 100 ? "%.0f" : number >= 10 ? "%.1f" : "%.2f", number);
    return text;
}
