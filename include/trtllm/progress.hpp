/** How far a build or a load is. Part of trtllm.hpp. */

#ifndef TRTLLM_PROGRESS_HPP
#define TRTLLM_PROGRESS_HPP

#include <cstdint>
#include <exception>
#include <functional>
#include <string_view>

#include "trtllm/status.hpp"

namespace trtllm {

/**
 * Is told how far a build or a load is: the phase and its done fraction from 0 to 1, on the thread that called.
 * Returning false cancels: the call then throws an `Error` with `TRTLLM_STATUS_CANCELLED`. An exception cancels too,
 * and the call throws that one.
 */
using Progress = std::function<bool(std::string_view phase, double fraction)>;

namespace detail {

/** A `Progress` on its way through C, and what it threw. */
struct ProgressCall {
    const Progress &progress;
    std::exception_ptr thrown = nullptr;

    static std::int32_t on_progress(void *user_data, const char *phase, double fraction) noexcept {
        auto *self = static_cast<ProgressCall *>(user_data);
        try {
            return self->progress(phase, fraction) ? 0 : 1;
        } catch (...) {
            self->thrown = std::current_exception();
            return 1;
        }
    }

    /** Runs `call` with a copy of `config` that reports here; rethrows what the function threw. */
    template <typename Config, typename Call>
    void run(Config config, Call call) {
        if (progress) {
            config.progress = &on_progress;
            config.user_data = this;
        }
        const trtllm_status status = call(config);
        if (thrown) std::rethrow_exception(thrown);
        check(status);
    }
};

}  // namespace detail

}  // namespace trtllm

#endif  // TRTLLM_PROGRESS_HPP
