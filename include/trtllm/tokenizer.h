/**
 * The tokenizer and the chat template of an engine.
 *
 * Generated from the sources by cbindgen: change those instead.
 */

#ifndef TRTLLM_TOKENIZER_H
#define TRTLLM_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "trtllm/status.h"
#include "trtllm/engine.h"

/** A tokenizer (handle). */
typedef struct trtllm_tokenizer trtllm_tokenizer;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Gives access to the tokenizer of an engine.
 *
 * Fails with `TRTLLM_STATUS_NOT_FOUND` when the engine was built without one.
 * Ownership: returns an owned handle, which keeps the engine alive. Thread safety: safe.
 */
TRTLLM_MUST_USE trtllm_status trtllm_tokenizer_create(const trtllm_engine *engine, trtllm_tokenizer **tokenizer);

/**
 * Destroys a tokenizer; NULL is fine.
 *
 * Ownership: takes `tokenizer`. Thread safety: safe.
 */
trtllm_status trtllm_tokenizer_destroy(trtllm_tokenizer *tokenizer);

/**
 * Turns `length` bytes of UTF-8 text into tokens; `add_special_tokens` 1 adds the special tokens of a prompt (such as BOS).
 *
 * At most 16 MiB of text. Ownership: borrows `text`; copies `count` tokens into `tokens`, which has room for `capacity`,
 * see "Results of unknown size" in trtllm.h. Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_tokenizer_encode(const trtllm_tokenizer *tokenizer,
                                      const char *text,
                                      size_t length,
                                      int32_t add_special_tokens,
                                      uint32_t *tokens,
                                      size_t capacity,
                                      size_t *count);

/**
 * Turns tokens into UTF-8 text; `skip_special_tokens` 1 leaves special tokens out. Bytes that are no whole character become
 * U+FFFD; an id outside the vocabulary has no text.
 *
 * Ownership: borrows `tokens`; copies the text and a NUL into `buffer`, see "Results of unknown size" in trtllm.h.
 * Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_tokenizer_decode(const trtllm_tokenizer *tokenizer,
                                      const uint32_t *tokens,
                                      size_t count,
                                      int32_t skip_special_tokens,
                                      char *buffer,
                                      size_t capacity,
                                      size_t *length);

/**
 * Renders a conversation, a JSON array of `{"role": ..., "content": ...}`, by the engine's chat template.
 * `add_generation_prompt` 1 ends it where the assistant's answer begins.
 *
 * Fails with `TRTLLM_STATUS_NOT_FOUND` when the engine has no chat template. Encode the result without special tokens: the
 * template has put them in. Ownership: borrows `messages`; copies the text and a NUL into `buffer`, see "Results of unknown
 * size" in trtllm.h. Thread safety: safe.
 */
TRTLLM_MUST_USE
trtllm_status trtllm_tokenizer_apply_chat_template(const trtllm_tokenizer *tokenizer,
                                                   const char *messages,
                                                   size_t messages_length,
                                                   int32_t add_generation_prompt,
                                                   char *buffer,
                                                   size_t capacity,
                                                   size_t *length);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TRTLLM_TOKENIZER_H */
