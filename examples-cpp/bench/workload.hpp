// Prompts of random token ids: seeded, and no two of them equal.
#pragma once

#include <cstdint>
#include <random>
#include <trtllm.hpp>
#include <vector>

#include "options.hpp"

class Workload {
   public:
    Workload(const Options &options, std::uint32_t vocab_size);

    // The next prompt, to be answered by exactly `output` tokens.
    trtllm::Request next(std::uint32_t input, std::uint32_t output);
    trtllm::Request next() { return next(input_, output_); }
    std::vector<trtllm::Request> several(std::uint32_t count);

   private:
    std::vector<std::uint32_t> prompt(std::uint32_t length);

    std::uint32_t input_;
    std::uint32_t output_;
    std::uint32_t vocab_size_;
    std::uint64_t count_ = 0;
    std::mt19937_64 random_;
};
