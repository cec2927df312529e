/** The network of a checkpoint. Part of trtllm.hpp. */

#ifndef TRTLLM_NETWORK_HPP
#define TRTLLM_NETWORK_HPP

#include <trtllm/network.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "trtllm/handle.hpp"

namespace trtllm {

/** The network of a checkpoint, to look at. */
class Network {
   public:
    /** Takes a checkpoint's folder, or the path of its `config.json`. Weights are not read. */
    static Network from_checkpoint(const std::string &path) {
        return Network(detail::make<trtllm_network>(
            [&](trtllm_network **handle) { return trtllm_network_from_checkpoint(path.c_str(), handle); }));
    }

    trtllm_network *get() const noexcept { return handle_.get(); }

    /** Runs the compiler's passes except those named. A failure leaves the network as it was. */
    void run_passes(const std::vector<std::string> &disabled = {}) {
        std::vector<const char *> names;
        names.reserve(disabled.size());
        for (const std::string &name : disabled) names.push_back(name.c_str());
        detail::check(trtllm_network_run_passes(get(), names.empty() ? nullptr : names.data(), names.size()));
    }

    /** One node a line. */
    std::string text() const {
        return detail::text([this](char *buffer, std::size_t capacity, std::size_t *length) {
            return trtllm_network_text(get(), buffer, capacity, length);
        });
    }

    /** In the DOT language of Graphviz. */
    std::string dot() const {
        return detail::text([this](char *buffer, std::size_t capacity, std::size_t *length) {
            return trtllm_network_dot(get(), buffer, capacity, length);
        });
    }

   private:
    explicit Network(detail::Handle<trtllm_network> handle) noexcept : handle_(std::move(handle)) {}

    detail::Handle<trtllm_network> handle_;
};

}  // namespace trtllm

#endif  // TRTLLM_NETWORK_HPP
