/* The calls that take a callback. Go has no C functions to pass and may not keep a number in a pointer, so these take
 * the number of a cgo.Handle and put functions of their own in front of Go's. */
#ifndef TRTLLM_GO_BRIDGE_H
#define TRTLLM_GO_BRIDGE_H

#include <trtllm.h>

/* trtllm_build with a progress callback, unless `progress` is 0. */
trtllm_status bridge_build(const char *checkpoint_path, const char *engine_path, const trtllm_build_config *config,
                           uintptr_t progress);

/* trtllm_engine_load with a progress callback, unless `progress` is 0. */
trtllm_status bridge_engine_load(const char *path, const trtllm_engine_config *config, uintptr_t progress,
                                 trtllm_engine **engine);

/* trtllm_request_set_callback. */
trtllm_status bridge_set_callback(trtllm_request *request, uintptr_t listener);

#endif
