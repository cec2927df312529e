/* The version of the headers is that of the library. */
#include "check.h"

int main(void) {
    char text[32];
    CHECK(trtllm_version() == TRTLLM_VERSION_NUMBER);
    CHECK(TRTLLM_VERSION_NUMBER == (TRTLLM_VERSION_MAJOR << 16) + (TRTLLM_VERSION_MINOR << 8) + TRTLLM_VERSION_PATCH);
    snprintf(text, sizeof text, "%d.%d.%d", TRTLLM_VERSION_MAJOR, TRTLLM_VERSION_MINOR, TRTLLM_VERSION_PATCH);
    CHECK(strcmp(trtllm_version_string(), text) == 0);
    OK(trtllm_check_version(TRTLLM_VERSION_MAJOR, TRTLLM_VERSION_MINOR));
    FAILS(trtllm_check_version(TRTLLM_VERSION_MAJOR + 1, 0), UNSUPPORTED_VERSION, "compiled for");
    FAILS(trtllm_check_version(TRTLLM_VERSION_MAJOR, TRTLLM_VERSION_MINOR + 1), UNSUPPORTED_VERSION, "compiled for");
    DONE("version");
    return 0;
}
