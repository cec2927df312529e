/**
 * The network of a checkpoint: the graph that the compiler starts from, and what its passes make of it, to look at.
 *
 * Generated from the sources by cbindgen: change those instead.
 */

#ifndef TRTLLM_NETWORK_H
#define TRTLLM_NETWORK_H

#include <stddef.h>
#include <stdint.h>

#include "trtllm/status.h"

/** A network (handle). */
typedef struct trtllm_network trtllm_network;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Creates the network of a checkpoint: a folder, or the path of its `config.json`. Weights are not read.
 *
 * Ownership: borrows `checkpoint_path`; returns an owned handle. Thread safety: safe.
 */
TRTLLM_MUST_USE trtllm_status trtllm_network_from_checkpoint(const char *checkpoint_path, trtllm_network **network);

/**
 * Destroys a network; NULL is fine.
 *
 * Ownership: takes `network`. Thread safety: safe.
 */
trtllm_status trtllm_network_destroy(trtllm_network *network);

/**
 * Runs the compiler's passes on the network, except those named in `disabled_passes`.
 *
 * `disabled_passes` may be NULL when `disabled_pass_count` is 0. A failure leaves the network as it was.
 * Ownership: borrows its arguments. Thread safety: safe; calls on one network exclude each other.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_network_run_passes(trtllm_network *network,
                                        const char *const *disabled_passes,
                                        size_t disabled_pass_count);

/**
 * The network as text, one node a line.
 *
 * Ownership: copies the text and a NUL into `buffer`, see "Results of unknown size" in trtllm.h. Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_network_text(const trtllm_network *network,
                                  char *buffer,
                                  size_t capacity,
                                  size_t *length);

/**
 * The network in the DOT language of Graphviz.
 *
 * Ownership: copies the text and a NUL into `buffer`, see "Results of unknown size" in trtllm.h. Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_network_dot(const trtllm_network *network,
                                 char *buffer,
                                 size_t capacity,
                                 size_t *length);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TRTLLM_NETWORK_H */
