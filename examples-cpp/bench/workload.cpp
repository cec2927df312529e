#include "workload.hpp"

Workload::Workload(const Options &options, std::uint32_t vocab_size)
    : input_(options.input), output_(options.output), vocab_size_(vocab_size), random_(options.seed) {}

trtllm::Request Workload::next(std::uint32_t input, std::uint32_t output) {
    // A random text has no natural end; without one every answer is of the same length.
    trtllm::Sampling sampling;
    sampling.max_tokens = output;
    sampling.ignore_eos = 1;
    trtllm::Request request = trtllm::Request::from_tokens(prompt(input));
    request.set_sampling(sampling);
    return request;
}

std::vector<trtllm::Request> Workload::several(std::uint32_t count) {
    std::vector<trtllm::Request> requests;
    requests.reserve(count);
    for (std::uint32_t i = 0; i < count; ++i) requests.push_back(next());
    return requests;
}

std::vector<std::uint32_t> Workload::prompt(std::uint32_t length) {
    std::vector<std::uint32_t> tokens(length);
    for (std::uint32_t &token : tokens) token = static_cast<std::uint32_t>(random_() % vocab_size_);
    // The first tokens are the digits of a running number, so that prompts differ, and from their beginning on.
    std::uint64_t number = count_++;
    for (std::size_t i = 0; i < tokens.size() && (i == 0 || number > 0); ++i, number /= vocab_size_) {
        tokens[i] = static_cast<std::uint32_t>(number % vocab_size_);
    }
    return tokens;
}
