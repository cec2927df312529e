/**
 * An executor: serves many requests on one engine at once. Submit, then await the responses (or give the request a callback).
 *
 * Generated from the sources by cbindgen: change those instead.
 */

#ifndef TRTLLM_EXECUTOR_H
#define TRTLLM_EXECUTOR_H

#include <stddef.h>
#include <stdint.h>

#include "trtllm/status.h"
#include "trtllm/sampling.h"
#include "trtllm/engine.h"
#include "trtllm/request.h"
#include "trtllm/response.h"

/** Stands for any request in `trtllm_executor_await`. */
#define TRTLLM_ANY_REQUEST 0

/** A timeout that never ends. */
#define TRTLLM_WAIT_FOREVER -1

/** An executor (handle). */
typedef struct trtllm_executor trtllm_executor;

/** Limits and resources of an executor. Start from `TRTLLM_EXECUTOR_CONFIG_INIT`. */
typedef struct {
    /** Set by `TRTLLM_EXECUTOR_CONFIG_INIT`. */
    size_t struct_size;
    /**
     * Hard limit in bytes on weights (mapped or not), workspace and cache together, on a GPU with kernels, graphs and
     * page-locked memory; 0: none, which is the default.
     */
    uint64_t memory_budget;
    /**
     * Tokens that the KV cache holds; 0: what the budget leaves, or room for `max_batch_size` sequences without a budget.
     * Default 0.
     */
    uint64_t kv_tokens;
    /** Instruction set: `portable`, `avx2`, `avx512` or `avx512bf16`; NULL: the best of this machine, which is the default. */
    const char *isa;
    /** Sequences that run at once. Default 16. */
    uint32_t max_batch_size;
    /** Tokens in one step, of all sequences together. Default 512. */
    uint32_t max_batch_tokens;
    /** Most tokens of a request, prompt and output together; 0: the engine's, which is the default. */
    uint32_t max_sequence_tokens;
    /**
     * Requests beside `max_batch_size` of them; one more is refused with `TRTLLM_STATUS_QUEUE_FULL`. A request counts until
     * its last response was taken or delivered. Default 1024.
     */
    uint32_t max_queue;
    /** Responses kept for a request before their texts are joined for a slow consumer. Default 64. */
    uint32_t max_pending_responses;
    /** CPU threads; 0: one for each available core, which is the default. */
    uint32_t threads;
    /** 1: cached blocks of equal prefixes are used again. Default 1. */
    int32_t prefix_reuse;
    /** Index of the GPU that runs a CUDA engine. Default 0. */
    uint32_t device;
    /**
     * 1: machine code that came with a CUDA engine does not run. All kernels are compiled here, from the library's own
     * sources, which needs NVRTC (or what it compiled before, in the user's cache). Default 0.
     */
    int32_t refuse_stored_kernels;
    /** 0. */
    uint32_t reserved;
} trtllm_executor_config;

/** Counts of an executor since its creation, and its state as of its last step. */
typedef struct {
    /** Steps that computed something. */
    uint64_t iterations;
    /** Requests that ended by end of text, stop or length. */
    uint64_t completed;
    uint64_t cancelled;
    /** Requests that ran past their time limit. */
    uint64_t expired;
    uint64_t failed;
    /** How often a sequence had to give up its cache blocks. */
    uint64_t preemptions;
    uint64_t generated_tokens;
    /** Requests whose last response was not yet taken or delivered. */
    uint64_t requests;
    /** Prompt tokens that were looked up in the prefix cache. */
    uint64_t prefix_lookup_tokens;
    /** Of these: found. */
    uint64_t prefix_hit_tokens;
    /** Sequences with cache blocks. */
    uint64_t running;
    /** Sequences without. */
    uint64_t waiting;
    /** Tokens of the last step. */
    uint64_t batch_tokens;
    /** Cache blocks that running sequences need; shared ones count once. */
    uint64_t kv_blocks_used;
    /** Cache blocks kept for a prefix hit, given up when room is needed. */
    uint64_t kv_blocks_cached;
    uint64_t kv_blocks_free;
    /** Nanoseconds of the last step. */
    uint64_t last_step_ns;
    /** Nanoseconds spent in steps. */
    uint64_t busy_ns;
    /** Bytes of weights (mapped or not), workspace and cache; on a GPU with kernels, graphs and page-locked memory. */
    uint64_t memory_bytes;
    /** Nanoseconds of the last step on its device, from its first work to its last; on a CPU: of the computation. */
    uint64_t last_step_device_ns;
    /** The same of all steps. What `busy_ns` has beyond it is time of the host that the device did not hide. */
    uint64_t device_busy_ns;
    /** Nanoseconds that the device waited for its next step while there were requests. */
    uint64_t device_idle_ns;
} trtllm_executor_stats;

