/* The executor: from prompt to text by pull and by callback, cancellation, refusals, shutdown, misuse. */
#include <math.h>
#include <pthread.h>

#include "check.h"

enum { MOST_TEXT = 1 << 16 };

static const char PROMPT[] = "Once upon a time";

/* What a request said. */
struct story {
    char text[MOST_TEXT];
    size_t length;
    size_t tokens;
    int responses;
    int lasts;
    int32_t finish_reason;
};

static void append(struct story *story, const trtllm_response *response) {
    trtllm_response_view view;
    OK(trtllm_response_get(response, sizeof view, &view));
    CHECK(view.status == TRTLLM_STATUS_OK && story->lasts == 0);
    CHECK(story->length + view.text_length < MOST_TEXT);
    memcpy(story->text + story->length, view.text, view.text_length + 1);
    story->length += view.text_length;
    story->tokens += view.token_count;
    story->responses++;
    story->lasts += view.last;
    story->finish_reason = view.finish_reason;
}

static void read_story(trtllm_executor *executor, uint64_t id, struct story *story) {
    memset(story, 0, sizeof *story);
    while (story->lasts == 0) {
        trtllm_response *response;
        OK(trtllm_executor_await(executor, id, TRTLLM_WAIT_FOREVER, &response));
        append(story, response);
        OK(trtllm_response_destroy(response));
    }
}

static trtllm_sampling greedy(uint32_t max_tokens) {
    trtllm_sampling sampling = TRTLLM_SAMPLING_INIT;
    sampling.max_tokens = max_tokens;
    sampling.ignore_eos = 1;
    return sampling;
}

static trtllm_request *greedy_request(uint32_t max_tokens) {
    trtllm_sampling sampling = greedy(max_tokens);
    trtllm_request *request;
    OK(trtllm_request_create(&request));
    OK(trtllm_request_set_text(request, PROMPT, strlen(PROMPT)));
    OK(trtllm_request_set_sampling(request, &sampling));
    return request;
}

static void macro_and_function_agree(void) {
    trtllm_executor_config macro = TRTLLM_EXECUTOR_CONFIG_INIT, function;
    memset(&function, 0x5a, sizeof function);
    OK(trtllm_executor_config_init(sizeof function, &function));
    CHECK(memcmp(&macro, &function, sizeof macro) == 0);
    FAILS(trtllm_executor_config_init(sizeof function, NULL), INVALID_ARGUMENT, "`config`: is NULL");
    DONE("macro_and_function_agree");
}

static void misuse_of_create(trtllm_engine *engine) {
    trtllm_executor_config config = TRTLLM_EXECUTOR_CONFIG_INIT;
    trtllm_executor *executor = UNTOUCHED;
    FAILS(trtllm_executor_create(NULL, NULL, &executor), INVALID_ARGUMENT, "`engine`: is NULL");
    FAILS(trtllm_executor_create(engine, NULL, NULL), INVALID_ARGUMENT, "`executor`: is NULL");
    FAILS(trtllm_executor_create(WRONG(trtllm_engine, &config), NULL, &executor), INVALID_HANDLE, "`engine`");
    config.prefix_reuse = 2;
    FAILS(trtllm_executor_create(engine, &config, &executor), INVALID_ARGUMENT, "`config.prefix_reuse`: is 2");
    config.prefix_reuse = 1;
    config.refuse_stored_kernels = -1;
    FAILS(trtllm_executor_create(engine, &config, &executor), INVALID_ARGUMENT,
          "`config.refuse_stored_kernels`: is -1");
    config.refuse_stored_kernels = 0;
    config.reserved = 1;
    FAILS(trtllm_executor_create(engine, &config, &executor), INVALID_ARGUMENT, "`config.reserved`");
    config.reserved = 0;
    config.isa = "abacus";
    FAILS(trtllm_executor_create(engine, &config, &executor), INVALID_ARGUMENT, "abacus");
    config.isa = NULL;
    config.max_batch_size = 0;
    FAILS(trtllm_executor_create(engine, &config, &executor), INVALID_ARGUMENT, "max_batch_size");
    config.max_batch_size = 4;
    config.memory_budget = 1000;
    FAILS(trtllm_executor_create(engine, &config, &executor), BUDGET_EXCEEDED, "");
    config.memory_budget = 0;
    config.struct_size = 8;
    FAILS(trtllm_executor_create(engine, &config, &executor), INVALID_ARGUMENT, "`config.struct_size`: is 8");
    CHECK(executor == UNTOUCHED);
    DONE("misuse_of_create");
}

