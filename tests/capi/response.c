/* Responses: everything that a view shows, statistics, lifetimes, misuse. */
#include <math.h>

#include "check.h"

enum { VOCABULARY = 1000, NEW_TOKENS = 6, TOP = 3 };

static const char PROMPT[] = "Once upon a time";

/* One whole response with all that can be asked for. */
static trtllm_response *answer(trtllm_engine *engine) {
    trtllm_sampling sampling = TRTLLM_SAMPLING_INIT;
    trtllm_executor *executor;
    trtllm_request *request;
    trtllm_response *response;
    uint64_t id = 0;
    sampling.max_tokens = NEW_TOKENS;
    sampling.ignore_eos = 1;
    sampling.logprobs = TOP;
    OK(trtllm_executor_create(engine, NULL, &executor));
    OK(trtllm_request_create(&request));
    OK(trtllm_request_set_text(request, PROMPT, strlen(PROMPT)));
    OK(trtllm_request_set_sampling(request, &sampling));
    OK(trtllm_request_set_stream(request, 0));
    OK(trtllm_request_set_return_logits(request, 1, 1));
    OK(trtllm_executor_submit(executor, request, &id));
    OK(trtllm_request_destroy(request));
    OK(trtllm_executor_await(executor, id, TRTLLM_WAIT_FOREVER, &response));
    /* The response belongs to nobody else. */
    OK(trtllm_executor_destroy(executor));
    return response;
}

static void view(trtllm_response *response) {
    trtllm_response_view view;
    OK(trtllm_response_get(response, sizeof view, &view));
    CHECK(view.request_id != 0 && view.sequence == 0 && view.last == 1);
    CHECK(view.status == TRTLLM_STATUS_OK && strcmp(view.error_message, "") == 0);
    CHECK(view.finish_reason == TRTLLM_FINISH_REASON_LENGTH);
    CHECK(view.text_length > 0 && strlen(view.text) == view.text_length);
    CHECK(view.token_count == NEW_TOKENS && view.logprobs != NULL && view.top_logprobs_per_token == TOP);
    for (size_t i = 0; i < view.token_count; i++) {
        const trtllm_token_logprob *top = view.top_logprobs + i * TOP;
        CHECK(view.logprobs[i].token == view.tokens[i] && view.logprobs[i].logprob <= 0.0f);
        /* Greedy: the chosen token is the most likely one. */
        CHECK(top[0].token == view.tokens[i] && top[0].logprob == view.logprobs[i].logprob);
        CHECK(top[0].logprob >= top[1].logprob && top[1].logprob >= top[2].logprob);
    }
    CHECK(view.generation_logits_count == NEW_TOKENS * VOCABULARY);
    CHECK(view.context_logits_count > 0 && view.context_logits_count % VOCABULARY == 0);
    for (size_t i = 0; i < view.generation_logits_count; i++) CHECK(isfinite(view.generation_logits[i]));
    DONE("view");
}

static void older_view(trtllm_response *response) {
    struct {
        trtllm_response_view known;
        unsigned char later[8];
    } newer;
    memset(&newer, 0x5a, sizeof newer);
    OK(trtllm_response_get(response, sizeof newer, &newer.known));
    CHECK(newer.known.last == 1 && newer.later[0] == 0 && newer.later[7] == 0);
    DONE("older_view");
}

static void statistics(trtllm_response *response) {
    trtllm_request_stats stats;
    char json[512];
    size_t length = 0, again = 0;
    OK(trtllm_response_get_stats(response, sizeof stats, &stats));
    CHECK(stats.prompt_tokens > 0 && stats.generated_tokens == NEW_TOKENS);
    CHECK(stats.first_token_ns >= stats.queued_ns && stats.total_ns >= stats.first_token_ns && stats.total_ns > 0);
    OK(trtllm_response_stats_json(response, NULL, 0, &length));
    OK(trtllm_response_stats_json(response, json, sizeof json, &again));
    CHECK(length == again && strlen(json) == length && strstr(json, "\"generated_tokens\":6") != NULL);
    DONE("statistics");
}

static void misuse(trtllm_response *response) {
    trtllm_response_view view;
    trtllm_request_stats stats;
    size_t length = 77;
    memset(&view, 0x5a, sizeof view);
    memset(&stats, 0x5a, sizeof stats);
    FAILS(trtllm_response_get(NULL, sizeof view, &view), INVALID_ARGUMENT, "`response`: is NULL");
    FAILS(trtllm_response_get(response, sizeof view, NULL), INVALID_ARGUMENT, "`view`: is NULL");
    FAILS(trtllm_response_get(response, 4, &view), INVALID_ARGUMENT, "`view_size`: is 4");
    FAILS(trtllm_response_get(response, SIZE_MAX, &view), INVALID_ARGUMENT, "`view_size`");
    FAILS(trtllm_response_get(WRONG(trtllm_response, &view), sizeof view, &view), INVALID_HANDLE, "`response`");
    FAILS(trtllm_response_get_stats(response, 0, &stats), INVALID_ARGUMENT, "`stats_size`: is 0");
    FAILS(trtllm_response_get_stats(response, sizeof stats, NULL), INVALID_ARGUMENT, "`stats`: is NULL");
    FAILS(trtllm_response_stats_json(response, NULL, 3, &length), INVALID_ARGUMENT, "`buffer`: is NULL");
    CHECK(view.sequence == 0x5a5a5a5a && stats.prompt_tokens == 0x5a5a5a5a5a5a5a5a && length == 77);
    OK(trtllm_response_destroy(response));
    FAILS(trtllm_response_get(response, sizeof view, &view), INVALID_HANDLE, "was destroyed");
    FAILS(trtllm_response_destroy(response), INVALID_HANDLE, "was destroyed");
    OK(trtllm_response_destroy(NULL));
    DONE("misuse");
}

static void names(void) {
    CHECK(strcmp(trtllm_finish_reason_name(TRTLLM_FINISH_REASON_NONE), "NONE") == 0);
    CHECK(strcmp(trtllm_finish_reason_name(TRTLLM_FINISH_REASON_TIME_LIMIT), "TIME_LIMIT") == 0);
    CHECK(strcmp(trtllm_finish_reason_name(TRTLLM_FINISH_REASON_ERROR), "ERROR") == 0);
    CHECK(strcmp(trtllm_finish_reason_name(7), "UNKNOWN") == 0);
    CHECK(strcmp(trtllm_finish_reason_name(-1), "UNKNOWN") == 0);
    DONE("names");
}

int main(int argc, char **argv) {
    trtllm_engine *engine = loaded_engine(argc, argv);
    trtllm_response *response = answer(engine);
    OK(trtllm_engine_destroy(engine));
    view(response);
    older_view(response);
    statistics(response);
    misuse(response);
    names();
    return 0;
}
