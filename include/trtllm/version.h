/**
 * Versions of the headers and of the library that is loaded. To refuse a library that does not fit, a program asks once:
 *
 *     trtllm_check_version(TRTLLM_VERSION_MAJOR, TRTLLM_VERSION_MINOR)
 *
 * Generated from the sources by cbindgen: change those instead.
 */

#ifndef TRTLLM_VERSION_H
#define TRTLLM_VERSION_H

#include <stddef.h>
#include <stdint.h>

#include "trtllm/status.h"

/** Major version of this header. */
#define TRTLLM_VERSION_MAJOR 0

/** Minor version of this header. */
#define TRTLLM_VERSION_MINOR 1

/** Patch version of this header. */
#define TRTLLM_VERSION_PATCH 0

/** Version of this header as one number: major * 65536 + minor * 256 + patch. */
#define TRTLLM_VERSION_NUMBER 256

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the loaded library as `TRTLLM_VERSION_NUMBER` is composed.
 *
 * Thread safety: safe.
 */
TRTLLM_MUST_USE uint32_t trtllm_version(void);

/**
 * The version of the loaded library as text, e.g. `0.1.0`.
 *
 * Ownership: returns a static string. Thread safety: safe.
 */
TRTLLM_MUST_USE const char *trtllm_version_string(void);

/**
 * Whether a program compiled against headers of version `major.minor` may use the loaded library: the majors are equal
 * and the library's minor is not older. Before version 1.0 the minors must be equal.
 *
 * Thread safety: safe. Fails with `TRTLLM_STATUS_UNSUPPORTED_VERSION`.
 */
TRTLLM_MUST_USE trtllm_status trtllm_check_version(uint32_t major, uint32_t minor);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TRTLLM_VERSION_H */
