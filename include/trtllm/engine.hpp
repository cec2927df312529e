/** A loaded engine. Part of trtllm.hpp. */

#ifndef TRTLLM_ENGINE_HPP
#define TRTLLM_ENGINE_HPP

#include <trtllm/engine.h>

#include <string>

#include "trtllm/handle.hpp"
#include "trtllm/progress.hpp"
#include "trtllm/sampling.hpp"

namespace trtllm {

/** How an engine is loaded, begun from the defaults. */
struct EngineConfig : trtllm_engine_config {
    EngineConfig() noexcept : trtllm_engine_config(TRTLLM_ENGINE_CONFIG_INIT) {}
};

/** A loaded engine. */
class Engine {
   public:
    /** Loads an engine file. A `progress` takes the place of the config's own callback. */
    explicit Engine(const std::string &path, const EngineConfig &config = {}, const Progress &progress = {}) {
        detail::ProgressCall{progress}.run(config, [&](const EngineConfig &reporting) {
            trtllm_engine *handle = nullptr;
            const trtllm_status status = trtllm_engine_load(path.c_str(), &reporting, &handle);
            handle_.reset(handle);
            return status;
        });
    }

    trtllm_engine *get() const noexcept { return handle_.get(); }

    /** What is to know about the engine; the pointers in it are borrowed from this object. */
    trtllm_engine_info info() const {
        trtllm_engine_info info;
        detail::check(trtllm_engine_get_info(get(), sizeof info, &info));
        return info;
    }

    /** The generation defaults of the checkpoint, to be changed and used. */
    Sampling sampling() const {
        Sampling sampling;
        detail::check(trtllm_engine_get_sampling(get(), sizeof(trtllm_sampling), &sampling));
        return sampling;
    }

    /** The model and every plan step as JSON. */
    std::string inspect() const {
        return detail::text([this](char *buffer, std::size_t capacity, std::size_t *length) {
            return trtllm_engine_inspect(get(), buffer, capacity, length);
        });
    }

    /** Describes an engine file as `inspect()`, without loading its weights. */
    static std::string inspect_file(const std::string &path) {
        return detail::text([&path](char *buffer, std::size_t capacity, std::size_t *length) {
            return trtllm_engine_inspect_file(path.c_str(), buffer, capacity, length);
        });
    }

   private:
    detail::Handle<trtllm_engine> handle_;
};

}  // namespace trtllm

#endif  // TRTLLM_ENGINE_HPP
