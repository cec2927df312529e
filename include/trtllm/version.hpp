/** Whether library and headers fit. Part of trtllm.hpp. */

#ifndef TRTLLM_VERSION_HPP
#define TRTLLM_VERSION_HPP

#include <trtllm/version.h>

#include "trtllm/status.hpp"

namespace trtllm {

/** Throws unless the loaded library fits the headers that this program was compiled with. */
inline void check_version() {
    detail::check(trtllm_check_version(TRTLLM_VERSION_MAJOR, TRTLLM_VERSION_MINOR));
}

}  // namespace trtllm

#endif  // TRTLLM_VERSION_HPP