static void text_by_pull(trtllm_executor *executor) {
    static struct story streamed, whole;
    trtllm_sampling sampling = greedy(24);
    trtllm_request *request = greedy_request(24);
    uint64_t id = 0, other = 0;
    OK(trtllm_executor_submit_text(executor, PROMPT, &sampling, &id));
    read_story(executor, id, &streamed);
    CHECK(streamed.tokens == 24 && streamed.length > 24 && streamed.finish_reason == TRTLLM_FINISH_REASON_LENGTH);
    OK(trtllm_request_set_stream(request, 0));
    OK(trtllm_executor_submit(executor, request, &other));
    CHECK(other != id && other != 0);
    read_story(executor, other, &whole);
    CHECK(whole.responses == 1 && whole.tokens == 24 && strcmp(whole.text, streamed.text) == 0);
    OK(trtllm_request_destroy(request));
    DONE("text_by_pull");
}

static void tokens_and_chat(trtllm_engine *engine, trtllm_executor *executor) {
    static struct story from_text, from_tokens, from_chat;
    const char chat[] = "[{\"role\": \"user\", \"content\": \"Tell me a story.\"}]";
    trtllm_sampling sampling = greedy(8);
    trtllm_request *request = greedy_request(8);
    trtllm_tokenizer *tokenizer;
    uint32_t tokens[64];
    size_t count = 0;
    uint64_t id = 0;
    OK(trtllm_tokenizer_create(engine, &tokenizer));
    OK(trtllm_tokenizer_encode(tokenizer, PROMPT, strlen(PROMPT), 1, tokens, 64, &count));
    OK(trtllm_tokenizer_destroy(tokenizer));
    OK(trtllm_executor_submit_text(executor, PROMPT, &sampling, &id));
    read_story(executor, id, &from_text);
    OK(trtllm_request_set_tokens(request, tokens, count));
    OK(trtllm_executor_submit(executor, request, &id));
    read_story(executor, id, &from_tokens);
    CHECK(strcmp(from_text.text, from_tokens.text) == 0);
    OK(trtllm_request_set_chat(request, chat, strlen(chat)));
    OK(trtllm_executor_submit(executor, request, &id));
    read_story(executor, id, &from_chat);
    CHECK(from_chat.tokens == 8 && from_chat.length > 0);
    OK(trtllm_request_destroy(request));
    /* The engine's own defaults, to the end of the text. */
    OK(trtllm_executor_submit_text(executor, PROMPT, NULL, &id));
    read_story(executor, id, &from_text);
    CHECK(from_text.length > 0);
    DONE("tokens_and_chat");
}

static void stop_string(trtllm_executor *executor) {
    static struct story free_running, stopped;
    trtllm_request *request = greedy_request(24);
    uint64_t id = 0;
    char stop[4] = {0};
    const char *found;
    OK(trtllm_executor_submit(executor, request, &id));
    read_story(executor, id, &free_running);
    CHECK(free_running.length > 12);
    memcpy(stop, free_running.text + 9, 3);
    OK(trtllm_request_add_stop_string(request, stop, 3));
    OK(trtllm_executor_submit(executor, request, &id));
    read_story(executor, id, &stopped);
    found = strstr(free_running.text, stop);
    CHECK(stopped.finish_reason == TRTLLM_FINISH_REASON_STOP);
    CHECK(found != NULL && stopped.length == (size_t)(found - free_running.text));
    CHECK(memcmp(stopped.text, free_running.text, stopped.length) == 0);
    OK(trtllm_request_destroy(request));
    DONE("stop_string");
}

