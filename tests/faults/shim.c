/* Calls of the C library that fail when they are told to. The program that this is linked into comes before the C
 * library, so that the calls of libtrtllm end here. */
#define _GNU_SOURCE
#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST_FILES = 1024 };

static atomic_int armed, seen;
static enum shim_calls which;
static enum shim_fault fault;
static int fail_at, forever;
static const char *place;
static void (*strike)(void);
static atomic_char ours[MOST_FILES];

void shim_arm(enum shim_calls calls, enum shim_fault kind, int at, int again, const char *path) {
    which = calls, fault = kind, fail_at = at, forever = again, place = path;
    atomic_store(&seen, 0);
    atomic_store(&armed, 1);
}

void shim_strike(void (*function)(void)) {
    strike = function;
}

int shim_disarm(void) {
    atomic_store(&armed, 0);
    return atomic_load(&seen);
}

/* Whether this call, one of `calls`, is to fail. */
static int hit(enum shim_calls calls) {
    if (!atomic_load(&armed) || which != calls) return 0;
    int number = atomic_fetch_add(&seen, 1);
    if (number != fail_at && !(forever && number > fail_at)) return 0;
    if (fault == SHIM_KILL) raise(SIGKILL);
    if (fault == SHIM_STRIKE) strike();
    return fault == SHIM_EIO || fault == SHIM_ENOSPC || fault == SHIM_EAGAIN || fault == SHIM_SHORT;
}

/* As `hit`, for a call that cannot do half of what it is to do. */
static int fails(enum shim_calls calls) {
    return hit(calls) && fault != SHIM_SHORT;
}

static int refused(void) {
    errno = fault == SHIM_EIO ? EIO : ENOSPC;
    return -1;
}

static int is_ours(int file) {
    return file >= 0 && file < MOST_FILES && atomic_load(&ours[file]);
}

/* Below the place that was named when the shim was armed. */
static int below(const char *path) {
    return atomic_load(&armed) && place != NULL && strncmp(path, place, strlen(place)) == 0;
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = flags & O_CREAT ? va_arg(rest, int) : 0;
    va_end(rest);
    int mine = below(path);
    if (mine && fails(SHIM_WRITES)) return refused();
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (file >= 0 && file < MOST_FILES) atomic_store(&ours[file], (char)mine);
    return file;
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) {
    if (is_ours(file) && hit(SHIM_WRITES)) {
        if (fault != SHIM_SHORT) return refused();
        count = count / 2 + count % 2;
    }
    return syscall(SYS_pwrite64, file, bytes, count, offset);
}

int fsync(int file) {
    if (is_ours(file) && fails(SHIM_WRITES)) return refused();
    return (int)syscall(SYS_fsync, file);
}

int flock(int file, int operation) {
    if (is_ours(file) && fails(SHIM_WRITES)) return refused();
    return (int)syscall(SYS_flock, file, operation);
}

int rename(const char *from, const char *to) {
    if (below(from) && fails(SHIM_WRITES)) return refused();
    return (int)syscall(SYS_rename, from, to);
}

ssize_t pread64(int file, void *bytes, size_t count, off64_t offset) {
    if (is_ours(file)) hit(SHIM_READS);
    return syscall(SYS_pread64, file, bytes, count, offset);
}

ssize_t read(int file, void *bytes, size_t count) {
    if (is_ours(file)) hit(SHIM_READS);
    return syscall(SYS_read, file, bytes, count);
}

void *mmap64(void *start, size_t bytes, int protection, int flags, int file, off64_t offset) {
    if (is_ours(file)) hit(SHIM_READS);
    return (void *)syscall(SYS_mmap, start, bytes, protection, flags, file, offset);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument) {
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (hit(SHIM_THREADS)) return EAGAIN;
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    return real(thread, attributes, body, argument);
}
