/* Serves many requests at once: prompts are submitted together, responses are taken as they come, whole texts printed
 * at the end of each request.
 *
 *     many_requests ENGINE PROMPT [PROMPT ...]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trtllm.h>

#define TRY(call)                                                 \
    do {                                                          \
        if ((call) != TRTLLM_STATUS_OK) {                         \
            fprintf(stderr, "%s\n", trtllm_last_error_message()); \
            return 1;                                             \
        }                                                         \
    } while (0)

static int submit_whole_text(trtllm_executor *executor, const char *prompt, uint64_t *id) {
    trtllm_request *request;
    TRY(trtllm_request_create(&request));
    TRY(trtllm_request_set_text(request, prompt, strlen(prompt)));
    TRY(trtllm_request_set_stream(request, 0)); /* one response, at the end */
    TRY(trtllm_request_set_time_limit(request, 60000));
    TRY(trtllm_executor_submit(executor, request, id));
    TRY(trtllm_request_destroy(request));
    return 0;
}

static int print_response(trtllm_response *response, const uint64_t *ids, char **prompts, int count) {
    trtllm_response_view view;
    TRY(trtllm_response_get(response, sizeof view, &view));
    for (int i = 0; i < count; i++) {
        if (ids[i] != view.request_id) continue;
        printf("--- %s (%s)\n%s%.*s\n", prompts[i], trtllm_finish_reason_name(view.finish_reason), prompts[i],
               (int)view.text_length, view.text);
    }
    if (view.status != TRTLLM_STATUS_OK) fprintf(stderr, "%s\n", view.error_message);
    TRY(trtllm_response_destroy(response));
    return 0;
}

int main(int argc, char **argv) {
    enum { MOST = 64, TAKEN = 16 };
    trtllm_executor_config config = TRTLLM_EXECUTOR_CONFIG_INIT;
    trtllm_engine *engine;
    trtllm_executor *executor;
    uint64_t ids[MOST];
    char json[4096];
    size_t length;
    int count = argc - 2, ended = 0;

    if (count < 1 || count > MOST) {
        fprintf(stderr, "usage: %s ENGINE PROMPT [PROMPT ...], at most %d prompts\n", argv[0], MOST);
        return 2;
    }
    TRY(trtllm_engine_load(argv[1], NULL, &engine));
    config.max_batch_size = 8;
    TRY(trtllm_executor_create(engine, &config, &executor));
    for (int i = 0; i < count; i++) {
        if (submit_whole_text(executor, argv[i + 2], &ids[i])) return 1;
    }
    while (ended < count) {
        trtllm_response *responses[TAKEN];
        size_t taken;
        TRY(trtllm_executor_await_many(executor, TRTLLM_ANY_REQUEST, TRTLLM_WAIT_FOREVER, TAKEN, responses, &taken));
        for (size_t i = 0; i < taken; i++, ended++) {
            if (print_response(responses[i], ids, argv + 2, count)) return 1;
        }
    }
    TRY(trtllm_executor_stats_json(executor, json, sizeof json, &length));
    printf("%s\n", json);
    TRY(trtllm_executor_destroy(executor));
    TRY(trtllm_engine_destroy(engine));
    return 0;
}
