/**
 * A response: a piece of a request's output. A request of one sequence ends with exactly one response whose `last` is 1;
 * a request of several sequences marks the end of each by `finish_reason` and its own end by `last`.
 *
 * Generated from the sources by cbindgen: change those instead.
 */

#ifndef TRTLLM_RESPONSE_H
#define TRTLLM_RESPONSE_H

#include <stddef.h>
#include <stdint.h>

#include "trtllm/status.h"

/** Why a sequence ended. */
enum trtllm_finish_reason
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** It goes on. */
    TRTLLM_FINISH_REASON_NONE = 0,
    /** The model ended its text. */
    TRTLLM_FINISH_REASON_EOS = 1,
    /** A stop string or stop sequence. */
    TRTLLM_FINISH_REASON_STOP = 2,
    /** `max_tokens`, or the longest sequence that the engine or executor allows. */
    TRTLLM_FINISH_REASON_LENGTH = 3,
    /** The request was cancelled. */
    TRTLLM_FINISH_REASON_CANCELLED = 4,
    /** The request ran past its time limit. */
    TRTLLM_FINISH_REASON_TIME_LIMIT = 5,
    /** The sequence failed; `status` and `error_message` say why. */
    TRTLLM_FINISH_REASON_ERROR = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum trtllm_finish_reason trtllm_finish_reason;
#else
typedef int32_t trtllm_finish_reason;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** A response (handle). */
typedef struct trtllm_response trtllm_response;

/** A token and the natural logarithm of its probability, before temperature and filters. */
typedef struct {
    uint32_t token;
    float logprob;
} trtllm_token_logprob;

/** What a response holds. Pointers are borrowed from the response and end with it; an empty array is NULL. */
typedef struct {
    /** New text: whole UTF-8 characters, possibly none. Never NULL; a NUL follows the last byte. */
    const char *text;
    /** Bytes of `text`. */
    size_t text_length;
    /** New tokens. */
    const uint32_t *tokens;
    size_t token_count;
    /** One entry for each new token when log-probabilities were asked for, otherwise NULL. */
    const trtllm_token_logprob *logprobs;
    /** `top_logprobs_per_token` entries for each new token, most likely first. */
    const trtllm_token_logprob *top_logprobs;
    size_t top_logprobs_per_token;
    /** Logits of the prompt, a row of vocabulary size per prompt token: once per request, when asked for. */
    const float *context_logits;
    /** Number of floats. */
    size_t context_logits_count;
    /** Logits that the new tokens were sampled from, a row of vocabulary size per new token, when asked for. */
    const float *generation_logits;
    /** Number of floats. */
    size_t generation_logits_count;
    /** What went wrong when `status` is not OK; otherwise empty, never NULL. */
    const char *error_message;
    /** The request, as its submission named it. */
    uint64_t request_id;
    /** Which of the request's `n` sequences, counted from 0. */
    uint32_t sequence;
    /** A `trtllm_finish_reason`; other than NONE in the last response of this sequence. */
    int32_t finish_reason;
    /** A `trtllm_status`; other than OK when the sequence failed. */
    int32_t status;
    /** 1: no further response of this request follows. */
    int32_t last;
} trtllm_response_view;

/** Times and counts of one request; complete in its last response. Times count from the submission, in nanoseconds. */
typedef struct {
    uint64_t prompt_tokens;
    /** Prompt tokens whose cache blocks were reused. */
    uint64_t cached_tokens;
    /** Generated tokens over all sequences. */
    uint64_t generated_tokens;
    /** How often the request had to give up its cache blocks. */
    uint64_t preemptions;
    /** To the first scheduled step. */
    uint64_t queued_ns;
    /** To the first token. */
    uint64_t first_token_ns;
    /** To the end. */
    uint64_t total_ns;
} trtllm_request_stats;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Fills `view` with what the response holds.
 *
 * `view_size`: the size of the caller's `trtllm_response_view`.
 * Ownership: what `view` points to is borrowed until the response is destroyed. Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_response_get(const trtllm_response *response,
                                  size_t view_size,
                                  trtllm_response_view *view);

/**
 * Fills `stats` with the request's times and counts; they are complete in its last response.
 *
 * `stats_size`: the size of the caller's `trtllm_request_stats`.
 * Ownership: borrows `stats`. Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_response_get_stats(const trtllm_response *response,
                                        size_t stats_size,
                                        trtllm_request_stats *stats);

/**
 * The same times and counts as a JSON object; times are in seconds.
 *
 * Ownership: copies into `buffer`, see "Results of unknown size" in trtllm.h. Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_response_stats_json(const trtllm_response *response,
                                         char *buffer,
                                         size_t capacity,
                                         size_t *length);

/**
 * Destroys a response and what its view points to; NULL is fine.
 *
 * Ownership: takes `response`. Thread safety: safe, but no thread may go on using what the view points to.
 */
trtllm_status trtllm_response_destroy(trtllm_response *response);

/**
 * The name of a finish reason without its prefix, e.g. `LENGTH`; `UNKNOWN` for a number that is none.
 *
 * Ownership: returns a static string. Thread safety: safe.
 */
TRTLLM_MUST_USE const char *trtllm_finish_reason_name(int32_t finish_reason);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TRTLLM_RESPONSE_H */
