/** From a checkpoint to an engine file. Part of trtllm.hpp. */

#ifndef TRTLLM_BUILDER_HPP
#define TRTLLM_BUILDER_HPP

#include <trtllm/builder.h>

#include <string>

#include "trtllm/progress.hpp"

namespace trtllm {

/** How an engine is built, begun from the defaults. */
struct BuildConfig : trtllm_build_config {
    BuildConfig() noexcept : trtllm_build_config(TRTLLM_BUILD_CONFIG_INIT) {}
};

/**
 * Builds the engine file `engine_path` from a Hugging Face checkpoint. The file appears, or replaces an older one, only
 * when it is complete. A `progress` takes the place of the config's own callback.
 */
inline void build(const std::string &checkpoint_path, const std::string &engine_path, const BuildConfig &config = {},
                  const Progress &progress = {}) {
    detail::ProgressCall{progress}.run(config, [&](const BuildConfig &reporting) {
        return trtllm_build(checkpoint_path.c_str(), engine_path.c_str(), &reporting);
    });
}

}  // namespace trtllm

#endif  // TRTLLM_BUILDER_HPP
