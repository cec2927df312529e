/* Figures of this process. */
#ifndef PROCESS_H
#define PROCESS_H

#include <dirent.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

static inline int entries(const char *folder) {
    int count = 0;
    DIR *directory = opendir(folder);
    CHECK(directory != NULL);
    while (readdir(directory) != NULL) count++;
    closedir(directory);
    return count - 2;
}

/* Threads of this process, once those that were joined are gone. */
static inline int threads(void) {
    int count = 0;
    for (int look = 0; look < 1000 && (count = entries("/proc/self/task")) > 1; look++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return count;
}

/* Kibibytes that are resident. */
static inline long resident(void) {
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%*d %ld", &pages) == 1);
    fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

#endif
