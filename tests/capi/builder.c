/* Building an engine: from the bundled checkpoint, with progress, cancelled, and misused. */
#include "check.h"

static char path[4096];

static int exists(const char *name) {
    FILE *file = fopen(name, "rb");
    if (file != NULL) fclose(file);
    return file != NULL;
}

static void macro_and_function_agree(void) {
    trtllm_build_config macro = TRTLLM_BUILD_CONFIG_INIT, function;
    memset(&function, 0x5a, sizeof function);
    OK(trtllm_build_config_init(sizeof function, &function));
    CHECK(memcmp(&macro, &function, sizeof macro) == 0);
    FAILS(trtllm_build_config_init(sizeof function, NULL), INVALID_ARGUMENT, "`config`: is NULL");
    DONE("macro_and_function_agree");
}

static void misuse(const char *checkpoint) {
    trtllm_build_config config = TRTLLM_BUILD_CONFIG_INIT;
    const char *unknown[] = {"no_such_pass"}, *null[] = {NULL};
    FAILS(trtllm_build(NULL, path, NULL), INVALID_ARGUMENT, "`checkpoint_path`: is NULL");
    FAILS(trtllm_build(checkpoint, NULL, NULL), INVALID_ARGUMENT, "`engine_path`: is NULL");
    FAILS(trtllm_build("", path, NULL), INVALID_ARGUMENT, "`checkpoint_path`: is empty");
    FAILS(trtllm_build("a\xff", path, NULL), INVALID_ARGUMENT, "`checkpoint_path`: is not UTF-8");
    FAILS(trtllm_build("/no/such/folder", path, NULL), NOT_FOUND, "/no/such/folder");
    FAILS(trtllm_build(checkpoint, "/no/such/folder/engine", NULL), NOT_FOUND, "/no/such/folder");
    config.struct_size = 7;
    FAILS(trtllm_build(checkpoint, path, &config), INVALID_ARGUMENT, "`config.struct_size`: is 7");
    config.struct_size = sizeof config;
    config.precision = 99;
    FAILS(trtllm_build(checkpoint, path, &config), INVALID_ARGUMENT, "`config.precision`: 99");
    config.precision = TRTLLM_PRECISION_AUTO;
    config.dummy_weights = 2;
    FAILS(trtllm_build(checkpoint, path, &config), INVALID_ARGUMENT, "`config.dummy_weights`: is 2");
    config.dummy_weights = 0;
    config.default_tactics = 2;
    FAILS(trtllm_build(checkpoint, path, &config), INVALID_ARGUMENT, "`config.default_tactics`");
    config.default_tactics = 0;
    config.target = 3;
    FAILS(trtllm_build(checkpoint, path, &config), INVALID_ARGUMENT, "`config.target`: 3");
    config.target = TRTLLM_TARGET_CUDA;
    config.precision = TRTLLM_PRECISION_F32;
    FAILS(trtllm_build(checkpoint, path, &config), UNSUPPORTED, "precision f32 on cuda");
    config.precision = TRTLLM_PRECISION_INT8;
    FAILS(trtllm_build(checkpoint, path, &config), UNSUPPORTED, "precision int8 on cuda");
    config.precision = TRTLLM_PRECISION_INT8_W8A8;
    FAILS(trtllm_build(checkpoint, path, &config), UNSUPPORTED, "precision int8_w8a8 on cuda");
    config.precision = TRTLLM_PRECISION_F32;
    config.target = TRTLLM_TARGET_CPU;
    config.kv_precision = TRTLLM_PRECISION_BF16;
    FAILS(trtllm_build(checkpoint, path, &config), INVALID_ARGUMENT, "`kv_precision`");
    config.kv_precision = -1;
    FAILS(trtllm_build(checkpoint, path, &config), INVALID_ARGUMENT, "`config.kv_precision`: -1");
    config.kv_precision = TRTLLM_PRECISION_AUTO;
    config.head_precision = TRTLLM_PRECISION_FP8;
    FAILS(trtllm_build(checkpoint, path, &config), INVALID_ARGUMENT, "`head_precision`");
    config.head_precision = TRTLLM_PRECISION_AUTO;
    config.precision = TRTLLM_PRECISION_AUTO;
    config.disabled_pass_count = 1;
    FAILS(trtllm_build(checkpoint, path, &config), INVALID_ARGUMENT, "`config.disabled_passes`: is NULL");
    config.disabled_passes = null;
    FAILS(trtllm_build(checkpoint, path, &config), INVALID_ARGUMENT, "`config.disabled_passes[0]`: is NULL");
    config.disabled_passes = unknown;
    FAILS(trtllm_build(checkpoint, path, &config), INVALID_ARGUMENT, "no_such_pass");
    CHECK(!exists(path));
    DONE("misuse");
}

struct seen {
    int calls;
    int phases;
    double last;
    char phase[64];
};

static int32_t watch(void *user_data, const char *phase, double fraction) {
    struct seen *seen = user_data;
    CHECK(fraction >= 0.0 && fraction <= 1.0 && phase[0] != '\0' && strlen(phase) < sizeof seen->phase);
    if (strcmp(phase, seen->phase) != 0) {
        strcpy(seen->phase, phase);
        seen->phases++;
    } else {
        CHECK(fraction >= seen->last);
    }
    seen->last = fraction;
    seen->calls++;
    return 0;
}

