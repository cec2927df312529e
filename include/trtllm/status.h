/**
 * Status codes and the last error of a thread.
 *
 * Generated from the sources by cbindgen: change those instead.
 */

#ifndef TRTLLM_STATUS_H
#define TRTLLM_STATUS_H

#include <stddef.h>
#include <stdint.h>

/** Marks a function whose result must be looked at. */
#if defined(__cplusplus) || (defined(__STDC_VERSION__) && __STDC_VERSION__ > 201710L)
#define TRTLLM_MUST_USE [[nodiscard]]
#elif defined(__GNUC__)
#define TRTLLM_MUST_USE __attribute__((warn_unused_result))
#else
#define TRTLLM_MUST_USE
#endif

/**
 * What came of a call or of a request. Codes are grouped in blocks and never change or get reused; a later version may
 * add codes, so treat one that you do not know as a failure.
 */
enum trtllm_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** Success. */
    TRTLLM_STATUS_OK = 0,
    /** An argument is NULL, out of range, not UTF-8 or contradicts another one. */
    TRTLLM_STATUS_INVALID_ARGUMENT = 100,
    /** A handle was destroyed, is of another type, or never existed. */
    TRTLLM_STATUS_INVALID_HANDLE = 101,
    /** The object is not in a state that allows this call. */
    TRTLLM_STATUS_INVALID_STATE = 102,
    /** The call would wait for the thread that makes it. */
    TRTLLM_STATUS_WOULD_DEADLOCK = 103,
    /** The caller's buffer is too small. */
    TRTLLM_STATUS_BUFFER_TOO_SMALL = 104,
    /** Nothing arrived within the caller's timeout. */
    TRTLLM_STATUS_TIMEOUT = 105,
    /** The operating system refused a file operation. */
    TRTLLM_STATUS_IO = 200,
    /** A file or entry does not exist. */
    TRTLLM_STATUS_NOT_FOUND = 201,
    /** A file's content contradicts itself or its checksum. */
    TRTLLM_STATUS_CORRUPT = 202,
    /** A file or a header was made by an incompatible version. */
    TRTLLM_STATUS_UNSUPPORTED_VERSION = 203,
    /** A file is of a kind that is not read, e.g. GGUF or a pickle. */
    TRTLLM_STATUS_UNSUPPORTED_FORMAT = 204,
    /** `config.json` or `generation_config.json` holds an impossible value. */
    TRTLLM_STATUS_INVALID_CONFIG = 205,
    /** A tensor is missing, misshapen, overlapping or of a wrong dtype. */
    TRTLLM_STATUS_INVALID_CHECKPOINT = 206,
    /** The tokenizer cannot be loaded or refuses an input. */
    TRTLLM_STATUS_INVALID_TOKENIZER = 207,
    /** The chat template does not parse, fails, or exceeds its limits. */
    TRTLLM_STATUS_INVALID_TEMPLATE = 208,
    /** The graph is not well formed. */
    TRTLLM_STATUS_INVALID_NETWORK = 300,
    /** A model family, operation, precision or option that this library does not have. */
    TRTLLM_STATUS_UNSUPPORTED = 301,
    /** An allocation failed. */
    TRTLLM_STATUS_OUT_OF_MEMORY = 400,
    /** The caller's memory budget does not suffice; the message has the needed figure. */
    TRTLLM_STATUS_BUDGET_EXCEEDED = 401,
    /** The request queue is full. */
    TRTLLM_STATUS_QUEUE_FULL = 402,
    /** A request can never fit this engine or executor. */
    TRTLLM_STATUS_REQUEST_TOO_LARGE = 403,
    /** The device, driver or library is not there. */
    TRTLLM_STATUS_DEVICE_UNAVAILABLE = 404,
    /** A thread could not be started. */
    TRTLLM_STATUS_THREAD_FAILED = 405,
    /** The device failed while it was computing: everything that ran on it has ended with this status, and it takes no more. */
    TRTLLM_STATUS_DEVICE_LOST = 406,
    /** The caller cancelled the operation or request. */
    TRTLLM_STATUS_CANCELLED = 500,
    /** A request ran past its time limit. */
    TRTLLM_STATUS_TIME_LIMIT = 501,
    /** A request's logits contained NaN or no finite value. */
    TRTLLM_STATUS_NUMERIC = 502,
    /** The executor is shutting down. */
    TRTLLM_STATUS_SHUTTING_DOWN = 503,
    /** A bug in the library; the object concerned is unusable. */
    TRTLLM_STATUS_INTERNAL = 600,
    /** A panic was caught at the boundary: a bug in the library. */
    TRTLLM_STATUS_PANIC = 601,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum trtllm_status trtllm_status;
#else
typedef int32_t trtllm_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The name of a status code without its prefix, e.g. `INVALID_ARGUMENT`; `UNKNOWN` for a number that is no code.
 *
 * Ownership: returns a static string. Thread safety: safe.
 */
TRTLLM_MUST_USE const char *trtllm_status_name(int32_t status);

/**
 * What went wrong in the calling thread's last failed call: the culprit and the reason, in English, never NULL.
 * Empty when no call of this thread has failed yet; a call that succeeds leaves it as it is.
 *
 * Ownership: borrowed from the library until this thread's next call. Thread safety: safe; a caller whose language moves
 * work between threads (Go) must stay on one thread from the failed call to this one.
 */
TRTLLM_MUST_USE
const char *trtllm_last_error_message(void);

/**
 * The status of the calling thread's last failed call; `TRTLLM_STATUS_OK` when none has failed yet.
 *
 * Thread safety: safe, per thread as `trtllm_last_error_message`.
 */
TRTLLM_MUST_USE trtllm_status trtllm_last_error_status(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TRTLLM_STATUS_H */
