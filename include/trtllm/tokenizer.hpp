/** Text to tokens and back. Part of trtllm.hpp. */

#ifndef TRTLLM_TOKENIZER_HPP
#define TRTLLM_TOKENIZER_HPP

#include <trtllm/tokenizer.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "trtllm/engine.hpp"
#include "trtllm/handle.hpp"
#include "trtllm/span.hpp"

namespace trtllm {

/** The tokenizer and the chat template of an engine. */
class Tokenizer {
   public:
    /** Throws with `TRTLLM_STATUS_NOT_FOUND` when the engine was built without one. */
    explicit Tokenizer(const Engine &engine)
        : handle_(detail::make<trtllm_tokenizer>(
              [&](trtllm_tokenizer **handle) { return trtllm_tokenizer_create(engine.get(), handle); })) {}

    trtllm_tokenizer *get() const noexcept { return handle_.get(); }

    std::vector<std::uint32_t> encode(std::string_view text, bool add_special_tokens = true) const {
        std::size_t count = 0;
        detail::check(encode_into(text, add_special_tokens, nullptr, 0, &count));
        std::vector<std::uint32_t> tokens(count);
        if (count > 0) detail::check(encode_into(text, add_special_tokens, tokens.data(), count, &count));
        return tokens;
    }

    std::string decode(Span<const std::uint32_t> tokens, bool skip_special_tokens = true) const {
        return detail::text([&](char *buffer, std::size_t capacity, std::size_t *length) {
            return trtllm_tokenizer_decode(get(), tokens.data(), tokens.size(), skip_special_tokens, buffer, capacity,
                                           length);
        });
    }

    /** Renders a JSON array of `{"role": ..., "content": ...}` by the chat template. */
    std::string apply_chat_template(std::string_view messages, bool add_generation_prompt = true) const {
        return detail::text([&](char *buffer, std::size_t capacity, std::size_t *length) {
            return trtllm_tokenizer_apply_chat_template(get(), messages.data(), messages.size(), add_generation_prompt,
                                                        buffer, capacity, length);
        });
    }

   private:
    trtllm_status encode_into(std::string_view text, bool add_special_tokens, std::uint32_t *tokens,
                              std::size_t capacity, std::size_t *count) const noexcept {
        return trtllm_tokenizer_encode(get(), text.data(), text.size(), add_special_tokens, tokens, capacity, count);
    }

    detail::Handle<trtllm_tokenizer> handle_;
};

}  // namespace trtllm

#endif  // TRTLLM_TOKENIZER_HPP
