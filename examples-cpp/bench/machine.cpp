#include "machine.hpp"

#include <fstream>
#include <string_view>
#include <thread>

namespace {

// What follows `key` and its colon in a file of such lines; empty when there is no such line.
std::string field(const char *path, std::string_view key) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        if (line.compare(0, key.size(), key) != 0) continue;
        const std::size_t value = line.find_first_not_of(" \t", line.find(':') + 1);
        return value == std::string::npos ? std::string() : line.substr(value);
    }
    return {};
}

}  // namespace

Machine Machine::here() {
    Machine machine;
    machine.cpu = field("/proc/cpuinfo", "model name");
    if (machine.cpu.empty()) machine.cpu = "unknown";
    machine.threads = std::thread::hardware_concurrency();
    return machine;
}

void reset_peak_rss() {
    std::ofstream("/proc/self/clear_refs") << "5";
}

std::uint64_t peak_rss_bytes() {
    const std::string kibibytes = field("/proc/self/status", "VmHWM");
    return kibibytes.empty() ? 0 : std::stoull(kibibytes) * 1024;
}
