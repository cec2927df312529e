// The page: one file, nothing else, no script.
#pragma once

#include <string>

#include "json.hpp"

// The networks of the checkpoint as text; empty without one.
struct Networks {
    std::string before;
    std::string after;
};

// `file` is the engine's name for the title.
std::string write_page(const std::string &file, const Json &engine, const Networks &networks);
