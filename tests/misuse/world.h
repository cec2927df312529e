/* The world of the generated misuse: one living object of each type, memory that ends where nothing may be touched, and
 * the judgement of each case. */
#ifndef WORLD_H
#define WORLD_H

#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"

/* The case that runs, for whoever reads a failure. */
static const char *case_function = "start", *case_parameter = "", *case_misuse = "";
static long cases;

static inline void begin(const char *function, const char *parameter, const char *misuse) {
    case_function = function;
    case_parameter = parameter;
    case_misuse = misuse;
    cases++;
}

static inline void wrong(const char *what) {
    fprintf(stderr, "%s, %s: %s: %s\n  last error: %s: %s\n", case_function, case_parameter, case_misuse, what,
            trtllm_status_name(trtllm_last_error_status()), trtllm_last_error_message());
    exit(1);
}

/* A signal is a failure too: the library touched what it must not, or hangs. */
static void died(int signal) {
    fprintf(stderr, "%s, %s: %s: signal %d\n", case_function, case_parameter, case_misuse, signal);
    _exit(1);
}

/* Memory: arguments and results end where a page begins that can be neither read nor written. */
enum { AREAS = 12, AREA_BYTES = 1 << 19, PAGE = 4096, PATTERN = 0x5a, BEFORE = 64, BUFFER = 1 << 18 };

struct area {
    unsigned char *end;
    size_t size;
};

static struct area inputs[AREAS], outputs[AREAS];
static size_t inputs_used, outputs_used;
static unsigned char pattern[AREA_BYTES];

