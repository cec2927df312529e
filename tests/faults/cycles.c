/* The whole life of engine and executor over and over, the library opened and closed each time: nothing grows.
 * argv: the library, an engine, how often. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>

#include "process.h"

/* A function of the library; its type is that of its declaration. */
#define FUNCTION(name) __typeof__(name) *name##_ = (__typeof__(name) *)dlsym(library, #name)

static void cycle(const char *path, const char *engine_path, int whole) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL);
    FUNCTION(trtllm_engine_load);
    FUNCTION(trtllm_engine_destroy);
    FUNCTION(trtllm_executor_create);
    FUNCTION(trtllm_executor_destroy);
    FUNCTION(trtllm_executor_submit_text);
    FUNCTION(trtllm_executor_await);
    FUNCTION(trtllm_response_get);
    FUNCTION(trtllm_response_destroy);
    if (whole) {
        trtllm_engine *engine;
        trtllm_executor *executor;
        trtllm_response_view view;
        trtllm_executor_config config = TRTLLM_EXECUTOR_CONFIG_INIT;
        trtllm_sampling sampling = TRTLLM_SAMPLING_INIT;
        uint64_t id;
        config.threads = 2, config.kv_tokens = 256, sampling.max_tokens = 2;
        CHECK(trtllm_engine_load_(engine_path, NULL, &engine) == TRTLLM_STATUS_OK);
        CHECK(trtllm_executor_create_(engine, &config, &executor) == TRTLLM_STATUS_OK);
        CHECK(trtllm_executor_submit_text_(executor, "Once", &sampling, &id) == TRTLLM_STATUS_OK);
        do {
            trtllm_response *response;
            CHECK(trtllm_executor_await_(executor, id, 20000, &response) == TRTLLM_STATUS_OK);
            CHECK(trtllm_response_get_(response, sizeof view, &view) == TRTLLM_STATUS_OK);
            CHECK(trtllm_response_destroy_(response) == TRTLLM_STATUS_OK);
        } while (!view.last);
        CHECK(trtllm_executor_destroy_(executor) == TRTLLM_STATUS_OK);
        CHECK(trtllm_engine_destroy_(engine) == TRTLLM_STATUS_OK);
    }
    CHECK(dlclose(library) == 0);
}

static int by_size(const void *a, const void *b) {
    long left = *(const long *)a, right = *(const long *)b;
    return (left > right) - (left < right);
}

static long median(long *numbers, int count) {
    qsort(numbers, (size_t)count, sizeof *numbers, by_size);
    return numbers[count / 2];
}

int main(int argc, char **argv) {
    CHECK(argc == 4);
    int cycles = atoi(argv[3]), warm = cycles / 5 + 5, window = warm / 2;
    /* One look may see a megabyte that goes back with the next life: windows are compared. */
    long *memory = calloc((size_t)(cycles + warm), sizeof *memory);
    int files = 0;
    CHECK(memory != NULL);
    for (int number = 0; number < cycles + warm; number++) {
        cycle(argv[1], argv[2], number % 10 != 9);
        memory[number] = resident();
        if (number + 1 == warm) files = entries("/proc/self/fd");
    }
    long growth = median(memory + cycles + warm - window, window) - median(memory + warm - window, window);
    free(memory);
    CHECK(threads() == 1 && entries("/proc/self/fd") == files);
    CHECK(growth <= 1024);
    printf("ok cycles: %d after the first %d, grown by %ld KiB, 1 thread, %d files\n", cycles, warm, growth, files);
    return 0;
}
