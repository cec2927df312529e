/**
 * A generation request: the prompt, how to sample, what to return and how. A request is a plain description: it belongs to
 * no executor, may be changed and submitted again, and may be destroyed as soon as it is submitted.
 *
 * Generated from the sources by cbindgen: change those instead.
 */

#ifndef TRTLLM_REQUEST_H
#define TRTLLM_REQUEST_H

#include <stddef.h>
#include <stdint.h>

#include "trtllm/status.h"
#include "trtllm/sampling.h"
#include "trtllm/response.h"

/** A request (handle). */
typedef struct trtllm_request trtllm_request;

/**
 * Receives the responses of a request on one of the library's threads, in order, one at a time per executor.
 *
 * `response` is borrowed: it is destroyed when the callback returns. The callback may submit and cancel requests; it must
 * not unwind, and destroying or shutting down an executor inside it fails with `TRTLLM_STATUS_WOULD_DEADLOCK`. A slow
 * callback delays other responses, never the generation.
 */
typedef void (*trtllm_response_callback)(void *user_data, const trtllm_response *response);

/** Frees user data. Called exactly once, possibly on one of the library's threads; must not unwind. */
typedef void (*trtllm_user_data_free)(void *user_data);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Creates a request: no prompt yet, the engine's sampling defaults, streaming, delivered by `trtllm_executor_await`.
 *
 * Ownership: returns an owned handle; destroy it with `trtllm_request_destroy`. Thread safety: safe.
 */
TRTLLM_MUST_USE trtllm_status trtllm_request_create(trtllm_request **request);

/**
 * Destroys a request; NULL is fine. What was submitted from it goes on.
 *
 * Ownership: takes `request`. Thread safety: safe.
 */
trtllm_status trtllm_request_destroy(trtllm_request *request);

/**
 * Makes `length` bytes of UTF-8 text the prompt. Special tokens (such as a leading BOS) are added as the tokenizer says.
 *
 * At most 16 MiB. Replaces an earlier prompt. Ownership: copies `text`. Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_request_set_text(trtllm_request *request,
                                      const char *text,
                                      size_t length);

/**
 * Makes `count` token ids the prompt, exactly as the model shall see them.
 *
 * At most 16777216. Replaces an earlier prompt. Ownership: copies `tokens`. Thread safety: safe.
 */
TRTLLM_MUST_USE trtllm_status trtllm_request_set_tokens(trtllm_request *request, const uint32_t *tokens, size_t count);

/**
 * Makes a conversation the prompt: a JSON array of `{"role": ..., "content": ...}`, rendered by the engine's chat template
 * up to where the assistant's answer begins.
 *
 * At most 16 MiB. Replaces an earlier prompt. Ownership: copies `messages`. Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_request_set_chat(trtllm_request *request,
                                      const char *messages,
                                      size_t length);

/**
 * Sets the sampling parameters; NULL: back to the engine's defaults.
 *
 * Ownership: copies `sampling`. Thread safety: safe.
 */
TRTLLM_MUST_USE trtllm_status trtllm_request_set_sampling(trtllm_request *request, const trtllm_sampling *sampling);

/**
 * Adds a text that ends the generation; it is not delivered itself. Not empty.
 *
 * Ownership: copies `text`. Thread safety: safe.
 */
TRTLLM_MUST_USE trtllm_status trtllm_request_add_stop_string(trtllm_request *request, const char *text, size_t length);

/**
 * Adds a sequence of tokens that ends the generation; it is delivered as tokens, not as text. Not empty.
 *
 * Ownership: copies `tokens`. Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_request_add_stop_tokens(trtllm_request *request,
                                             const uint32_t *tokens,
                                             size_t count);

/**
 * Adds `bias` to the logit of `token`; minus infinity bans the token.
 *
 * Thread safety: safe.
 */
TRTLLM_MUST_USE trtllm_status trtllm_request_add_logit_bias(trtllm_request *request, uint32_t token, float bias);

/**
 * 1: responses come as tokens come (the default); 0: one response per sequence, at its end.
 *
 * Thread safety: safe.
 */
TRTLLM_MUST_USE trtllm_status trtllm_request_set_stream(trtllm_request *request, int32_t stream);

/**
 * Ends the request when it is not finished this many milliseconds after its submission; 0: no limit (the default).
 *
 * Thread safety: safe.
 */
TRTLLM_MUST_USE trtllm_status trtllm_request_set_time_limit(trtllm_request *request, uint64_t milliseconds);

/**
 * Cached prefixes are shared only between requests of equal salt (for instance one per tenant); empty is the default.
 *
 * At most 256 bytes. Ownership: copies `salt`. Thread safety: safe.
 */
TRTLLM_MUST_USE trtllm_status trtllm_request_set_salt(trtllm_request *request, const uint8_t *salt, size_t length);

/**
 * Asks for raw logits: `context` 1 for those of every prompt position, `generation` 1 for those that each generated token
 * was sampled from. Both are 0 by default; they are large.
 *
 * Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_request_set_return_logits(trtllm_request *request,
                                               int32_t context,
                                               int32_t generation);

/**
 * Delivers the responses to `callback` instead of `trtllm_executor_await`; NULL: back to await.
 *
 * `user_data` is passed to the callback as it is. `user_data_free` may be NULL; otherwise it is called exactly once, when
 * this call succeeded and then the callback was replaced or the request destroyed, and every submission made with it has
 * ended. Ownership: takes `user_data` when it succeeds. Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_request_set_callback(trtllm_request *request,
                                          trtllm_response_callback callback,
                                          void *user_data,
                                          trtllm_user_data_free user_data_free);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TRTLLM_REQUEST_H */