static void several_sequences(trtllm_executor *executor) {
    trtllm_sampling sampling = greedy(5);
    trtllm_request *request = greedy_request(5);
    uint64_t id = 0;
    unsigned finished = 0, seen = 0, last = 0;
    sampling.n = 3;
    sampling.temperature = 1.0f;
    OK(trtllm_request_set_sampling(request, &sampling));
    OK(trtllm_executor_submit(executor, request, &id));
    while (!last) {
        trtllm_response *responses[4];
        size_t count = 0;
        OK(trtllm_executor_await_many(executor, id, TRTLLM_WAIT_FOREVER, 4, responses, &count));
        CHECK(count >= 1 && count <= 4);
        for (size_t i = 0; i < count; i++) {
            trtllm_response_view view;
            OK(trtllm_response_get(responses[i], sizeof view, &view));
            CHECK(view.request_id == id && view.sequence < 3);
            finished += view.finish_reason != TRTLLM_FINISH_REASON_NONE;
            seen |= 1u << view.sequence;
            last |= (unsigned)view.last;
            OK(trtllm_response_destroy(responses[i]));
        }
    }
    CHECK(finished == 3 && seen == 7);
    OK(trtllm_request_destroy(request));
    DONE("several_sequences");
}

static void many_at_once(trtllm_executor *executor) {
    enum { REQUESTS = 8 };
    uint64_t ids[REQUESTS];
    size_t lasts = 0;
    for (int i = 0; i < REQUESTS; i++) {
        trtllm_sampling sampling = greedy(4 + (uint32_t)i);
        OK(trtllm_executor_submit_text(executor, PROMPT, &sampling, &ids[i]));
    }
    while (lasts < REQUESTS) {
        trtllm_response *response;
        trtllm_response_view view;
        OK(trtllm_executor_await(executor, TRTLLM_ANY_REQUEST, TRTLLM_WAIT_FOREVER, &response));
        OK(trtllm_response_get(response, sizeof view, &view));
        lasts += (size_t)view.last;
        OK(trtllm_response_destroy(response));
    }
    DONE("many_at_once");
}

static void cancel(trtllm_executor *executor) {
    static struct story story;
    trtllm_sampling sampling = greedy(900);
    trtllm_response *response;
    uint64_t id = 0;
    memset(&story, 0, sizeof story);
    OK(trtllm_executor_submit_text(executor, PROMPT, &sampling, &id));
    OK(trtllm_executor_await(executor, id, TRTLLM_WAIT_FOREVER, &response));
    OK(trtllm_response_destroy(response));
    OK(trtllm_executor_cancel(executor, id));
    do {
        trtllm_response_view view;
        OK(trtllm_executor_await(executor, id, TRTLLM_WAIT_FOREVER, &response));
        OK(trtllm_response_get(response, sizeof view, &view));
        story.lasts += view.last;
        story.finish_reason = view.finish_reason;
        OK(trtllm_response_destroy(response));
    } while (story.lasts == 0);
    CHECK(story.finish_reason == TRTLLM_FINISH_REASON_CANCELLED);
    OK(trtllm_executor_cancel(executor, id));
    FAILS(trtllm_executor_cancel(executor, 1u << 30), NOT_FOUND, "request 1073741824");
    FAILS(trtllm_executor_await(executor, id, 0, &response), NOT_FOUND, "");
    DONE("cancel");
}

static void time_limit(trtllm_executor *executor) {
    trtllm_request *request = greedy_request(900);
    trtllm_response *response;
    trtllm_response_view view;
    uint64_t id = 0;
    OK(trtllm_request_set_stream(request, 0));
    OK(trtllm_request_set_time_limit(request, 1));
    OK(trtllm_executor_submit(executor, request, &id));
    OK(trtllm_executor_await(executor, id, TRTLLM_WAIT_FOREVER, &response));
    OK(trtllm_response_get(response, sizeof view, &view));
    CHECK(view.last == 1 && view.finish_reason == TRTLLM_FINISH_REASON_TIME_LIMIT);
    OK(trtllm_response_destroy(response));
    OK(trtllm_request_destroy(request));
    DONE("time_limit");
}

static void refuse(trtllm_executor *executor, trtllm_sampling sampling, const char *culprit) {
    uint64_t id = 77;
    FAILS(trtllm_executor_submit_text(executor, PROMPT, &sampling, &id), INVALID_ARGUMENT, culprit);
    CHECK(id == 77);
}

