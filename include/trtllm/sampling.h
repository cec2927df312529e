/**
 * Sampling parameters: how a token is chosen from the logits, and when a generation ends. Start from
 * `TRTLLM_SAMPLING_INIT` (greedy) or from `trtllm_engine_get_sampling` (what the model's authors recommend). Stop strings,
 * stop sequences and logit biases are lists and stand in the request.
 *
 * Generated from the sources by cbindgen: change those instead.
 */

#ifndef TRTLLM_SAMPLING_H
#define TRTLLM_SAMPLING_H

#include <stddef.h>
#include <stdint.h>

#include "trtllm/status.h"

/** Sampling parameters of one request. Impossible values are refused when the request is submitted. */
typedef struct {
    /** Set by `TRTLLM_SAMPLING_INIT`. */
    size_t struct_size;
    /** Key of the random generator: the same seed gives the same tokens whatever else runs. Default 0. */
    uint64_t seed;
    /** 0 always takes the most likely token; otherwise logits are divided by it. 0 to 100. Default 0. */
    float temperature;
    /** Keep the k most likely tokens; 0 keeps all. Default 0. */
    uint32_t top_k;
    /** Keep the smallest set whose probability reaches this; above 0, up to 1, which keeps all. Default 1. */
    float top_p;
    /** Drop tokens less likely than this times the most likely one; 0 to 1. Default 0. */
    float min_p;
    /** Divides positive and multiplies negative logits of tokens in prompt or output; above 0, 1 is off. Default 1. */
    float repetition_penalty;
    /** Subtracted once from the logit of every token already generated. Default 0. */
    float presence_penalty;
    /** Subtracted from the logit of a generated token once per occurrence. Default 0. */
    float frequency_penalty;
    /** No end of text and no stop before this many tokens. Default 0. */
    uint32_t min_tokens;
    /** Most tokens to generate, at least 1. Default 128. */
    uint32_t max_tokens;
    /** Sequences generated from the one prompt, 1 to 128. Default 1. */
    uint32_t n;
    /** Log-probabilities of so many most likely tokens beside the chosen one; 0: of the chosen one alone; -1: none. Default -1. */
    int32_t logprobs;
    /** 1: an end-of-text token does not end the generation. Default 0. */
    int32_t ignore_eos;
} trtllm_sampling;

/** The defaults: `trtllm_sampling sampling = TRTLLM_SAMPLING_INIT;` */
#define TRTLLM_SAMPLING_INIT \
    { \
        sizeof(trtllm_sampling), \
        0 /* seed */, \
        0.0f /* temperature */, \
        0 /* top_k */, \
        1.0f /* top_p */, \
        0.0f /* min_p */, \
        1.0f /* repetition_penalty */, \
        0.0f /* presence_penalty */, \
        0.0f /* frequency_penalty */, \
        0 /* min_tokens */, \
        128 /* max_tokens */, \
        1 /* n */, \
        -1 /* logprobs */, \
        0 /* ignore_eos */ \
    }

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Writes the defaults of `TRTLLM_SAMPLING_INIT` into `sampling`, for languages without macros.
 *
 * `struct_size`: the size of the caller's `trtllm_sampling`.
 * Ownership: borrows `sampling`. Thread safety: safe.
 */
TRTLLM_MUST_USE trtllm_status trtllm_sampling_init(size_t struct_size, trtllm_sampling *sampling);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TRTLLM_SAMPLING_H */
