/** What fails throws. Part of trtllm.hpp. */

#ifndef TRTLLM_STATUS_HPP
#define TRTLLM_STATUS_HPP

#include <trtllm/status.h>

#include <stdexcept>
#include <string>

namespace trtllm {

/** A failure of the library: `what()` is its message, `status()` its code. */
class Error : public std::runtime_error {
   public:
    Error(trtllm_status status, const std::string &message) : std::runtime_error(message), status_(status) {}

    trtllm_status status() const noexcept { return status_; }

   private:
    trtllm_status status_;
};

namespace detail {

/** Throws the calling thread's last error unless `status` is OK. */
inline void check(trtllm_status status) {
    if (status != TRTLLM_STATUS_OK) throw Error(status, trtllm_last_error_message());
}

}  // namespace detail

}  // namespace trtllm

#endif  // TRTLLM_STATUS_HPP