static void refused_at_submit(trtllm_executor *executor) {
    trtllm_request *request;
    uint32_t outside = 100000;
    uint64_t id = 77;
    trtllm_sampling sampling = greedy(8);
    sampling.temperature = NAN;
    refuse(executor, sampling, "temperature");
    sampling = greedy(8);
    sampling.min_tokens = 9;
    refuse(executor, sampling, "min_tokens");
    sampling = greedy(0);
    refuse(executor, sampling, "max_tokens");
    sampling = greedy(8);
    sampling.n = 0x80000000u;
    refuse(executor, sampling, "`n`");
    sampling = greedy(8);
    sampling.top_p = -1.0f;
    refuse(executor, sampling, "top_p");
    sampling.struct_size = 3;
    refuse(executor, sampling, "`sampling.struct_size`: is 3");
    OK(trtllm_request_create(&request));
    FAILS(trtllm_executor_submit(executor, request, &id), INVALID_ARGUMENT, "`request`: has no text");
    OK(trtllm_request_set_tokens(request, &outside, 1));
    FAILS(trtllm_executor_submit(executor, request, &id), INVALID_ARGUMENT, "100000");
    OK(trtllm_request_set_tokens(request, NULL, 0));
    FAILS(trtllm_executor_submit(executor, request, &id), INVALID_ARGUMENT, "no tokens");
    OK(trtllm_request_set_chat(request, "not json", 8));
    FAILS(trtllm_executor_submit(executor, request, &id), INVALID_ARGUMENT, "messages");
    OK(trtllm_request_destroy(request));
    FAILS(trtllm_executor_submit(executor, request, &id), INVALID_HANDLE, "was destroyed");
    FAILS(trtllm_executor_submit(executor, NULL, &id), INVALID_ARGUMENT, "`request`: is NULL");
    FAILS(trtllm_executor_submit_text(executor, NULL, NULL, &id), INVALID_ARGUMENT, "`text`: is NULL");
    FAILS(trtllm_executor_submit_text(executor, "\xc3(", NULL, &id), INVALID_ARGUMENT, "`text`: is not UTF-8");
    FAILS(trtllm_executor_submit_text(executor, PROMPT, NULL, NULL), INVALID_ARGUMENT, "`request_id`: is NULL");
    FAILS(trtllm_executor_submit_text(NULL, PROMPT, NULL, &id), INVALID_ARGUMENT, "`executor`: is NULL");
    CHECK(id == 77);
    DONE("refused_at_submit");
}

static void misuse_of_await(trtllm_executor *executor) {
    trtllm_response *response = UNTOUCHED;
    size_t count = 77;
    FAILS(trtllm_executor_await(executor, TRTLLM_ANY_REQUEST, 0, &response), TIMEOUT, "");
    FAILS(trtllm_executor_await(executor, TRTLLM_ANY_REQUEST, 5, &response), TIMEOUT, "");
    FAILS(trtllm_executor_await(executor, TRTLLM_ANY_REQUEST, -2, &response), INVALID_ARGUMENT, "`timeout_ms`: is -2");
    FAILS(trtllm_executor_await(executor, 1u << 30, TRTLLM_WAIT_FOREVER, &response), NOT_FOUND, "1073741824");
    FAILS(trtllm_executor_await(executor, TRTLLM_ANY_REQUEST, 0, NULL), INVALID_ARGUMENT, "`response`: is NULL");
    FAILS(trtllm_executor_await_many(executor, TRTLLM_ANY_REQUEST, 0, 0, &response, &count), INVALID_ARGUMENT,
          "`capacity`: is 0");
    FAILS(trtllm_executor_await_many(executor, TRTLLM_ANY_REQUEST, 0, 1, NULL, &count), INVALID_ARGUMENT,
          "`responses`: is NULL");
    FAILS(trtllm_executor_await_many(executor, TRTLLM_ANY_REQUEST, 0, 1, &response, NULL), INVALID_ARGUMENT,
          "`count`: is NULL");
    CHECK(response == UNTOUCHED && count == 77);
    DONE("misuse_of_await");
}

