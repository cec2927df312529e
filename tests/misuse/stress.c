/* Threads that create, submit, cancel, await, shut down and destroy the same objects at random. Nothing hangs, every
 * handle is destroyed exactly once whoever tries, every accepted request with a callback gets exactly one last
 * response, user data is freed exactly once, and no thread is left.
 *
 *     stress CHECKPOINT FOLDER SECONDS SEED
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include "process.h"

enum { THREADS = 4, SLOTS = 3, PATIENCE = 60 };
enum kind { ENGINE, EXECUTOR, NETWORK, REQUEST, RESPONSE, TOKENIZER, KINDS };

static const char PROMPT[] = "Once upon a time";

static const char *checkpoint;
static char engine_path[4096];
/* What the threads share: handles, living or not. */
static _Atomic(void *) slots[KINDS][SLOTS];
static _Atomic uint64_t ids[SLOTS];
static atomic_long created[KINDS], destroyed[KINDS], calls, submissions, cancellations, taken, user_data_given,
    user_data_freed;
static atomic_int stop;

static uint32_t any(uint64_t *state, uint32_t below) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 33) % below;
}

/* Whether a call succeeded; everything that may come of racing calls is fine, everything else ends the test. */
static int came(trtllm_status status, const char *what) {
    calls++;
    switch (status) {
        case TRTLLM_STATUS_OK:
            return 1;
        case TRTLLM_STATUS_INVALID_HANDLE:
        case TRTLLM_STATUS_TIMEOUT:
        case TRTLLM_STATUS_NOT_FOUND:
        case TRTLLM_STATUS_QUEUE_FULL:
        case TRTLLM_STATUS_SHUTTING_DOWN:
        case TRTLLM_STATUS_WOULD_DEADLOCK:
            return 0;
        default:
            /* The request of an id that is awaited may have a callback, or a slot may be empty. */
            if (status == TRTLLM_STATUS_INVALID_ARGUMENT && (strstr(trtllm_last_error_message(), "is NULL") != NULL ||
                                                             strstr(trtllm_last_error_message(), "callback") != NULL))
                return 0;
            fprintf(stderr, "%s: %s: %s\n", what, trtllm_status_name(status), trtllm_last_error_message());
            exit(1);
    }
}

static trtllm_sampling greedy(uint32_t tokens) {
    trtllm_sampling sampling = TRTLLM_SAMPLING_INIT;
    sampling.max_tokens = tokens;
    sampling.ignore_eos = 1;
    return sampling;
}

/* Objects. */
static void *shared(enum kind kind, uint64_t *state) {
    return slots[kind][any(state, SLOTS)];
}

static void destroy(enum kind kind, void *handle) {
    trtllm_status status = TRTLLM_STATUS_OK;
    if (handle == NULL) return;
    switch (kind) {
        case ENGINE:
            status = trtllm_engine_destroy(handle);
            break;
        case EXECUTOR:
            status = trtllm_executor_destroy(handle);
            break;
        case NETWORK:
            status = trtllm_network_destroy(handle);
            break;
        case REQUEST:
            status = trtllm_request_destroy(handle);
            break;
        case RESPONSE:
            status = trtllm_response_destroy(handle);
            break;
        default:
            status = trtllm_tokenizer_destroy(handle);
    }
    destroyed[kind] += came(status, "destroy");
}

/* A new handle takes a random place; what stood there is destroyed, if nobody was faster. */
static void share(enum kind kind, void *handle, uint64_t *state) {
    created[kind]++;
    destroy(kind, atomic_exchange(&slots[kind][any(state, SLOTS)], handle));
}

static void create(enum kind kind, uint64_t *state) {
    void *handle = NULL;
    trtllm_executor_config config = TRTLLM_EXECUTOR_CONFIG_INIT;
    trtllm_status status = TRTLLM_STATUS_TIMEOUT;
    config.max_batch_size = 2;
    config.max_batch_tokens = 32;
    config.max_queue = 6;
    config.kv_tokens = 256;
    config.threads = 1;
    if (kind == ENGINE) status = trtllm_engine_load(engine_path, NULL, (trtllm_engine **)&handle);
    if (kind == NETWORK) status = trtllm_network_from_checkpoint(checkpoint, (trtllm_network **)&handle);
    if (kind == REQUEST) status = trtllm_request_create((trtllm_request **)&handle);
    if (kind == TOKENIZER) status = trtllm_tokenizer_create(shared(ENGINE, state), (trtllm_tokenizer **)&handle);
    if (kind == EXECUTOR) status = trtllm_executor_create(shared(ENGINE, state), &config, (trtllm_executor **)&handle);
    if (came(status, "create")) share(kind, handle, state);
}

