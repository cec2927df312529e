/* Requests: setters, misuse, and the fate of user data. */
#include "check.h"

static void misuse(void) {
    trtllm_request *request;
    const char bad[] = {'a', (char)0xff, 0};
    uint32_t tokens[2] = {1, 2};
    FAILS(trtllm_request_create(NULL), INVALID_ARGUMENT, "`request`: is NULL");
    OK(trtllm_request_create(&request));
    FAILS(trtllm_request_set_text(NULL, "a", 1), INVALID_ARGUMENT, "`request`: is NULL");
    FAILS(trtllm_request_set_text(request, NULL, 1), INVALID_ARGUMENT, "`text`: is NULL");
    FAILS(trtllm_request_set_text(request, bad, 2), INVALID_ARGUMENT, "`text`: is not UTF-8 at byte 1");
    FAILS(trtllm_request_set_text(request, "a", SIZE_MAX), INVALID_ARGUMENT, "`text`: has length");
    FAILS(trtllm_request_set_chat(request, bad, 2), INVALID_ARGUMENT, "`messages`: is not UTF-8");
    FAILS(trtllm_request_set_chat(request, NULL, 2), INVALID_ARGUMENT, "`messages`: is NULL");
    FAILS(trtllm_request_set_tokens(request, NULL, 2), INVALID_ARGUMENT, "`tokens`: is NULL");
    FAILS(trtllm_request_set_tokens(request, tokens, SIZE_MAX / 2), INVALID_ARGUMENT, "`tokens`: has length");
    FAILS(trtllm_request_set_tokens(request, (uint32_t *)(void *)((char *)tokens + 1), 1), INVALID_ARGUMENT,
          "`tokens`: is not aligned");
    FAILS(trtllm_request_add_stop_string(request, "", 0), INVALID_ARGUMENT, "`text`: is empty");
    FAILS(trtllm_request_add_stop_tokens(request, tokens, 0), INVALID_ARGUMENT, "`count`: is 0");
    FAILS(trtllm_request_set_stream(request, 7), INVALID_ARGUMENT, "`stream`: is 7");
    FAILS(trtllm_request_set_salt(request, (const uint8_t *)"", 257), INVALID_ARGUMENT, "`salt`: has length 257");
    FAILS(trtllm_request_set_return_logits(request, 0, -1), INVALID_ARGUMENT, "`generation`: is -1");
    OK(trtllm_request_destroy(request));
    DONE("misuse");
}

static void dead_and_wrong_handles(void) {
    trtllm_request *request;
    OK(trtllm_request_create(&request));
    FAILS(trtllm_engine_destroy(WRONG(trtllm_engine, request)), INVALID_HANDLE, "`engine`");
    FAILS(trtllm_response_destroy(WRONG(trtllm_response, request)), INVALID_HANDLE, "`response`");
    OK(trtllm_request_set_stream(request, 0));
    OK(trtllm_request_destroy(request));
    FAILS(trtllm_request_set_stream(request, 0), INVALID_HANDLE, "was destroyed");
    FAILS(trtllm_request_destroy(request), INVALID_HANDLE, "was destroyed");
    FAILS(trtllm_request_destroy((trtllm_request *)(void *)&request), INVALID_HANDLE, "never existed");
    OK(trtllm_request_destroy(NULL));
    DONE("dead_and_wrong_handles");
}

static void all_setters(void) {
    trtllm_request *request;
    trtllm_sampling sampling = TRTLLM_SAMPLING_INIT;
    uint32_t tokens[2] = {1, 2};
    OK(trtllm_request_create(&request));
    OK(trtllm_request_set_text(request, "h\xc3\xa9", 3));
    OK(trtllm_request_set_text(request, NULL, 0));
    OK(trtllm_request_set_tokens(request, tokens, 2));
    OK(trtllm_request_set_chat(request, "[]", 2));
    OK(trtllm_request_set_sampling(request, &sampling));
    OK(trtllm_request_set_sampling(request, NULL));
    OK(trtllm_request_add_stop_string(request, "end", 3));
    OK(trtllm_request_add_stop_tokens(request, tokens, 2));
    OK(trtllm_request_add_logit_bias(request, 3, -1.0f));
    OK(trtllm_request_set_stream(request, 0));
    OK(trtllm_request_set_time_limit(request, 1000));
    OK(trtllm_request_set_salt(request, (const uint8_t *)"tenant", 6));
    OK(trtllm_request_set_return_logits(request, 1, 1));
    OK(trtllm_request_destroy(request));
    DONE("all_setters");
}

static void ignore(void *user_data, const trtllm_response *response) {
    (void)user_data;
    (void)response;
}

static void count(void *user_data) {
    ++*(int *)user_data;
}

static void user_data_is_freed_once(void) {
    trtllm_request *request;
    int first = 0, second = 0, refused = 0;
    OK(trtllm_request_create(&request));
    FAILS(trtllm_request_set_callback(request, NULL, &refused, count), INVALID_ARGUMENT, "`user_data_free`");
    OK(trtllm_request_set_callback(request, ignore, &first, count));
    CHECK(first == 0);
    OK(trtllm_request_set_callback(request, ignore, &second, count));
    CHECK(first == 1 && second == 0);
    OK(trtllm_request_destroy(request));
    CHECK(first == 1 && second == 1);
    FAILS(trtllm_request_set_callback(request, ignore, &refused, count), INVALID_HANDLE, "was destroyed");
    CHECK(refused == 0);
    DONE("user_data_is_freed_once");
}

int main(void) {
    misuse();
    dead_and_wrong_handles();
    all_setters();
    user_data_is_freed_once();
    return 0;
}
