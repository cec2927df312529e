// What the measurement ran on, and the memory it took.
#pragma once

#include <cstdint>
#include <string>

struct Machine {
    std::string cpu;
    unsigned threads = 0;

    static Machine here();
};

// Lets `peak_rss_bytes` count anew, where the kernel allows it.
void reset_peak_rss();
// The most memory this process held at once, mapped files included; 0 where the system does not say.
std::uint64_t peak_rss_bytes();
