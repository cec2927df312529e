/* The tokenizer: there and back, the chat template, misuse. */
#include "check.h"

static const char TEXT[] = "The little fox found a red ball.";

static void there_and_back(trtllm_tokenizer *tokenizer) {
    uint32_t tokens[64], few[2] = {7, 7}, unknown = 4000000000u;
    size_t count = 0, again = 0, length = 0;
    char text[128];
    OK(trtllm_tokenizer_encode(tokenizer, TEXT, strlen(TEXT), 0, NULL, 0, &count));
    CHECK(count > 2 && count <= 64);
    FAILS(trtllm_tokenizer_encode(tokenizer, TEXT, strlen(TEXT), 0, few, 2, &again), BUFFER_TOO_SMALL, "`tokens`");
    CHECK(again == count && few[0] == 7 && few[1] == 7);
    OK(trtllm_tokenizer_encode(tokenizer, TEXT, strlen(TEXT), 0, tokens, 64, &count));
    OK(trtllm_tokenizer_decode(tokenizer, tokens, count, 1, text, sizeof text, &length));
    CHECK(length == strlen(TEXT) && strcmp(text, TEXT) == 0);
    OK(trtllm_tokenizer_decode(tokenizer, NULL, 0, 1, text, sizeof text, &length));
    CHECK(length == 0 && text[0] == '\0');
    OK(trtllm_tokenizer_decode(tokenizer, &unknown, 1, 1, text, sizeof text, &length));
    CHECK(length == 0 && text[0] == '\0');
    DONE("there_and_back");
}

static void chat(trtllm_tokenizer *tokenizer) {
    const char messages[] = "[{\"role\": \"user\", \"content\": \"Tell me a story.\"}]";
    char text[512];
    size_t length = 0;
    OK(trtllm_tokenizer_apply_chat_template(tokenizer, messages, strlen(messages), 1, text, sizeof text, &length));
    CHECK(length == strlen(text) && strstr(text, "Tell me a story.") != NULL);
    FAILS(trtllm_tokenizer_apply_chat_template(tokenizer, "[", 1, 1, text, sizeof text, &length), INVALID_ARGUMENT,
          "`messages`");
    FAILS(trtllm_tokenizer_apply_chat_template(tokenizer, "{}", 2, 1, text, sizeof text, &length), INVALID_ARGUMENT,
          "`messages`");
    DONE("chat");
}

static void misuse(trtllm_engine *engine, trtllm_tokenizer *tokenizer) {
    uint32_t tokens[4] = {9, 9, 9, 9};
    char text[8] = "before";
    size_t count = 77;
    trtllm_tokenizer *other = UNTOUCHED;
    FAILS(trtllm_tokenizer_create(engine, NULL), INVALID_ARGUMENT, "`tokenizer`: is NULL");
    FAILS(trtllm_tokenizer_create(WRONG(trtllm_engine, tokenizer), &other), INVALID_HANDLE, "`engine`");
    CHECK(other == UNTOUCHED);
    FAILS(trtllm_tokenizer_encode(NULL, "a", 1, 0, tokens, 4, &count), INVALID_ARGUMENT, "`tokenizer`: is NULL");
    FAILS(trtllm_tokenizer_encode(tokenizer, "\xff", 1, 0, tokens, 4, &count), INVALID_ARGUMENT,
          "`text`: is not UTF-8");
    FAILS(trtllm_tokenizer_encode(tokenizer, "a", SIZE_MAX, 0, tokens, 4, &count), INVALID_ARGUMENT,
          "`text`: has length");
    FAILS(trtllm_tokenizer_encode(tokenizer, "a", 1, 5, tokens, 4, &count), INVALID_ARGUMENT,
          "`add_special_tokens`: is 5");
    FAILS(trtllm_tokenizer_encode(tokenizer, "a", 1, 0, NULL, 4, &count), INVALID_ARGUMENT, "`tokens`: is NULL");
    FAILS(trtllm_tokenizer_encode(tokenizer, "a", 1, 0, tokens, 4, NULL), INVALID_ARGUMENT, "`count`: is NULL");
    FAILS(trtllm_tokenizer_decode(tokenizer, NULL, 3, 0, text, sizeof text, &count), INVALID_ARGUMENT,
          "`tokens`: is NULL");
    FAILS(trtllm_tokenizer_decode(tokenizer, tokens, 1, 2, text, sizeof text, &count), INVALID_ARGUMENT,
          "`skip_special_tokens`: is 2");
    CHECK(count == 77 && tokens[0] == 9 && strcmp(text, "before") == 0);
    DONE("misuse");
}

static void outlives_its_engine(trtllm_engine *engine, trtllm_tokenizer *tokenizer) {
    size_t count = 0;
    OK(trtllm_engine_destroy(engine));
    OK(trtllm_tokenizer_encode(tokenizer, "a", 1, 0, NULL, 0, &count));
    OK(trtllm_tokenizer_destroy(tokenizer));
    FAILS(trtllm_tokenizer_encode(tokenizer, "a", 1, 0, NULL, 0, &count), INVALID_HANDLE, "was destroyed");
    OK(trtllm_tokenizer_destroy(NULL));
    DONE("outlives_its_engine");
}

int main(int argc, char **argv) {
    trtllm_engine *engine = loaded_engine(argc, argv);
    trtllm_tokenizer *tokenizer;
    OK(trtllm_tokenizer_create(engine, &tokenizer));
    there_and_back(tokenizer);
    chat(tokenizer);
    misuse(engine, tokenizer);
    outlives_its_engine(engine, tokenizer);
    return 0;
}
