/* Links, runs, and learns the reason of a failure. Returns 0 when all is as the headers say. */
#include <stdio.h>
#include <string.h>
#include <trtllm.h>

#define EXPECT(condition)                                                     \
    do {                                                                      \
        if (!(condition)) {                                                   \
            fprintf(stderr, "line %d: %s is not so\n", __LINE__, #condition); \
            fprintf(stderr, "last error: %s\n", trtllm_last_error_message()); \
            return 1;                                                         \
        }                                                                     \
    } while (0)

int main(void) {
    const char *prompt = "Once upon a time";
    trtllm_engine *engine = NULL;
    trtllm_request *request = NULL;

    EXPECT(trtllm_check_version(TRTLLM_VERSION_MAJOR, TRTLLM_VERSION_MINOR) == TRTLLM_STATUS_OK);
    EXPECT(trtllm_check_version(TRTLLM_VERSION_MAJOR + 1, 0) == TRTLLM_STATUS_UNSUPPORTED_VERSION);
    EXPECT(trtllm_version() == TRTLLM_VERSION_NUMBER);
    EXPECT(trtllm_engine_load("no/such.engine", NULL, &engine) == TRTLLM_STATUS_NOT_FOUND);
    EXPECT(engine == NULL);
    EXPECT(strstr(trtllm_last_error_message(), "no/such.engine") != NULL);
    EXPECT(trtllm_request_create(&request) == TRTLLM_STATUS_OK);
    EXPECT(trtllm_request_set_text(request, prompt, strlen(prompt)) == TRTLLM_STATUS_OK);
    EXPECT(trtllm_request_destroy(request) == TRTLLM_STATUS_OK);
    EXPECT(trtllm_request_destroy(request) == TRTLLM_STATUS_INVALID_HANDLE);
    printf("libtrtllm %s\n", trtllm_version_string());
    return 0;
}
