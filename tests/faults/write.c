/* Every call of an engine write failing, or the process killed there: the old file or the new one.
 * argv: a config.json, an empty folder. */
#define _GNU_SOURCE
#include <dirent.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "shim.h"

static const char OLD[] = "what was there";
static char target[4096], reference[4096];

static char *content(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    CHECK(fseek(file, 0, SEEK_END) == 0);
    *length = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(*length + 1);
    CHECK(bytes != NULL && fread(bytes, 1, *length, file) == *length);
    fclose(file);
    return bytes;
}

static int same(const char *bytes, size_t length, const char *others, size_t others_length) {
    return length == others_length && memcmp(bytes, others, length) == 0;
}

/* Files of the folder beside target and reference. */
static int others(const char *folder) {
    int count = 0;
    DIR *directory = opendir(folder);
    CHECK(directory != NULL);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
                 strcmp(entry->d_name, "model.engine") != 0 && strcmp(entry->d_name, "reference.engine") != 0;
    }
    closedir(directory);
    return count;
}

static void dummy(trtllm_build_config *config) {
    *config = (trtllm_build_config)TRTLLM_BUILD_CONFIG_INIT;
    config->dummy_weights = 1;
}

enum { BUILT = 0, FAILED = 1, NOTHING_HIT = 2 };

/* Builds in a child whose call number `at` fails; returns how that ended, or -1 when it was killed. */
static int build(char **argv, enum shim_fault fault, int at, int again) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        trtllm_build_config config;
        dummy(&config);
        shim_arm(SHIM_WRITES, fault, at, again, argv[2]);
        trtllm_status status = trtllm_build(argv[1], target, &config);
        int missed = shim_disarm() <= at;

        CHECK(status == TRTLLM_STATUS_OK || status == TRTLLM_STATUS_IO);
        _exit(missed ? NOTHING_HIT : status == TRTLLM_STATUS_OK ? BUILT : FAILED);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    snprintf(target, sizeof target, "%s/model.engine", argv[2]);
    snprintf(reference, sizeof reference, "%s/reference.engine", argv[2]);
    CHECK(build(argv, SHIM_EIO, 1 << 20, 0) == NOTHING_HIT && rename(target, reference) == 0);
    size_t whole_length;
    char *whole = content(reference, &whole_length);
    static const struct {
        enum shim_fault fault;
        int again;
    } ways[] = {{SHIM_EIO, 0},   {SHIM_EIO, 1},   {SHIM_ENOSPC, 0}, {SHIM_ENOSPC, 1},
                {SHIM_SHORT, 0}, {SHIM_SHORT, 1}, {SHIM_KILL, 0}};
    int trials = 0, olds = 0, news = 0, left = 0;
    for (size_t way = 0; way < sizeof ways / sizeof *ways; way++) {
        for (int at = 0, end = BUILT; end != NOTHING_HIT; at++, trials++) {
            FILE *old = fopen(target, "wb");
            CHECK(old != NULL && fwrite(OLD, 1, sizeof OLD, old) == sizeof OLD && fclose(old) == 0);
            int before = others(argv[2]);
            end = build(argv, ways[way].fault, at, ways[way].again);
            size_t length;
            char *bytes = content(target, &length);
            int is_new = same(bytes, length, whole, whole_length);
            CHECK(is_new || same(bytes, length, OLD, sizeof OLD));
            CHECK(is_new || (end != BUILT && end != NOTHING_HIT));
            CHECK(ways[way].fault != SHIM_SHORT || is_new);
            if (ways[way].fault == SHIM_KILL) {
                left += others(argv[2]) > before;
            } else {
                CHECK(others(argv[2]) == 0);
            }
            olds += !is_new, news += is_new;
            free(bytes);
            CHECK(at < 1000);
        }
        CHECK(others(argv[2]) == 0);
    }
    CHECK(olds > 0 && news > 0 && left > 0);
    printf("ok write: %d trials, %d old and %d new files, %d leftovers of the killed\n", trials, olds, news, left);
    free(whole);
    return 0;
}
