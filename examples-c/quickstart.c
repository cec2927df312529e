/* From a Hugging Face checkpoint to streamed text.
 *
 *     quickstart CHECKPOINT ENGINE PROMPT
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <trtllm.h>

/* Ends the program's work on the first failure: every call says what was wrong. */
#define TRY(call)                                                 \
    do {                                                          \
        if ((call) != TRTLLM_STATUS_OK) {                         \
            fprintf(stderr, "%s\n", trtllm_last_error_message()); \
            return 1;                                             \
        }                                                         \
    } while (0)

static int32_t show_progress(void *user_data, const char *phase, double fraction) {
    enum { WIDTH = 30 };
    const char *bar = "##############################";
    int done = (int)(fraction * WIDTH);
    (void)user_data;
    fprintf(stderr, "\r%-24s [%.*s%*s] %3d %%%s", phase, done, bar, WIDTH - done, "", (int)(fraction * 100),
            fraction >= 1 ? "\n" : "");
    return 0;
}

static int generate(trtllm_executor *executor, const trtllm_sampling *sampling, const char *prompt) {
    trtllm_response *response;
    trtllm_response_view view;
    uint64_t id;

    TRY(trtllm_executor_submit_text(executor, prompt, sampling, &id));
    printf("%s", prompt);
    do {
        TRY(trtllm_executor_await(executor, id, TRTLLM_WAIT_FOREVER, &response));
        TRY(trtllm_response_get(response, sizeof view, &view));
        fwrite(view.text, 1, view.text_length, stdout);
        fflush(stdout);
        if (view.status != TRTLLM_STATUS_OK) fprintf(stderr, "\n%s\n", view.error_message);
        if (view.last) {
            trtllm_request_stats stats;
            TRY(trtllm_response_get_stats(response, sizeof stats, &stats));
            printf("\n\n%" PRIu64 " tokens, first after %.1f ms, all after %.1f ms\n", stats.generated_tokens,
                   (double)stats.first_token_ns / 1e6, (double)stats.total_ns / 1e6);
        }
        TRY(trtllm_response_destroy(response));
    } while (!view.last);
    return view.status != TRTLLM_STATUS_OK;
}

int main(int argc, char **argv) {
    trtllm_build_config build = TRTLLM_BUILD_CONFIG_INIT;
    trtllm_engine *engine;
    trtllm_executor *executor;
    trtllm_sampling sampling;
    int failed;

    if (argc != 4) {
        fprintf(stderr, "usage: %s CHECKPOINT ENGINE PROMPT\n", argv[0]);
        return 2;
    }
    TRY(trtllm_check_version(TRTLLM_VERSION_MAJOR, TRTLLM_VERSION_MINOR));
    build.progress = show_progress;
    TRY(trtllm_build(argv[1], argv[2], &build));
    fprintf(stderr, "\n");
    TRY(trtllm_engine_load(argv[2], NULL, &engine));
    TRY(trtllm_executor_create(engine, NULL, &executor));
    TRY(trtllm_engine_get_sampling(engine, sizeof sampling, &sampling));
    sampling.max_tokens = 300;
    failed = generate(executor, &sampling, argv[3]);
    TRY(trtllm_executor_destroy(executor));
    TRY(trtllm_engine_destroy(engine));
    return failed;
}
