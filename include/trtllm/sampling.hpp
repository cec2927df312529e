/** How tokens are chosen. Part of trtllm.hpp. */

#ifndef TRTLLM_SAMPLING_HPP
#define TRTLLM_SAMPLING_HPP

#include <trtllm/sampling.h>

namespace trtllm {

/** Sampling parameters, begun from the defaults: greedy, at most 128 tokens. */
struct Sampling : trtllm_sampling {
    Sampling() noexcept : trtllm_sampling(TRTLLM_SAMPLING_INIT) {}
    Sampling(const trtllm_sampling &sampling) noexcept : trtllm_sampling(sampling) {}
};

}  // namespace trtllm

#endif  // TRTLLM_SAMPLING_HPP