static void statistics(trtllm_executor *executor) {
    trtllm_executor_stats stats;
    char json[4096];
    size_t length = 0;
    OK(trtllm_executor_check_health(executor));
    OK(trtllm_executor_get_stats(executor, sizeof stats, &stats));
    CHECK(stats.iterations > 0 && stats.completed > 0 && stats.cancelled == 1 && stats.expired == 1);
    CHECK(stats.failed == 0 && stats.requests == 0 && stats.running == 0 && stats.waiting == 0);
    CHECK(stats.generated_tokens > 0 && stats.kv_blocks_used == 0 && stats.kv_blocks_free > 0);
    CHECK(stats.busy_ns >= stats.last_step_ns && stats.last_step_ns > 0);
    CHECK(stats.device_busy_ns >= stats.last_step_device_ns && stats.last_step_device_ns > 0);
    CHECK(stats.last_step_device_ns <= stats.last_step_ns && stats.device_busy_ns <= stats.busy_ns);
    CHECK(stats.device_idle_ns > 0);
    CHECK(stats.memory_bytes > 1000000);
    OK(trtllm_executor_iterations_json(executor, NULL, 0, &length));
    CHECK(length > 2);
    OK(trtllm_executor_stats_json(executor, json, sizeof json, &length));
    CHECK(strlen(json) == length && json[0] == '{' && strstr(json, "\"completed\"") != NULL);
    FAILS(trtllm_executor_get_stats(executor, 1, &stats), INVALID_ARGUMENT, "`stats_size`: is 1");
    FAILS(trtllm_executor_get_stats(executor, sizeof stats, NULL), INVALID_ARGUMENT, "`stats`: is NULL");
    DONE("statistics");
}

/* What a callback sees and tries. */
struct listener {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    trtllm_executor *executor;
    struct story story;
    uint64_t second;
    int freed;
};

static void listen(void *user_data, const trtllm_response *response) {
    struct listener *listener = user_data;
    pthread_mutex_lock(&listener->lock);
    FAILS(trtllm_executor_destroy(listener->executor), WOULD_DEADLOCK, "trtllm_executor_destroy");
    FAILS(trtllm_executor_shutdown(listener->executor), WOULD_DEADLOCK, "trtllm_executor_shutdown");
    OK(trtllm_executor_check_health(listener->executor));
    append(&listener->story, response);
    if (listener->second == 0) {
        trtllm_sampling sampling = greedy(900);
        OK(trtllm_executor_submit_text(listener->executor, PROMPT, &sampling, &listener->second));
        OK(trtllm_executor_cancel(listener->executor, listener->second));
    }
    pthread_cond_signal(&listener->changed);
    pthread_mutex_unlock(&listener->lock);
}

static void freed(void *user_data) {
    struct listener *listener = user_data;
    pthread_mutex_lock(&listener->lock);
    listener->freed++;
    pthread_cond_signal(&listener->changed);
    pthread_mutex_unlock(&listener->lock);
}

static void callback(trtllm_executor *executor) {
    static struct listener listener = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    static struct story other;
    trtllm_request *request = greedy_request(12);
    trtllm_response *response = UNTOUCHED;
    uint64_t id = 0;
    listener.executor = executor;
    OK(trtllm_request_set_callback(request, listen, &listener, freed));
    OK(trtllm_executor_submit(executor, request, &id));
    OK(trtllm_request_destroy(request));
    pthread_mutex_lock(&listener.lock);
    while (listener.freed == 0) pthread_cond_wait(&listener.changed, &listener.lock);
    CHECK(listener.freed == 1 && listener.story.lasts == 1 && listener.story.tokens == 12);
    CHECK(listener.second != 0 && listener.second != id);
    pthread_mutex_unlock(&listener.lock);
    CHECK(trtllm_executor_await(executor, id, 0, &response) != TRTLLM_STATUS_OK && response == UNTOUCHED);
    read_story(executor, listener.second, &other);
    CHECK(other.finish_reason == TRTLLM_FINISH_REASON_CANCELLED);
    DONE("callback");
}

