/**
 * Building an engine from a Hugging Face checkpoint: `config.json`, safetensors, tokenizer, chat template, generation config.
 *
 * Generated from the sources by cbindgen: change those instead.
 */

#ifndef TRTLLM_BUILDER_H
#define TRTLLM_BUILDER_H

#include <stddef.h>
#include <stdint.h>

#include "trtllm/status.h"
#include "trtllm/engine.h"

/** How an engine is built. Start from `TRTLLM_BUILD_CONFIG_INIT`. */
typedef struct {
    /** Set by `TRTLLM_BUILD_CONFIG_INIT`. */
    size_t struct_size;
    /** Names of compiler passes to leave out, for tests and comparisons. Default NULL. */
    const char *const *disabled_passes;
    size_t disabled_pass_count;
    /** May be NULL, which is the default. */
    trtllm_progress_callback progress;
    /** Passed to `progress`. Default NULL. */
    void *user_data;
    /** Key of the generator for `dummy_weights`. Default 0. */
    uint64_t seed;
    /** Most tokens of a request, prompt and output together; 0: as the checkpoint says, which is the default. */
    uint32_t max_positions;
    /** A `trtllm_precision`. AUTO keeps what the checkpoint stores, as far as the target has it. Default AUTO. */
    int32_t precision;
    /**
     * 1: the checkpoint is the path of a lone `config.json`, and weights are random (normal, deviation 0.02): for
     * measuring shapes. Default 0.
     */
    int32_t dummy_weights;
    /** A `trtllm_target`; 0 counts as CPU, which is the default. */
    int32_t target;
    /**
     * A `trtllm_precision` for the KV cache: FP8, or that of the engine's 16-bit values (of F32 engines: F32), which AUTO
     * stands for. Default AUTO.
     */
    int32_t kv_precision;
    /**
     * A `trtllm_precision` for the last linear layer of FP8, INT8 and INT8_W8A8 engines: their own, or BF16, which AUTO
     * stands for. Of other engines: their own. Default AUTO.
     */
    int32_t head_precision;
    /**
     * Compute capabilities whose kernels a CUDA engine holds, e.g. `80;86;90a`; NULL: that of the first GPU here, or `90a`
     * where there is none. Default NULL.
     */
    const char *archs;
    /**
     * 1: on a GPU too, the bits of a request's tokens and logits depend on nothing but itself (a CPU always keeps that), at
     * some cost in speed. Default 0.
     */
    int32_t invariant;
    /**
     * 1: kernels are chosen by rule, 0: by measurement where the first GPU here is one of those that the engine is for. A
     * measuring build takes some tens of seconds longer the first time; timings are kept in the folder that the variable
     * TRTLLM_CACHE names, else in ~/.cache/trtllm. Default 0.
     */
    int32_t default_tactics;
} trtllm_build_config;

/** The defaults: `trtllm_build_config config = TRTLLM_BUILD_CONFIG_INIT;` */
#define TRTLLM_BUILD_CONFIG_INIT \
    { \
        sizeof(trtllm_build_config), \
        NULL /* disabled_passes */, \
        0 /* disabled_pass_count */, \
        NULL /* progress */, \
        NULL /* user_data */, \
        0 /* seed */, \
        0 /* max_positions */, \
        TRTLLM_PRECISION_AUTO, \
        0 /* dummy_weights */, \
        TRTLLM_TARGET_CPU, \
        TRTLLM_PRECISION_AUTO /* kv_precision */, \
        TRTLLM_PRECISION_AUTO /* head_precision */, \
        NULL /* archs */, \
        0 /* invariant */, \
        0 /* default_tactics */ \
    }

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Writes the defaults of `TRTLLM_BUILD_CONFIG_INIT` into `config`, for languages without macros.
 *
 * `struct_size`: the size of the caller's `trtllm_build_config`.
 * Ownership: borrows `config`. Thread safety: safe.
 */
TRTLLM_MUST_USE trtllm_status trtllm_build_config_init(size_t struct_size, trtllm_build_config *config);

/**
 * Builds the engine file `engine_path` from the folder `checkpoint_path`.
 *
 * The file appears, or replaces an older one, only when it is complete; a failed, cancelled or killed build leaves what was
 * there. `config` may be NULL for the defaults. Blocks until the engine is built; `config->progress` is told how far it is.
 * Ownership: borrows its arguments. Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_build(const char *checkpoint_path,
                           const char *engine_path,
                           const trtllm_build_config *config);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TRTLLM_BUILDER_H */
