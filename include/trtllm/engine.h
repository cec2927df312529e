/**
 * An engine: a model compiled for this machine, one file with everything that a deployment needs. `trtllm_build` writes it.
 *
 * Generated from the sources by cbindgen: change those instead.
 */

#ifndef TRTLLM_ENGINE_H
#define TRTLLM_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#include "trtllm/status.h"
#include "trtllm/sampling.h"

/** How weights come into memory. */
enum trtllm_load_mode
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** The file is mapped: fast, shared between processes; the file must not be changed while it is in use. */
    TRTLLM_LOAD_MODE_MAP = 0,
    /** The file is read into memory and may then be changed or removed. */
    TRTLLM_LOAD_MODE_READ = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum trtllm_load_mode trtllm_load_mode;
#else
typedef int32_t trtllm_load_mode;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** How an engine stores its numbers: those of its linear layers, of its KV cache, or of its last layer. */
enum trtllm_precision
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** As the library chooses (only when building). */
    TRTLLM_PRECISION_AUTO = 0,
    /** 32-bit floating point. */
    TRTLLM_PRECISION_F32 = 1,
    /** bfloat16. */
    TRTLLM_PRECISION_BF16 = 2,
    /** 16-bit floating point of IEEE 754. */
    TRTLLM_PRECISION_F16 = 3,
    /** 8-bit floating point (e4m3) with scales. */
    TRTLLM_PRECISION_FP8 = 4,
    /** 8-bit integers with a scale for each row of a weight; activations stay as they are. For the CPU. */
    TRTLLM_PRECISION_INT8 = 5,
    /**
     * Weights as of INT8, and the input of every linear layer rounded to 8 bits with a scale for each token: the products are
     * of integers, which is faster with many tokens. For the CPU.
     */
    TRTLLM_PRECISION_INT8_W8A8 = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum trtllm_precision trtllm_precision;
#else
typedef int32_t trtllm_precision;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** The device class of an engine. */
enum trtllm_target
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** The host's processor. */
    TRTLLM_TARGET_CPU = 1,
    /** An NVIDIA GPU. */
    TRTLLM_TARGET_CUDA = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum trtllm_target trtllm_target;
#else
typedef int32_t trtllm_target;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** A loaded engine (handle). */
typedef struct trtllm_engine trtllm_engine;

/**
 * Is told how far a build or a load is: the name of the phase, and its done fraction from 0 to 1. Returning anything but 0
 * cancels: the call then fails with `TRTLLM_STATUS_CANCELLED` and leaves nothing behind.
 *
 * Called on the thread that made the call. `phase` is borrowed and ends with the callback, which must not unwind.
 */
typedef int32_t (*trtllm_progress_callback)(void *user_data, const char *phase, double fraction);

/** How an engine is loaded. Start from `TRTLLM_ENGINE_CONFIG_INIT`. */
typedef struct {
    /** Set by `TRTLLM_ENGINE_CONFIG_INIT`. */
    size_t struct_size;
    /** May be NULL, which is the default. */
    trtllm_progress_callback progress;
    /** Passed to `progress`. Default NULL. */
    void *user_data;
    /** A `trtllm_load_mode`. Default MAP. */
    int32_t load_mode;
    /**
     * 1: every weight is read and held against its checksum before the call returns; 0: weights are trusted, and a mapped
     * engine loads in no time. Everything else in the file is always checked. Default 1.
     */
    int32_t verify_weights;
} trtllm_engine_config;

/** What is to know about a loaded engine. Pointers are borrowed from the engine and end when its handle is destroyed. */
typedef struct {
    /** The checkpoint's architecture, e.g. `LlamaForCausalLM`. */
    const char *architecture;
    /** Tokens that end a generation. */
    const uint32_t *eos_tokens;
    size_t eos_token_count;
    /** Bytes of all weights. */
    uint64_t weight_bytes;
    /** Bytes of KV cache that one token needs. */
    uint64_t kv_bytes_per_token;
    /** The token that begins a text; -1 when there is none. */
    int64_t bos_token;
    uint32_t vocab_size;
    uint32_t hidden_size;
    uint32_t layers;
    /** Most tokens of a request, prompt and output together. */
    uint32_t max_positions;
    /** A `trtllm_precision`. */
    int32_t precision;
    /** A `trtllm_target`. */
    int32_t target;
    /** A `trtllm_precision` of the KV cache; AUTO when there is none. */
    int32_t kv_precision;
    /** A `trtllm_precision` of the last linear layer; AUTO when there is none. */
    int32_t head_precision;
} trtllm_engine_info;

/** The defaults: `trtllm_engine_config config = TRTLLM_ENGINE_CONFIG_INIT;` */
#define TRTLLM_ENGINE_CONFIG_INIT \
    { \
        sizeof(trtllm_engine_config), \
        NULL /* progress */, \
        NULL /* user_data */, \
        TRTLLM_LOAD_MODE_MAP, \
        1 /* verify_weights */ \
    }

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Writes the defaults of `TRTLLM_ENGINE_CONFIG_INIT` into `config`, for languages without macros.
 *
 * `struct_size`: the size of the caller's `trtllm_engine_config`.
 * Ownership: borrows `config`. Thread safety: safe.
 */
TRTLLM_MUST_USE trtllm_status trtllm_engine_config_init(size_t struct_size, trtllm_engine_config *config);

/**
 * Loads the engine file `path`; NULL for `config` means the defaults.
 *
 * Ownership: borrows its arguments; returns an owned handle. Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_engine_load(const char *path,
                                 const trtllm_engine_config *config,
                                 trtllm_engine **engine);

/**
 * Destroys an engine; NULL is fine. What was made from it keeps its weights until it is destroyed too.
 *
 * Ownership: takes `engine`. Thread safety: safe, but no thread may go on using what its info points to.
 */
trtllm_status trtllm_engine_destroy(trtllm_engine *engine);

/**
 * Fills `info` with what is to know about the engine.
 *
 * `info_size`: the size of the caller's `trtllm_engine_info`.
 * Ownership: what `info` points to is borrowed until the engine is destroyed. Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_engine_get_info(const trtllm_engine *engine,
                                     size_t info_size,
                                     trtllm_engine_info *info);

/**
 * Fills `sampling` with the generation defaults of the checkpoint (`generation_config.json`), to be changed and used.
 *
 * `sampling_size`: the size of the caller's `trtllm_sampling`, which is also what its `struct_size` becomes.
 * Ownership: borrows `sampling`. Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_engine_get_sampling(const trtllm_engine *engine,
                                         size_t sampling_size,
                                         trtllm_sampling *sampling);

/**
 * Describes a loaded engine as JSON: the model, every plan step with what was fused into it, its memory and precision, the
 * sections of the file, and how the engine was built: passes, kernels, tactics with their times.
 *
 * Ownership: copies into `buffer`, see "Results of unknown size" in trtllm.h. Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_engine_inspect(const trtllm_engine *engine,
                                    char *buffer,
                                    size_t capacity,
                                    size_t *length);

/**
 * Describes an engine file as `trtllm_engine_inspect`, without loading its weights.
 *
 * Ownership: borrows `path`; copies into `buffer`, see "Results of unknown size" in trtllm.h. Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_engine_inspect_file(const char *path,
                                         char *buffer,
                                         size_t capacity,
                                         size_t *length);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TRTLLM_ENGINE_H */
