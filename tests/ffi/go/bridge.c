#include "bridge.h"

#include "_cgo_export.h"

static int32_t on_progress(void *user_data, const char *phase, double fraction) {
    return goProgress((uintptr_t)user_data, (char *)phase, fraction);
}

static void on_response(void *user_data, const trtllm_response *response) {
    goResponse((uintptr_t)user_data, (trtllm_response *)response);
}

static void on_free(void *user_data) {
    goFree((uintptr_t)user_data);
}

trtllm_status bridge_build(const char *checkpoint_path, const char *engine_path, const trtllm_build_config *config,
                           uintptr_t progress) {
    trtllm_build_config reporting = *config;
    reporting.progress = progress ? on_progress : NULL;
    reporting.user_data = (void *)progress;
    return trtllm_build(checkpoint_path, engine_path, &reporting);
}

trtllm_status bridge_engine_load(const char *path, const trtllm_engine_config *config, uintptr_t progress,
                                 trtllm_engine **engine) {
    trtllm_engine_config reporting = *config;
    reporting.progress = progress ? on_progress : NULL;
    reporting.user_data = (void *)progress;
    return trtllm_engine_load(path, &reporting, engine);
}

trtllm_status bridge_set_callback(trtllm_request *request, uintptr_t listener) {
    return trtllm_request_set_callback(request, on_response, (void *)listener, on_free);
}