static void progress(const char *checkpoint) {
    trtllm_build_config config = TRTLLM_BUILD_CONFIG_INIT;
    struct seen seen;
    memset(&seen, 0, sizeof seen);
    config.progress = watch;
    config.user_data = &seen;
    OK(trtllm_build(checkpoint, path, &config));
    CHECK(seen.calls > 0 && seen.phases > 0 && seen.last == 1.0);
    CHECK(exists(path) && remove(path) == 0);
    DONE("progress");
}

static int32_t refuse(void *user_data, const char *phase, double fraction) {
    (void)phase;
    (void)fraction;
    ++*(int *)user_data;
    return 1;
}

static void cancel(const char *checkpoint) {
    trtllm_build_config config = TRTLLM_BUILD_CONFIG_INIT;
    int calls = 0;
    config.progress = refuse;
    config.user_data = &calls;
    FAILS(trtllm_build(checkpoint, path, &config), CANCELLED, "cancelled");
    CHECK(calls == 1 && !exists(path));
    DONE("cancel");
}

static void options(const char *checkpoint) {
    trtllm_build_config config = TRTLLM_BUILD_CONFIG_INIT;
    const char *disabled[] = {"qkv"};
    trtllm_engine *engine;
    trtllm_engine_info info;
    config.precision = TRTLLM_PRECISION_F32;
    config.max_positions = 64;
    config.disabled_passes = disabled;
    config.disabled_pass_count = 1;
    OK(trtllm_build(checkpoint, path, &config));
    OK(trtllm_engine_load(path, NULL, &engine));
    OK(trtllm_engine_get_info(engine, sizeof info, &info));
    CHECK(info.precision == TRTLLM_PRECISION_F32 && info.max_positions == 64);
    CHECK(info.kv_precision == TRTLLM_PRECISION_F32 && info.head_precision == TRTLLM_PRECISION_F32);
    OK(trtllm_engine_destroy(engine));
    DONE("options");
}

/* As it was before targets and the precisions of cache and head: programs of that time go on building for the CPU. */
static void older_config(const char *checkpoint) {
    trtllm_build_config config;
    trtllm_engine *engine;
    trtllm_engine_info info;
    memset(&config, 0x5a, sizeof config);
    OK(trtllm_build_config_init(64, &config));
    config.target = 0;
    OK(trtllm_build(checkpoint, path, &config));
    OK(trtllm_engine_load(path, NULL, &engine));
    OK(trtllm_engine_get_info(engine, sizeof info, &info));
    CHECK(info.target == TRTLLM_TARGET_CPU && info.kv_precision == info.precision);
    OK(trtllm_engine_destroy(engine));
    DONE("older_config");
}

static void precisions(const char *checkpoint) {
    trtllm_build_config config = TRTLLM_BUILD_CONFIG_INIT;
    trtllm_engine *engine;
    trtllm_engine_info info;
    config.precision = TRTLLM_PRECISION_FP8;
    config.kv_precision = TRTLLM_PRECISION_FP8;
    OK(trtllm_build(checkpoint, path, &config));
    OK(trtllm_engine_load(path, NULL, &engine));
    OK(trtllm_engine_get_info(engine, sizeof info, &info));
    CHECK(info.precision == TRTLLM_PRECISION_FP8 && info.kv_precision == TRTLLM_PRECISION_FP8);
    CHECK(info.head_precision == TRTLLM_PRECISION_BF16);
    OK(trtllm_engine_destroy(engine));
    config.kv_precision = TRTLLM_PRECISION_AUTO;
    for (int32_t own = TRTLLM_PRECISION_INT8; own <= TRTLLM_PRECISION_INT8_W8A8; own++) {
        config.precision = own;
        config.head_precision = own;
        OK(trtllm_build(checkpoint, path, &config));
        OK(trtllm_engine_load(path, NULL, &engine));
        OK(trtllm_engine_get_info(engine, sizeof info, &info));
        CHECK(info.precision == own && info.head_precision == own);
        CHECK(info.kv_precision == TRTLLM_PRECISION_BF16);
        OK(trtllm_engine_destroy(engine));
    }
    DONE("precisions");
}

static void dummy_weights(const char *checkpoint) {
    trtllm_build_config config = TRTLLM_BUILD_CONFIG_INIT;
    char json[4096];
    trtllm_engine *engine;
    trtllm_tokenizer *tokenizer = UNTOUCHED;
    CHECK((size_t)snprintf(json, sizeof json, "%s/config.json", checkpoint) < sizeof json);
    config.dummy_weights = 1;
    config.seed = 7;
    OK(trtllm_build(json, path, &config));
    OK(trtllm_engine_load(path, NULL, &engine));
    FAILS(trtllm_tokenizer_create(engine, &tokenizer), NOT_FOUND, "tokenizer");
    CHECK(tokenizer == UNTOUCHED);
    OK(trtllm_engine_destroy(engine));
    DONE("dummy_weights");
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    CHECK((size_t)snprintf(path, sizeof path, "%s/built.engine", argv[2]) < sizeof path);
    macro_and_function_agree();
    misuse(argv[1]);
    cancel(argv[1]);
    progress(argv[1]);
    options(argv[1]);
    older_config(argv[1]);
    precisions(argv[1]);
    dummy_weights(argv[1]);
    return 0;
}
