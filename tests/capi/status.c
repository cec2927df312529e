/* Status codes, their names, and the last error. */
#include "check.h"

static void names(void) {
    CHECK(strcmp(trtllm_status_name(TRTLLM_STATUS_OK), "OK") == 0);
    CHECK(strcmp(trtllm_status_name(TRTLLM_STATUS_INVALID_ARGUMENT), "INVALID_ARGUMENT") == 0);
    CHECK(strcmp(trtllm_status_name(TRTLLM_STATUS_PANIC), "PANIC") == 0);
    CHECK(strcmp(trtllm_status_name(12345), "UNKNOWN") == 0);
    CHECK(strcmp(trtllm_status_name(-1), "UNKNOWN") == 0);
    DONE("names");
}

static void last_error(void) {
    CHECK(trtllm_last_error_status() == TRTLLM_STATUS_OK);
    CHECK(strcmp(trtllm_last_error_message(), "") == 0);
    FAILS(trtllm_request_create(NULL), INVALID_ARGUMENT, "`request`: is NULL");
    OK(trtllm_request_destroy(NULL));
    CHECK(trtllm_last_error_status() == TRTLLM_STATUS_INVALID_ARGUMENT);
    DONE("last_error");
}

int main(void) {
    names();
    last_error();
    return 0;
}