/* User data of a request that one thread makes: the thread and the finalizer meet in it. */
struct listener {
    atomic_int lasts, accepted, meetings;
    uint64_t state;
};

/* Whoever comes second judges. */
static void meet(struct listener *listener) {
    if (atomic_fetch_add(&listener->meetings, 1) == 0) return;
    CHECK(listener->lasts == listener->accepted);
    free(listener);
}

static void freed(void *user_data) {
    user_data_freed++;
    meet(user_data);
}

static void listen(void *user_data, const trtllm_response *response) {
    struct listener *listener = user_data;
    trtllm_response_view view;
    OK(trtllm_response_get(response, sizeof view, &view));
    listener->lasts += view.last;
    trtllm_executor *executor = shared(EXECUTOR, &listener->state);
    if (any(&listener->state, 4) == 0) came(trtllm_executor_cancel(executor, view.request_id), "cancel in a callback");
    if (any(&listener->state, 16) == 0) CHECK(trtllm_executor_destroy(executor) == TRTLLM_STATUS_WOULD_DEADLOCK);
    if (any(&listener->state, 16) == 0) CHECK(trtllm_executor_shutdown(executor) == TRTLLM_STATUS_WOULD_DEADLOCK);
    if (any(&listener->state, 16) == 0) destroy(REQUEST, shared(REQUEST, &listener->state));
}

static void submit_with_callback(uint64_t *state) {
    trtllm_sampling sampling = greedy(1 + any(state, 8));
    struct listener *listener = calloc(1, sizeof *listener);
    trtllm_request *request;
    uint64_t id;
    CHECK(listener != NULL);
    listener->state = *state | 1;
    OK(trtllm_request_create(&request));
    OK(trtllm_request_set_text(request, PROMPT, strlen(PROMPT)));
    OK(trtllm_request_set_sampling(request, &sampling));
    OK(trtllm_request_set_callback(request, listen, listener, freed));
    user_data_given++;
    listener->accepted = came(trtllm_executor_submit(shared(EXECUTOR, state), request, &id), "submit");
    submissions += listener->accepted;
    OK(trtllm_request_destroy(request));
    meet(listener);
}

/* Requests and responses. */
static void submit(uint64_t *state) {
    trtllm_sampling sampling = greedy(1 + any(state, 12));
    trtllm_executor *executor = shared(EXECUTOR, state);
    trtllm_request *request = shared(REQUEST, state);
    uint64_t id = 0;
    int accepted = 0;
    if (any(state, 2) == 0) {
        accepted = came(trtllm_executor_submit_text(executor, PROMPT, &sampling, &id), "submit_text");
    } else if (came(trtllm_request_set_text(request, PROMPT, strlen(PROMPT)), "set_text") &&
               came(trtllm_request_set_sampling(request, &sampling), "set_sampling")) {
        accepted = came(trtllm_executor_submit(executor, request, &id), "submit");
    }
    submissions += accepted;
    if (accepted) ids[any(state, SLOTS)] = id;
}

static void await(uint64_t *state) {
    trtllm_executor *executor = shared(EXECUTOR, state);
    uint64_t id = any(state, 2) ? TRTLLM_ANY_REQUEST : (uint64_t)ids[any(state, SLOTS)];
    int64_t timeout = any(state, 8);
    trtllm_response *responses[4];
    size_t count = 1;
    if (any(state, 2) == 0) {
        if (!came(trtllm_executor_await(executor, id, timeout, responses), "await")) return;
    } else if (!came(trtllm_executor_await_many(executor, id, timeout, 4, responses, &count), "await_many")) {
        return;
    }
    taken += (long)count;
    for (size_t i = 0; i < count; i++) share(RESPONSE, responses[i], state);
}