static inline unsigned char *guarded(size_t size) {
    unsigned char *start = mmap(NULL, size + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(start != MAP_FAILED && size % PAGE == 0 && mprotect(start + size, PAGE, PROT_NONE) == 0);
    return start + size;
}

/* `size` bytes that a function may read, and not one more. */
static inline void *input(const void *bytes, size_t size) {
    CHECK(inputs_used < AREAS && size <= AREA_BYTES);
    unsigned char *start = inputs[inputs_used++].end - size;
    memcpy(start, bytes, size);
    return start;
}

/* `size` bytes that a function may write, and not one more; their content tells whether it did. */
static inline void *output(size_t size) {
    CHECK(outputs_used < AREAS && size <= AREA_BYTES - BEFORE);
    struct area *area = &outputs[outputs_used++];
    area->size = size;
    return area->end - size;
}

static inline void untouched(void) {
    for (size_t i = 0; i < outputs_used; i++) {
        size_t size = outputs[i].size + BEFORE;
        if (memcmp(outputs[i].end - size, pattern, size) != 0) wrong("an output was touched");
    }
}

/* Objects. */
enum kind { ENGINE, EXECUTOR, NETWORK, REQUEST, RESPONSE, TOKENIZER, KINDS };

static struct {
    const char *checkpoint;
    char engine_path[4096], build_path[4096];
    trtllm_engine *engine;
    trtllm_executor *executor;
    trtllm_network *network;
    trtllm_request *request;
    trtllm_response *response;
    trtllm_tokenizer *tokenizer;
    void *destroyed[KINDS];
    uintptr_t on_the_stack;
    char story[1024];
} world;

static const char PROMPT[] = "Once upon a time", MESSAGES[] = "[{\"role\": \"user\", \"content\": \"Hello\"}]";

static inline trtllm_sampling greedy(uint32_t tokens) {
    trtllm_sampling sampling = TRTLLM_SAMPLING_INIT;
    sampling.max_tokens = tokens;
    sampling.ignore_eos = 1;
    return sampling;
}

/* The id of a request that ends in one response. */
static inline uint64_t submitted(void) {
    trtllm_sampling sampling = greedy(1);
    uint64_t id;
    OK(trtllm_executor_submit_text(world.executor, PROMPT, &sampling, &id));
    return id;
}

/* Takes what is left of a request; its text goes to `text`, which may be NULL. */
static inline void finish(uint64_t id, char *text) {
    int32_t last = 0;
    while (!last) {
        trtllm_response *response;
        trtllm_response_view view;
        OK(trtllm_executor_await(world.executor, id, TRTLLM_WAIT_FOREVER, &response));
        OK(trtllm_response_get(response, sizeof view, &view));
        if (text != NULL) strcat(text, view.text);
        last = view.last;
        OK(trtllm_response_destroy(response));
    }
}

static inline trtllm_engine *spare_engine(void) {
    trtllm_engine *engine;
    OK(trtllm_engine_load(world.engine_path, NULL, &engine));
    return engine;
}

static inline trtllm_executor *spare_executor(void) {
    trtllm_executor_config config = TRTLLM_EXECUTOR_CONFIG_INIT;
    trtllm_executor *executor;
    config.max_batch_size = 2;
    config.max_batch_tokens = 32;
    config.kv_tokens = 256;
    config.threads = 1;
    OK(trtllm_executor_create(world.engine, &config, &executor));
    return executor;
}

static inline trtllm_network *spare_network(void) {
    trtllm_network *network;
    OK(trtllm_network_from_checkpoint(world.checkpoint, &network));
    return network;
}

static inline trtllm_request *spare_request(void) {
    trtllm_sampling sampling = greedy(1);
    trtllm_request *request;
    OK(trtllm_request_create(&request));
    OK(trtllm_request_set_text(request, PROMPT, strlen(PROMPT)));
    OK(trtllm_request_set_sampling(request, &sampling));
    return request;
}

static inline trtllm_response *spare_response(void) {
    trtllm_response *response;
    OK(trtllm_executor_await(world.executor, submitted(), TRTLLM_WAIT_FOREVER, &response));
    return response;
}

static inline trtllm_tokenizer *spare_tokenizer(void) {
    trtllm_tokenizer *tokenizer;
    OK(trtllm_tokenizer_create(world.engine, &tokenizer));
    return tokenizer;
}

static inline void *living(size_t kind) {
    void *handles[KINDS] = {world.engine,  world.executor, world.network,
                            world.request, world.response, world.tokenizer};
    return handles[kind];
}

/* Forgets the arguments of the case before. */
static inline void reset(void) {
    inputs_used = outputs_used = 0;
}

/* After a call that succeeded: outputs and changed objects are as new. */
static inline void renew(void) {
    for (size_t i = 0; i < outputs_used; i++) {
        size_t size = outputs[i].size + BEFORE;
        memset(outputs[i].end - size, PATTERN, size);
    }
    reset();
    OK(trtllm_request_destroy(world.request));
    world.request = spare_request();
}

/* What the valid objects say: the same before, between and after all misuse. */
static inline void tell(char *text) {
    trtllm_sampling sampling = greedy(12);
    uint64_t id;
    OK(trtllm_executor_submit_text(world.executor, PROMPT, &sampling, &id));
    text[0] = '\0';
    finish(id, text);
}

static inline void still_works(void) {
    char story[1024];
    begin(case_function, "all", "the same text afterwards");
    tell(story);
    if (strcmp(story, world.story) != 0) wrong("the objects do not work as before");
}

/* Judgement. */
static inline void refused(trtllm_status got, trtllm_status expected, const char *culprit) {
    if (got != expected) {
        fprintf(stderr, "expected %s, got %s\n", trtllm_status_name(expected), trtllm_status_name(got));
        wrong("another status");
    }
    if (trtllm_last_error_status() != got) wrong("the last error has another status");
    if (strstr(trtllm_last_error_message(), culprit) == NULL) wrong(culprit);
    untouched();
}

static inline void accepted(trtllm_status got) {
    if (got != TRTLLM_STATUS_OK) wrong("refused");
}

/* A request takes some values and is refused for them when it is submitted. */
static inline void refused_now_or_later(trtllm_status got, trtllm_status expected, const char *culprit) {
    uint64_t *id = output(sizeof *id);
    if (got == TRTLLM_STATUS_OK) got = trtllm_executor_submit(world.executor, world.request, id);
    refused(got, expected, culprit);
    renew();
}

static inline void create_world(int argc, char **argv) {
    const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGALRM};
    CHECK(argc == 4);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) signal(signals[i], died);
    alarm((unsigned)atoi(argv[3]));
    memset(pattern, PATTERN, sizeof pattern);
    for (size_t i = 0; i < AREAS; i++) {
        inputs[i].end = guarded(AREA_BYTES);
        outputs[i].end = guarded(AREA_BYTES);
        memset(outputs[i].end - AREA_BYTES, PATTERN, AREA_BYTES);
    }
    world.checkpoint = argv[1];
    world.on_the_stack = (uintptr_t)argv;
    CHECK((size_t)snprintf(world.engine_path, sizeof world.engine_path, "%s/model.engine", argv[2]) < 4096);
    CHECK((size_t)snprintf(world.build_path, sizeof world.build_path, "%s/built.engine", argv[2]) < 4096);
    OK(trtllm_build(world.checkpoint, world.engine_path, NULL));
    world.engine = spare_engine();
    world.executor = spare_executor();
    world.network = spare_network();
    world.request = spare_request();
    world.response = spare_response();
    world.tokenizer = spare_tokenizer();
    OK(trtllm_engine_destroy(world.destroyed[ENGINE] = spare_engine()));
    OK(trtllm_executor_destroy(world.destroyed[EXECUTOR] = spare_executor()));
    OK(trtllm_network_destroy(world.destroyed[NETWORK] = spare_network()));
    OK(trtllm_request_destroy(world.destroyed[REQUEST] = spare_request()));
    OK(trtllm_response_destroy(world.destroyed[RESPONSE] = spare_response()));
    OK(trtllm_tokenizer_destroy(world.destroyed[TOKENIZER] = spare_tokenizer()));
    tell(world.story);
    CHECK(strlen(world.story) > 12);
}

static inline void destroy_world(void) {
    trtllm_executor_stats stats;
    still_works();
    OK(trtllm_executor_check_health(world.executor));
    OK(trtllm_executor_get_stats(world.executor, sizeof stats, &stats));
    CHECK(stats.requests == 0 && stats.running == 0 && stats.waiting == 0 && stats.failed == 0);
    CHECK(stats.kv_blocks_used == 0);
    OK(trtllm_engine_destroy(world.engine));
    OK(trtllm_executor_destroy(world.executor));
    OK(trtllm_network_destroy(world.network));
    OK(trtllm_request_destroy(world.request));
    OK(trtllm_response_destroy(world.response));
    OK(trtllm_tokenizer_destroy(world.tokenizer));
    printf("%ld cases\n", cases);
}

#endif
