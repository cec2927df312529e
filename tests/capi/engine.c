/* Engines: load, look at, misuse. */
#include "check.h"

static void macro_and_function_agree(void) {
    trtllm_engine_config macro = TRTLLM_ENGINE_CONFIG_INIT, function;
    memset(&function, 0x5a, sizeof function);
    OK(trtllm_engine_config_init(sizeof function, &function));
    CHECK(memcmp(&macro, &function, sizeof macro) == 0);
    FAILS(trtllm_engine_config_init(sizeof function, NULL), INVALID_ARGUMENT, "`config`: is NULL");
    DONE("macro_and_function_agree");
}

static void misuse(const char *path, const char *folder) {
    trtllm_engine_config config = TRTLLM_ENGINE_CONFIG_INIT;
    trtllm_engine *engine = UNTOUCHED;
    char text[8] = "before";
    size_t length = 77;
    FAILS(trtllm_engine_load(NULL, NULL, &engine), INVALID_ARGUMENT, "`path`: is NULL");
    FAILS(trtllm_engine_load(path, NULL, NULL), INVALID_ARGUMENT, "`engine`: is NULL");
    FAILS(trtllm_engine_load("/no/such/engine", NULL, &engine), NOT_FOUND, "/no/such/engine");
    CHECK(trtllm_engine_load(folder, NULL, &engine) != TRTLLM_STATUS_OK);
    config.load_mode = 9;
    FAILS(trtllm_engine_load(path, &config, &engine), INVALID_ARGUMENT, "`config.load_mode`: 9");
    config.load_mode = TRTLLM_LOAD_MODE_READ;
    config.verify_weights = 3;
    FAILS(trtllm_engine_load(path, &config, &engine), INVALID_ARGUMENT, "`config.verify_weights`: is 3");
    config.struct_size = 4;
    FAILS(trtllm_engine_load(path, &config, &engine), INVALID_ARGUMENT, "`config.struct_size`: is 4");
    FAILS(trtllm_engine_inspect_file("/no/such/engine", text, sizeof text, &length), NOT_FOUND, "/no/such/engine");
    FAILS(trtllm_engine_inspect_file(path, text, sizeof text, NULL), INVALID_ARGUMENT, "`length`: is NULL");
    FAILS(trtllm_engine_inspect_file(path, NULL, 5, &length), INVALID_ARGUMENT, "`buffer`: is NULL");
    CHECK(engine == UNTOUCHED && length == 77 && strcmp(text, "before") == 0);
    DONE("misuse");
}

static void corrupt_file(const char *path, const char *folder) {
    trtllm_engine *engine = UNTOUCHED;
    char copy[4096];
    FILE *from = fopen(path, "rb"), *to;
    int byte;
    CHECK((size_t)snprintf(copy, sizeof copy, "%s/truncated.engine", folder) < sizeof copy);
    to = fopen(copy, "wb");
    CHECK(from != NULL && to != NULL);
    for (int i = 0; i < 5000 && (byte = fgetc(from)) != EOF; i++) fputc(byte, to);
    fclose(from);
    fclose(to);
    FAILS(trtllm_engine_load(copy, NULL, &engine), CORRUPT, "truncated.engine");
    CHECK(engine == UNTOUCHED);
    DONE("corrupt_file");
}

static int32_t refuse(void *user_data, const char *phase, double fraction) {
    CHECK(phase[0] != '\0' && fraction >= 0.0 && fraction <= 1.0);
    ++*(int *)user_data;
    return 1;
}

static void cancelled_load(const char *path) {
    trtllm_engine_config config = TRTLLM_ENGINE_CONFIG_INIT;
    trtllm_engine *engine = UNTOUCHED;
    int calls = 0;
    config.progress = refuse;
    config.user_data = &calls;
    FAILS(trtllm_engine_load(path, &config, &engine), CANCELLED, "cancelled");
    CHECK(calls >= 1 && engine == UNTOUCHED);
    DONE("cancelled_load");
}

static void information(const char *path) {
    trtllm_engine_config config = TRTLLM_ENGINE_CONFIG_INIT;
    trtllm_engine *mapped, *read;
    trtllm_engine_info info, again;
    trtllm_sampling sampling;
    OK(trtllm_engine_load(path, NULL, &mapped));
    config.load_mode = TRTLLM_LOAD_MODE_READ;
    OK(trtllm_engine_load(path, &config, &read));
    OK(trtllm_engine_get_info(mapped, sizeof info, &info));
    CHECK(strcmp(info.architecture, "LlamaForCausalLM") == 0);
    CHECK(info.eos_token_count == 2 && info.eos_tokens[0] != info.eos_tokens[1] && info.bos_token == 0);
    CHECK(info.vocab_size == 1000 && info.hidden_size == 256 && info.layers == 4);
    CHECK(info.precision == TRTLLM_PRECISION_BF16 && info.target == TRTLLM_TARGET_CPU && info.weight_bytes > 1000000);
    CHECK(info.kv_bytes_per_token == 2 * 4 * 2 * 64 * 2 && info.kv_precision == TRTLLM_PRECISION_BF16);
    CHECK(info.head_precision == TRTLLM_PRECISION_BF16);
    OK(trtllm_engine_get_info(read, sizeof again, &again));
    CHECK(again.weight_bytes == info.weight_bytes);
    FAILS(trtllm_engine_get_info(mapped, 8, &again), INVALID_ARGUMENT, "`info_size`: is 8");
    FAILS(trtllm_engine_get_info(mapped, sizeof info, NULL), INVALID_ARGUMENT, "`info`: is NULL");
    FAILS(trtllm_engine_get_info(NULL, sizeof info, &info), INVALID_ARGUMENT, "`engine`: is NULL");
    OK(trtllm_engine_get_sampling(mapped, sizeof sampling, &sampling));
    CHECK(sampling.struct_size == sizeof sampling && sampling.temperature > 0.0f && sampling.top_k == 40);
    FAILS(trtllm_engine_get_sampling(mapped, sizeof sampling, NULL), INVALID_ARGUMENT, "`sampling`: is NULL");
    OK(trtllm_engine_destroy(mapped));
    FAILS(trtllm_engine_get_info(mapped, sizeof info, &info), INVALID_HANDLE, "was destroyed");
    FAILS(trtllm_engine_destroy(mapped), INVALID_HANDLE, "was destroyed");
    OK(trtllm_engine_destroy(read));
    DONE("information");
}

static void inspection(const char *path) {
    trtllm_engine *engine;
    size_t length = 0, again = 0;
    char *json;
    OK(trtllm_engine_inspect_file(path, NULL, 0, &length));
    CHECK(length > 100);
    json = malloc(length + 1);
    CHECK(json != NULL);
    json[0] = 'x';
    FAILS(trtllm_engine_inspect_file(path, json, length, &again), BUFFER_TOO_SMALL, "`buffer`");
    CHECK(again == length && json[0] == 'x');
    OK(trtllm_engine_inspect_file(path, json, length + 1, &again));
    CHECK(again == length && strlen(json) == length && json[0] == '{' && strstr(json, "\"steps\"") != NULL);
    OK(trtllm_engine_load(path, NULL, &engine));
    OK(trtllm_engine_inspect(engine, NULL, 0, &again));
    CHECK(again > 100);
    OK(trtllm_engine_destroy(engine));
    free(json);
    DONE("inspection");
}

int main(int argc, char **argv) {
    const char *path = built_engine(argc, argv);
    macro_and_function_agree();
    misuse(path, argv[2]);
    corrupt_file(path, argv[2]);
    cancelled_load(path);
    information(path);
    inspection(path);
    return 0;
}
