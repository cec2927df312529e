/* Checks of the C tests. A test is a program: it prints `ok NAME` for each case and stops at the first check that
 * fails. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trtllm.h"

/* `condition` holds. */
#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                        \
        }                                                                   \
    } while (0)

/* `call` succeeds. */
#define OK(call)                                                                                          \
    do {                                                                                                  \
        trtllm_status got_ = (call);                                                                      \
        if (got_ != TRTLLM_STATUS_OK) {                                                                   \
            fprintf(stderr, "%s:%d: %s\n  %s: %s\n", __FILE__, __LINE__, #call, trtllm_status_name(got_), \
                    trtllm_last_error_message());                                                         \
            exit(1);                                                                                      \
        }                                                                                                 \
    } while (0)

/* `call` fails with TRTLLM_STATUS_`status`, and its message names `culprit`. */
#define FAILS(call, status, culprit)                                                                             \
    do {                                                                                                         \
        trtllm_status got_ = (call);                                                                             \
        const char *why_ = trtllm_last_error_message();                                                          \
        if (got_ != TRTLLM_STATUS_##status || strstr(why_, (culprit)) == NULL) {                                 \
            fprintf(stderr, "%s:%d: %s\n  %s: %s\n", __FILE__, __LINE__, #call, trtllm_status_name(got_), why_); \
            exit(1);                                                                                             \
        }                                                                                                        \
        CHECK(trtllm_last_error_status() == got_);                                                               \
    } while (0)

/* The case `name` is done. */
#define DONE(name) printf("ok %s\n", name)

/* A value that outputs hold before a call, to see that a failure leaves them alone. */
#define UNTOUCHED ((void *)(size_t)0x5a5a5a5a)

/* The handle of a type that the function under test does not want. */
#define WRONG(type, handle) ((type *)(void *)(handle))

/* argv[1] is a checkpoint, argv[2] an empty folder: builds the engine file there once and returns its path. */
static inline const char *built_engine(int argc, char **argv) {
    static char path[4096];
    CHECK(argc == 3);
    CHECK((size_t)snprintf(path, sizeof path, "%s/model.engine", argv[2]) < sizeof path);
    OK(trtllm_build(argv[1], path, NULL));
    return path;
}

/* As built_engine, loaded. */
static inline trtllm_engine *loaded_engine(int argc, char **argv) {
    trtllm_engine *engine = NULL;
    OK(trtllm_engine_load(built_engine(argc, argv), NULL, &engine));
    return engine;
}

#endif