static void look(uint64_t *state) {
    static const char *const no_pass[] = {"qkv"};
    trtllm_executor_stats stats;
    trtllm_request_stats times;
    trtllm_response_view view;
    uint32_t tokens[64];
    size_t length;
    char text[64];
    came(trtllm_executor_check_health(shared(EXECUTOR, state)), "check_health");
    came(trtllm_executor_get_stats(shared(EXECUTOR, state), sizeof stats, &stats), "get_stats");
    came(trtllm_response_get(shared(RESPONSE, state), sizeof view, &view), "response_get");
    came(trtllm_response_get_stats(shared(RESPONSE, state), sizeof times, &times), "response_get_stats");
    came(trtllm_network_text(shared(NETWORK, state), NULL, 0, &length), "network_text");
    if (any(state, 8) == 0) came(trtllm_network_run_passes(shared(NETWORK, state), no_pass, 1), "run_passes");
    trtllm_tokenizer *tokenizer = shared(TOKENIZER, state);
    came(trtllm_tokenizer_encode(tokenizer, PROMPT, strlen(PROMPT), 1, tokens, 64, &length), "encode");
    came(trtllm_tokenizer_decode(tokenizer, NULL, 0, 1, text, sizeof text, &length), "decode");
}

static void act(uint64_t *state) {
    uint32_t die = any(state, 100);
    if (die < 30) {
        submit(state);
    } else if (die < 50) {
        await(state);
    } else if (die < 60) {
        trtllm_status status = trtllm_executor_cancel(shared(EXECUTOR, state), ids[any(state, SLOTS)]);
        cancellations += came(status, "cancel");
    } else if (die < 72) {
        submit_with_callback(state);
    } else if (die < 80) {
        look(state);
    } else if (die < 82) {
        came(trtllm_executor_shutdown(shared(EXECUTOR, state)), "shutdown");
    } else if (die < 90) {
        enum kind kind = (enum kind)any(state, KINDS);
        destroy(kind, shared(kind, state));
    } else {
        create((enum kind)any(state, KINDS), state);
    }
}

static void *play(void *seed) {
    uint64_t state = (uintptr_t)seed * 0x9e3779b97f4a7c15u | 1;
    while (!stop) act(&state);
    return NULL;
}

/* Waits without an end for whatever comes; only the end of the executor frees it. */
static void *wait_forever(void *seed) {
    uint64_t state = (uintptr_t)seed * 0xd1342543de82ef95u | 1;
    while (!stop) {
        trtllm_response *response;
        trtllm_executor *executor = shared(EXECUTOR, &state);
        trtllm_status status = trtllm_executor_await(executor, TRTLLM_ANY_REQUEST, TRTLLM_WAIT_FOREVER, &response);
        if (came(status, "await without an end")) share(RESPONSE, response, &state);
    }
    return NULL;
}

static void hangs(int signal) {
    static const char text[] = "hang\n";
    (void)signal;
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(1);
}

int main(int argc, char **argv) {
    pthread_t players[THREADS], waiter;
    CHECK(argc == 5);
    unsigned seconds = (unsigned)atoi(argv[3]);
    uintptr_t seed = (uintptr_t)strtoull(argv[4], NULL, 10);
    signal(SIGALRM, hangs);
    alarm(seconds + PATIENCE);
    checkpoint = argv[1];
    CHECK((size_t)snprintf(engine_path, sizeof engine_path, "%s/model.engine", argv[2]) < sizeof engine_path);
    OK(trtllm_build(checkpoint, engine_path, NULL));
    uint64_t state = seed | 1;
    for (int kind = 0; kind < KINDS; kind++) create((enum kind)kind, &state);
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&players[i], NULL, play, (void *)(seed * 64 + i + 1)) == 0);
    CHECK(pthread_create(&waiter, NULL, wait_forever, (void *)(seed * 64 + 63)) == 0);
    nanosleep(&(struct timespec){.tv_sec = seconds}, NULL);
    stop = 1;
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(players[i], NULL) == 0);
    for (int i = 0; i < SLOTS; i++) destroy(EXECUTOR, atomic_exchange(&slots[EXECUTOR][i], NULL));
    CHECK(pthread_join(waiter, NULL) == 0);
    for (int kind = 0; kind < KINDS; kind++) {
        for (int i = 0; i < SLOTS; i++) destroy((enum kind)kind, slots[kind][i]);
        CHECK(created[kind] > 0 && created[kind] == destroyed[kind]);
    }
    CHECK(user_data_given > 0 && user_data_given == user_data_freed);
    CHECK(submissions > 0 && cancellations > 0 && taken > 0);
    CHECK(threads() == 1);
    printf("%ld calls, %ld executors, %ld requests, %ld cancelled, %ld responses\n", (long)calls,
           (long)created[EXECUTOR], (long)submissions, (long)cancellations, (long)taken);
    return 0;
}
