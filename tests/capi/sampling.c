/* Sampling parameters: the macro, the function and versions of the struct. */
#include "check.h"

static void macro_and_function_agree(void) {
    trtllm_sampling macro = TRTLLM_SAMPLING_INIT, function;
    memset(&function, 0x5a, sizeof function);
    OK(trtllm_sampling_init(sizeof function, &function));
    CHECK(memcmp(&macro, &function, sizeof macro) == 0);
    DONE("macro_and_function_agree");
}

static void misuse(void) {
    trtllm_sampling sampling;
    unsigned char before[sizeof sampling];
    memset(&sampling, 0x5a, sizeof sampling);
    memcpy(before, &sampling, sizeof sampling);
    FAILS(trtllm_sampling_init(sizeof sampling, NULL), INVALID_ARGUMENT, "`sampling`: is NULL");
    FAILS(trtllm_sampling_init(8, &sampling), INVALID_ARGUMENT, "`struct_size`");
    FAILS(trtllm_sampling_init(0, &sampling), INVALID_ARGUMENT, "`struct_size`");
    FAILS(trtllm_sampling_init(SIZE_MAX, &sampling), INVALID_ARGUMENT, "`struct_size`");
    CHECK(memcmp(&sampling, before, sizeof sampling) == 0);
    DONE("misuse");
}

static void newer_and_older_structs(void) {
    struct {
        trtllm_sampling known;
        unsigned char later[16];
    } newer;
    trtllm_request *request;
    OK(trtllm_request_create(&request));
    memset(&newer, 0x5a, sizeof newer);
    OK(trtllm_sampling_init(sizeof newer, &newer.known));
    CHECK(newer.known.struct_size == sizeof newer && newer.later[0] == 0 && newer.later[15] == 0);
    OK(trtllm_request_set_sampling(request, &newer.known));
    newer.later[3] = 1;
    FAILS(trtllm_request_set_sampling(request, &newer.known), INVALID_ARGUMENT, "`sampling`: byte 67");
    newer.known.struct_size = sizeof newer.known;
    OK(trtllm_request_set_sampling(request, &newer.known));
    newer.known.struct_size = 0;
    FAILS(trtllm_request_set_sampling(request, &newer.known), INVALID_ARGUMENT, "`sampling.struct_size`");
    newer.known.struct_size = 1 << 20;
    FAILS(trtllm_request_set_sampling(request, &newer.known), INVALID_ARGUMENT, "`sampling.struct_size`");
    OK(trtllm_request_destroy(request));
    DONE("newer_and_older_structs");
}

static void bad_fields(void) {
    trtllm_sampling sampling = TRTLLM_SAMPLING_INIT;
    trtllm_request *request;
    OK(trtllm_request_create(&request));
    sampling.ignore_eos = 2;
    FAILS(trtllm_request_set_sampling(request, &sampling), INVALID_ARGUMENT, "`sampling.ignore_eos`: is 2");
    sampling.ignore_eos = 1;
    sampling.logprobs = -2;
    FAILS(trtllm_request_set_sampling(request, &sampling), INVALID_ARGUMENT, "`sampling.logprobs`: is -2");
    OK(trtllm_request_destroy(request));
    DONE("bad_fields");
}

int main(void) {
    macro_and_function_agree();
    misuse();
    newer_and_older_structs();
    bad_fields();
    return 0;
}