static void full_queue(trtllm_engine *engine) {
    trtllm_executor_config config = TRTLLM_EXECUTOR_CONFIG_INIT;
    trtllm_sampling sampling = greedy(900);
    trtllm_executor *executor;
    uint64_t id = 77;
    config.max_batch_size = 1;
    config.max_queue = 1;
    OK(trtllm_executor_create(engine, &config, &executor));
    OK(trtllm_executor_submit_text(executor, PROMPT, &sampling, &id));
    OK(trtllm_executor_submit_text(executor, PROMPT, &sampling, &id));
    id = 77;
    FAILS(trtllm_executor_submit_text(executor, PROMPT, &sampling, &id), QUEUE_FULL, "");
    CHECK(id == 77);
    OK(trtllm_executor_destroy(executor));
    DONE("full_queue");
}

static void *wait_for_any(void *argument) {
    trtllm_response *response;
    for (;;) {
        trtllm_status status = trtllm_executor_await(argument, TRTLLM_ANY_REQUEST, TRTLLM_WAIT_FOREVER, &response);
        if (status != TRTLLM_STATUS_OK) return (void *)(size_t)status;
        OK(trtllm_response_destroy(response));
    }
}

static void destroy_while_others_wait(trtllm_engine *engine) {
    trtllm_executor *executor;
    trtllm_sampling sampling = greedy(900);
    pthread_t waiters[2];
    uint64_t id;
    OK(trtllm_executor_create(engine, NULL, &executor));
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&waiters[i], NULL, wait_for_any, executor) == 0);
    OK(trtllm_executor_submit_text(executor, PROMPT, &sampling, &id));
    OK(trtllm_executor_destroy(executor));
    for (int i = 0; i < 2; i++) {
        void *status;
        CHECK(pthread_join(waiters[i], &status) == 0);
        CHECK((size_t)status == TRTLLM_STATUS_SHUTTING_DOWN || (size_t)status == TRTLLM_STATUS_INVALID_HANDLE);
    }
    DONE("destroy_while_others_wait");
}

static void shutdown_and_destroy(trtllm_executor *executor) {
    static struct story story;
    trtllm_sampling sampling = greedy(900);
    trtllm_response *response;
    uint64_t id = 0, refused = 77;
    OK(trtllm_executor_submit_text(executor, PROMPT, &sampling, &id));
    OK(trtllm_executor_shutdown(executor));
    OK(trtllm_executor_shutdown(executor));
    FAILS(trtllm_executor_submit_text(executor, PROMPT, &sampling, &refused), SHUTTING_DOWN, "");
    FAILS(trtllm_executor_check_health(executor), SHUTTING_DOWN, "");
    CHECK(refused == 77);
    read_story(executor, id, &story);
    CHECK(story.finish_reason == TRTLLM_FINISH_REASON_CANCELLED);
    FAILS(trtllm_executor_await(executor, TRTLLM_ANY_REQUEST, TRTLLM_WAIT_FOREVER, &response), SHUTTING_DOWN, "");
    OK(trtllm_executor_destroy(executor));
    FAILS(trtllm_executor_destroy(executor), INVALID_HANDLE, "was destroyed");
    FAILS(trtllm_executor_submit_text(executor, PROMPT, NULL, &refused), INVALID_HANDLE, "was destroyed");
    OK(trtllm_executor_destroy(NULL));
    DONE("shutdown_and_destroy");
}

int main(int argc, char **argv) {
    trtllm_engine *engine = loaded_engine(argc, argv);
    trtllm_executor *executor;
    macro_and_function_agree();
    misuse_of_create(engine);
    full_queue(engine);
    destroy_while_others_wait(engine);
    OK(trtllm_executor_create(engine, NULL, &executor));
    text_by_pull(executor);
    tokens_and_chat(engine, executor);
    /* What was made from an engine keeps it alive. */
    OK(trtllm_engine_destroy(engine));
    stop_string(executor);
    several_sequences(executor);
    many_at_once(executor);
    cancel(executor);
    time_limit(executor);
    refused_at_submit(executor);
    misuse_of_await(executor);
    statistics(executor);
    callback(executor);
    shutdown_and_destroy(executor);
    return 0;
}
