/* An engine truncated by somebody else at every read of a load: a typed error, or an engine that was read before.
 * argv: an engine, an empty folder. */
#define _GNU_SOURCE
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "shim.h"

static char copy[4096];
static long cut;

static void truncate_copy(void) {
    if (truncate(copy, cut) != 0) _exit(9);
}

static long copy_engine(const char *path) {
    char command[9000];
    snprintf(command, sizeof command, "cp '%s' '%s'", path, copy);
    CHECK(system(command) == 0);
    struct stat about;
    CHECK(stat(copy, &about) == 0);
    return (long)about.st_size;
}

enum { LOADED = 0, REFUSED = 1, NOTHING_HIT = 2 };

static int load(int at, int mode, const char *folder) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        trtllm_engine_config config = TRTLLM_ENGINE_CONFIG_INIT;
        trtllm_engine *engine = NULL;
        config.load_mode = mode;
        shim_strike(truncate_copy);
        shim_arm(SHIM_READS, SHIM_STRIKE, at, 0, folder);
        trtllm_status status = trtllm_engine_load(copy, &config, &engine);
        int missed = shim_disarm() <= at;
        CHECK(status == TRTLLM_STATUS_OK || status == TRTLLM_STATUS_IO || status == TRTLLM_STATUS_CORRUPT ||
              status == TRTLLM_STATUS_UNSUPPORTED_FORMAT);
        CHECK((status == TRTLLM_STATUS_OK) == (engine != NULL));
        _exit(missed ? NOTHING_HIT : status == TRTLLM_STATUS_OK ? LOADED : REFUSED);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) <= NOTHING_HIT);
    return WEXITSTATUS(status);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    snprintf(copy, sizeof copy, "%s/copy.engine", argv[2]);
    int trials = 0, refusals = 0;
    for (int mode = TRTLLM_LOAD_MODE_MAP; mode <= TRTLLM_LOAD_MODE_READ; mode++) {
        for (int part = 0; part < 4; part++) {
            for (int at = 0, end = LOADED; end != NOTHING_HIT; at++, trials++) {
                long size = copy_engine(argv[1]);
                cut = part == 0 ? 0 : part == 1 ? 5000 : part == 2 ? size / 2 : size - 1;
                end = load(at, mode, argv[2]);
                refusals += end == REFUSED;
                CHECK(at > 0 || end == REFUSED);
                CHECK(at < 10000);
            }
        }
    }
    CHECK(refusals > 20);
    printf("ok truncate: %d trials, %d refusals\n", trials, refusals);
    return 0;
}
