/* Networks: the graph of a checkpoint before and after the passes. */
#include "check.h"

static char *text_of(const trtllm_network *network) {
    size_t length = 0;
    char *text;
    OK(trtllm_network_text(network, NULL, 0, &length));
    text = malloc(length + 1);
    CHECK(text != NULL);
    OK(trtllm_network_text(network, text, length + 1, &length));
    CHECK(strlen(text) == length);
    return text;
}

static void passes_change_it(const char *checkpoint) {
    trtllm_network *network;
    char *before, *after;
    size_t length = 0;
    char first[8];
    OK(trtllm_network_from_checkpoint(checkpoint, &network));
    before = text_of(network);
    OK(trtllm_network_run_passes(network, NULL, 0));
    after = text_of(network);
    CHECK(strlen(before) > 100 && strlen(after) > 100 && strcmp(before, after) != 0);
    FAILS(trtllm_network_dot(network, first, sizeof first, &length), BUFFER_TOO_SMALL, "`buffer`");
    CHECK(length > 100);
    free(before);
    free(after);
    OK(trtllm_network_destroy(network));
    FAILS(trtllm_network_dot(network, NULL, 0, &length), INVALID_HANDLE, "was destroyed");
    DONE("passes_change_it");
}

static void disabled_passes(const char *checkpoint) {
    trtllm_network *one, *other;
    const char *disabled[] = {"qkv"}, *unknown[] = {"no_such_pass"};
    char *left, *right;
    OK(trtllm_network_from_checkpoint(checkpoint, &one));
    OK(trtllm_network_from_checkpoint(checkpoint, &other));
    left = text_of(one);
    FAILS(trtllm_network_run_passes(one, unknown, 1), INVALID_ARGUMENT, "no_such_pass");
    right = text_of(one);
    CHECK(strcmp(left, right) == 0);
    free(left);
    free(right);
    OK(trtllm_network_run_passes(one, NULL, 0));
    OK(trtllm_network_run_passes(other, disabled, 1));
    left = text_of(one);
    right = text_of(other);
    CHECK(strcmp(left, right) != 0);
    free(left);
    free(right);
    OK(trtllm_network_destroy(one));
    OK(trtllm_network_destroy(other));
    DONE("disabled_passes");
}

static void config_alone(const char *checkpoint) {
    char json[4096];
    trtllm_network *network;
    char *text;
    CHECK((size_t)snprintf(json, sizeof json, "%s/config.json", checkpoint) < sizeof json);
    OK(trtllm_network_from_checkpoint(json, &network));
    text = text_of(network);
    CHECK(strlen(text) > 100);
    free(text);
    OK(trtllm_network_destroy(network));
    DONE("config_alone");
}

static void misuse(const char *checkpoint) {
    trtllm_network *network = UNTOUCHED;
    size_t length = 77;
    FAILS(trtllm_network_from_checkpoint(NULL, &network), INVALID_ARGUMENT, "`checkpoint_path`: is NULL");
    FAILS(trtllm_network_from_checkpoint(checkpoint, NULL), INVALID_ARGUMENT, "`network`: is NULL");
    FAILS(trtllm_network_from_checkpoint("/no/such/folder", &network), NOT_FOUND, "/no/such/folder");
    CHECK(network == UNTOUCHED);
    OK(trtllm_network_from_checkpoint(checkpoint, &network));
    FAILS(trtllm_network_run_passes(network, NULL, 1), INVALID_ARGUMENT, "`disabled_passes`: is NULL");
    FAILS(trtllm_network_run_passes(network, NULL, SIZE_MAX), INVALID_ARGUMENT, "`disabled_passes`: has length");
    FAILS(trtllm_network_text(NULL, NULL, 0, &length), INVALID_ARGUMENT, "`network`: is NULL");
    FAILS(trtllm_network_text(network, NULL, 0, NULL), INVALID_ARGUMENT, "`length`: is NULL");
    CHECK(length == 77);
    OK(trtllm_network_destroy(network));
    OK(trtllm_network_destroy(NULL));
    FAILS(trtllm_network_destroy(network), INVALID_HANDLE, "was destroyed");
    DONE("misuse");
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    passes_change_it(argv[1]);
    disabled_passes(argv[1]);
    config_alone(argv[1]);
    misuse(argv[1]);
    return 0;
}
