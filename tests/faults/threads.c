/* The start of every thread failing in load and executor: a status, and no thread left. argv: an engine. */
#define _GNU_SOURCE
#include "process.h"
#include "shim.h"

enum { MOST_TOKENS = 64 };

/* The greedy tokens of a request; `count` of them. */
static size_t generate(trtllm_executor *executor, uint32_t *tokens) {
    trtllm_sampling sampling = TRTLLM_SAMPLING_INIT;
    sampling.max_tokens = 16;
    uint64_t id;
    size_t count = 0;
    trtllm_response_view view;
    OK(trtllm_executor_submit_text(executor, "Once upon a time", &sampling, &id));
    do {
        trtllm_response *response;
        OK(trtllm_executor_await(executor, id, 20000, &response));
        OK(trtllm_response_get(response, sizeof view, &view));
        CHECK(view.status == TRTLLM_STATUS_OK && count + view.token_count <= MOST_TOKENS);
        if (view.token_count > 0) memcpy(tokens + count, view.tokens, view.token_count * sizeof *tokens);
        count += view.token_count;
        OK(trtllm_response_destroy(response));
    } while (!view.last);
    return count;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    trtllm_executor_config config = TRTLLM_EXECUTOR_CONFIG_INIT;
    config.threads = 4, config.kv_tokens = 1024;
    trtllm_engine_config mode = TRTLLM_ENGINE_CONFIG_INIT;
    uint32_t expected[MOST_TOKENS], tokens[MOST_TOKENS];
    size_t count = 0;
    int trials = 0, failures = 0;
    for (int again = 0; again < 2; again++) {
        for (int at = 0, seen = 1 << 20; at <= seen; at++, trials++) {
            trtllm_engine *engine = NULL;
            trtllm_executor *executor = UNTOUCHED;
            mode.load_mode = at % 2;
            shim_arm(SHIM_THREADS, SHIM_EAGAIN, at, again, NULL);
            /* The threads of a load are helpers: it goes on without them. */
            OK(trtllm_engine_load(argv[1], &mode, &engine));
            trtllm_status status = trtllm_executor_create(engine, &config, &executor);
            seen = shim_disarm();
            if (status != TRTLLM_STATUS_OK) {
                CHECK(status == TRTLLM_STATUS_THREAD_FAILED && executor == UNTOUCHED && at < seen);
                CHECK(strstr(trtllm_last_error_message(), "trtllm-") != NULL);
                CHECK(threads() == 1);
                failures++;
                OK(trtllm_executor_create(engine, &config, &executor));
            }
            size_t now = generate(executor, tokens);
            if (count == 0) memcpy(expected, tokens, sizeof *tokens * (count = now));
            CHECK(now == count && memcmp(tokens, expected, sizeof *tokens * count) == 0);
            OK(trtllm_executor_destroy(executor));
            OK(trtllm_engine_destroy(engine));
            CHECK(threads() == 1);
        }
    }
    CHECK(failures >= 10);
    printf("ok threads: %d trials, %d refusals\n", trials, failures);
    return 0;
}
