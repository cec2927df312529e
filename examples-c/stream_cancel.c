/* Streams by callback and cancels: the story ends as soon as the text holds a given word.
 *
 *     stream_cancel ENGINE PROMPT WORD
 */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <threads.h>
#include <trtllm.h>

#define TRY(call)                                                 \
    do {                                                          \
        if ((call) != TRTLLM_STATUS_OK) {                         \
            fprintf(stderr, "%s\n", trtllm_last_error_message()); \
            return 1;                                             \
        }                                                         \
    } while (0)

struct story {
    trtllm_executor *executor;
    const char *word;
    char text[16384];
    size_t length;
    int32_t finish_reason;
    atomic_int done;
};

/* Runs on the library's delivery thread. Cancelling here is fine; waiting for the executor to end would not be. */
static void on_response(void *user_data, const trtllm_response *response) {
    struct story *story = user_data;
    trtllm_response_view view;
    size_t room = sizeof story->text - 1 - story->length;

    if (trtllm_response_get(response, sizeof view, &view) != TRTLLM_STATUS_OK) return;
    fwrite(view.text, 1, view.text_length, stdout);
    fflush(stdout);
    if (view.text_length < room) room = view.text_length;
    memcpy(story->text + story->length, view.text, room);
    story->length += room;
    story->text[story->length] = '\0';
    if (view.last) {
        story->finish_reason = view.finish_reason;
    } else if (strstr(story->text, story->word) != NULL) {
        if (trtllm_executor_cancel(story->executor, view.request_id) != TRTLLM_STATUS_OK) {
            fprintf(stderr, "%s\n", trtllm_last_error_message());
        }
    }
}

/* Called once, when no callback can come any more. */
static void on_done(void *user_data) {
    struct story *story = user_data;
    printf("\n\nended: %s\n", trtllm_finish_reason_name(story->finish_reason));
    atomic_store(&story->done, 1);
}

int main(int argc, char **argv) {
    static struct story story;
    trtllm_engine *engine;
    trtllm_request *request;
    uint64_t id;

    if (argc != 4) {
        fprintf(stderr, "usage: %s ENGINE PROMPT WORD\n", argv[0]);
        return 2;
    }
    story.word = argv[3];
    TRY(trtllm_engine_load(argv[1], NULL, &engine));
    TRY(trtllm_executor_create(engine, NULL, &story.executor));
    TRY(trtllm_request_create(&request));
    TRY(trtllm_request_set_text(request, argv[2], strlen(argv[2])));
    TRY(trtllm_request_set_callback(request, on_response, &story, on_done));
    printf("%s", argv[2]);
    TRY(trtllm_executor_submit(story.executor, request, &id));
    TRY(trtllm_request_destroy(request));
    while (!atomic_load(&story.done)) { /* the main thread is free to do something else */
        thrd_sleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    TRY(trtllm_executor_destroy(story.executor));
    TRY(trtllm_engine_destroy(engine));
    return 0;
}
