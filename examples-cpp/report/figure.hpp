// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>

// "1.25 MiB"
std::string bytes(std::uint64_t count);
// "1,234,567"
std::string count(std::uint64_t number);
// "12.5 %"; "< 0.1 %" for what is there and rounds to nothing.
std::string share(std::uint64_t part, std::uint64_t whole);
// "1.3", with three significant digits
std::string decimal(double number);
