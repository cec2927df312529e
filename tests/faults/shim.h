/* Which calls fail, how and when. */
#ifndef SHIM_H
#define SHIM_H

enum shim_calls {
    SHIM_WRITES = 1, /* whatever changes files */
    SHIM_READS,      /* whatever brings their content in */
    SHIM_THREADS
};

enum shim_fault {
    SHIM_EIO = 1,
    SHIM_ENOSPC,
    SHIM_EAGAIN,
    SHIM_SHORT, /* a write takes half; other calls work */
    SHIM_KILL,  /* the process is killed before the call */
    SHIM_STRIKE /* the function of `shim_strike` is called first */
};

/* From now on call number `at` fails, and with `again` all that follow; of files only those whose path begins with
 * `path`. */
void shim_arm(enum shim_calls calls, enum shim_fault fault, int at, int again, const char *path);

/* No call fails any more. Returns how many there were that could have. */
int shim_disarm(void);

void shim_strike(void (*function)(void));

#endif
