// The third measurement: what a step costs while all requests decode, to the client, to the device and to the host.
#pragma once

#include <cstdint>
#include <trtllm.hpp>

#include "options.hpp"
#include "summary.hpp"
#include "workload.hpp"

// What the executor's statistics say of a number of steps; times are sums.
struct Steps {
    std::uint64_t count = 0;
    double wall_s = 0;
    double device_s = 0;
    // Between two steps, while there were requests.
    double idle_s = 0;

    Steps &operator+=(const Steps &other);
    double per_step(double sum) const { return sum / static_cast<double>(count); }
    // Time of the host that the device did not hide.
    double exposed_s() const { return wall_s - device_s; }
};

// `concurrency` requests that begin together. What counts is the time from when the last of them has its first token
// until the first of them has its last but one: every step then has one token of each.
struct Decode {
    std::uint32_t concurrency = 0;
    // From one token of a request in the client's hands to its next, over all requests and runs.
    Summary step_s;
    Steps steps;
};

// Throws std::runtime_error when no step has all requests.
Decode measure_decode(trtllm::Executor &executor, Workload &workload, const Options &options,
                      std::uint32_t concurrency);