/** The defaults: `trtllm_executor_config config = TRTLLM_EXECUTOR_CONFIG_INIT;` */
#define TRTLLM_EXECUTOR_CONFIG_INIT \
    { \
        sizeof(trtllm_executor_config), \
        0 /* memory_budget */, \
        0 /* kv_tokens */, \
        NULL /* isa */, \
        16 /* max_batch_size */, \
        512 /* max_batch_tokens */, \
        0 /* max_sequence_tokens */, \
        1024 /* max_queue */, \
        64 /* max_pending_responses */, \
        0 /* threads */, \
        1 /* prefix_reuse */, \
        0 /* device */, \
        0 /* refuse_stored_kernels */, \
        0 /* reserved */ \
    }

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Writes the defaults of `TRTLLM_EXECUTOR_CONFIG_INIT` into `config`, for languages without macros.
 *
 * `struct_size`: the size of the caller's `trtllm_executor_config`.
 * Ownership: borrows `config`. Thread safety: safe.
 */
TRTLLM_MUST_USE trtllm_status trtllm_executor_config_init(size_t struct_size, trtllm_executor_config *config);

/**
 * Creates an executor and starts its threads; NULL for `config` means the defaults.
 *
 * All memory is reserved here: a budget that does not suffice fails with `TRTLLM_STATUS_BUDGET_EXCEEDED`, and the message
 * has the figure that would; too little device memory with `TRTLLM_STATUS_OUT_OF_MEMORY`, and the message has needed and
 * free bytes. Ownership: borrows its arguments; returns an owned handle, which keeps the engine alive.
 * Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_executor_create(const trtllm_engine *engine,
                                     const trtllm_executor_config *config,
                                     trtllm_executor **executor);

/**
 * Shuts an executor down and destroys it; NULL is fine. Unfinished requests end as in `trtllm_executor_shutdown`; responses
 * that nobody has taken are lost.
 *
 * Waits for running callbacks: inside one it fails with `TRTLLM_STATUS_WOULD_DEADLOCK`, and the handle stays valid.
 * Ownership: takes `executor`. Thread safety: safe; calls that wait in other threads end.
 */
trtllm_status trtllm_executor_destroy(trtllm_executor *executor);

/**
 * Accepts no more requests, cancels what waits or runs, delivers the final responses and stops the threads. Responses can
 * still be awaited afterwards. A second call does nothing.
 *
 * Waits for running callbacks: inside one it fails with `TRTLLM_STATUS_WOULD_DEADLOCK`. Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_executor_shutdown(trtllm_executor *executor);

/**
 * Submits a request. `request_id` names it in every response; it is never 0 and never used again.
 *
 * A request that can never be served is refused here: with impossible sampling parameters, tokens outside the vocabulary
 * (`TRTLLM_STATUS_INVALID_ARGUMENT`), or too many of them (`TRTLLM_STATUS_REQUEST_TOO_LARGE`). An accepted one ends
 * in exactly one response with `last` 1, also when it is cancelled or fails. With a callback the first response may come
 * before this call returns. Ownership: copies `request`. Thread safety: safe, also inside a callback.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_executor_submit(trtllm_executor *executor,
                                     const trtllm_request *request,
                                     uint64_t *request_id);

/**
 * Submits a prompt without a request object: a streaming request for `text`, which ends with a NUL (at most 16 MiB).
 * NULL for `sampling` means the engine's defaults.
 *
 * As `trtllm_executor_submit`. Ownership: copies its arguments. Thread safety: safe, also inside a callback.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_executor_submit_text(trtllm_executor *executor,
                                          const char *text,
                                          const trtllm_sampling *sampling,
                                          uint64_t *request_id);

/**
 * Asks to end a request early. Its final response says whether it was cancelled or had ended before; a request that has
 * ended is no error.
 *
 * Fails with `TRTLLM_STATUS_NOT_FOUND` for an id that this executor never gave. Thread safety: safe, also inside a callback.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_executor_cancel(trtllm_executor *executor,
                                     uint64_t request_id);

/**
 * Waits for the next response of a request, or of any with `TRTLLM_ANY_REQUEST`.
 *
 * `timeout_ms`: most milliseconds to wait; 0 only looks, `TRTLLM_WAIT_FOREVER` waits until there is one.
 * Fails with `TRTLLM_STATUS_TIMEOUT` when none came, `TRTLLM_STATUS_NOT_FOUND` when the request has ended and all its
 * responses were taken or it never existed, `TRTLLM_STATUS_INVALID_ARGUMENT` when it has a callback, and for any request
 * `TRTLLM_STATUS_SHUTTING_DOWN` when the executor was shut down and nothing is left. Ownership: returns an owned handle; destroy it with `trtllm_response_destroy`.
 * Thread safety: safe; several threads may wait, each response goes to one of them.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_executor_await(trtllm_executor *executor,
                                    uint64_t request_id,
                                    int64_t timeout_ms,
                                    trtllm_response **response);

/**
 * Waits as `trtllm_executor_await`, then takes all responses that are there, up to `capacity` (at least 1), in one call.
 *
 * Ownership: writes `count` owned handles into `responses`; destroy each with `trtllm_response_destroy`.
 * Thread safety: safe; several threads may wait, each response goes to one of them.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_executor_await_many(trtllm_executor *executor,
                                         uint64_t request_id,
                                         int64_t timeout_ms,
                                         size_t capacity,
                                         trtllm_response **responses,
                                         size_t *count);

/**
 * OK while the executor serves; otherwise the status and message of what stopped it.
 *
 * Thread safety: safe, also inside a callback.
 */
TRTLLM_MUST_USE trtllm_status trtllm_executor_check_health(const trtllm_executor *executor);

/**
 * Fills `stats` with the executor's counts.
 *
 * `stats_size`: the size of the caller's `trtllm_executor_stats`.
 * Ownership: borrows `stats`. Thread safety: safe, also inside a callback.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_executor_get_stats(const trtllm_executor *executor,
                                        size_t stats_size,
                                        trtllm_executor_stats *stats);

/**
 * The same counts as a JSON object; times are in seconds.
 *
 * Ownership: copies into `buffer`, see "Results of unknown size" in trtllm.h. The counts may grow between a size query
 * and the next call: give some room. Thread safety: safe, also inside a callback.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_executor_stats_json(const trtllm_executor *executor,
                                         char *buffer,
                                         size_t capacity,
                                         size_t *length);

/**
 * The latest steps, 1024 at most and oldest first, as a JSON array: rows, tokens, cache blocks and duration of each.
 *
 * Ownership: copies into `buffer`, see "Results of unknown size" in trtllm.h. The array may grow between a size query and
 * the next call: give some room. Thread safety: safe, also inside a callback.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_executor_iterations_json(const trtllm_executor *executor,
                                              char *buffer,
                                              size_t capacity,
                                              size_t *length);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TRTLLM_EXECUTOR_H */
