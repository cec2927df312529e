/* What may be wrong with an argument, by its kind. Every macro starts from a valid call, `FUNCTION_valid`, and changes one
 * argument; the generated cases name functions and parameters. */
#ifndef MISUSE_H
#define MISUSE_H

#include "world.h"

#define LENGTH_OF(array) (sizeof(array) / sizeof *(array))

/* The call is refused, its message names the culprit, its outputs are untouched. */
#define REFUSED(function, parameter, misuse, change, status, culprit)     \
    do {                                                                  \
        reset();                                                          \
        begin(#function, parameter, misuse);                              \
        function##_arguments a = function##_valid();                      \
        change;                                                           \
        refused(function##_call(&a), TRTLLM_STATUS_##status, culprit);    \
    } while (0)

/* The call, or else the submission of the request that it changed, is refused. */
#define REFUSED_LATER(function, parameter, misuse, change, culprit)       \
    do {                                                                  \
        reset();                                                          \
        begin(#function, parameter, misuse);                              \
        function##_arguments a = function##_valid();                      \
        change;                                                           \
        refused_now_or_later(function##_call(&a), culprit);               \
    } while (0)

/* The call succeeds; what it returned is destroyed. */
#define ACCEPTED(function, parameter, use, change)                        \
    do {                                                                  \
        reset();                                                          \
        begin(#function, parameter, use);                                 \
        function##_arguments a = function##_valid();                      \
        change;                                                           \
        accepted(function##_call(&a));                                    \
        function##_release(&a);                                           \
        renew();                                                          \
    } while (0)

/* Pointers. */
static inline void *misaligned(const void *pointer) { return (void *)((uintptr_t)pointer - 1); }

#define NULL_POINTER(function, parameter) \
    REFUSED(function, #parameter, "NULL", a.parameter = NULL, INVALID_ARGUMENT, "`" #parameter "`: is NULL")
#define MISALIGNED(function, parameter)                                                                          \
    REFUSED(function, #parameter, "misaligned", a.parameter = misaligned(a.parameter), INVALID_ARGUMENT, \
            "`" #parameter "`: is not aligned")

/* Handles: those of other types, destroyed ones, numbers, real addresses, and the living one with any bit turned. */
enum { NUMBERS = 8, WRONG_HANDLES = 2 * KINDS + NUMBERS + 64 };

static inline void *wrong_handle(size_t kind, size_t i) {
    static int on_the_heap_or_so;
    int on_the_stack;
    const uintptr_t numbers[NUMBERS] = {1,
                                        2,
                                        0xdeadbeef,
                                        (uintptr_t)&on_the_stack,
                                        (uintptr_t)&on_the_stack + 1,
                                        (uintptr_t)&on_the_heap_or_so,
                                        (uintptr_t)INTPTR_MAX,
                                        UINTPTR_MAX};
    if (i < KINDS) return i == kind ? world.destroyed[kind] : living(i);
    if (i < 2 * KINDS) return world.destroyed[i - KINDS];
    if (i < 2 * KINDS + NUMBERS) return (void *)numbers[i - 2 * KINDS];
    return (void *)((uintptr_t)living(kind) ^ (uintptr_t)1 << (i - 2 * KINDS - NUMBERS));
}

static inline const char *name_of_wrong_handle(size_t i) {
    static char name[32];
    snprintf(name, sizeof name, "wrong handle %zu", i);
    return name;
}

#define HANDLE(function, parameter, kind)                                                                           \
    for (size_t i = 0; i < WRONG_HANDLES; i++)                                                                      \
    REFUSED(function, #parameter, name_of_wrong_handle(i), a.parameter = wrong_handle(kind, i), INVALID_HANDLE, \
            "`" #parameter "`: this trtllm_")

/* Texts and lengths. */
static const char *const not_utf8[] = {"\xff",         "a\x80",        "\xc3",     "\xc3(",        "\xc0\xaf", "\xe2\x82",
                                       "\xed\xa0\x80", "\xf0\x9f\x98", "ok\xe0 b", "\xf4\x90\x80\x80"};
static const size_t absurd_lengths[] = {((size_t)16 << 20) + 1, (size_t)1 << 40,     (size_t)1 << 62, SIZE_MAX / 4 + 1,
                                        SIZE_MAX / 2,           SIZE_MAX / 2 + 1, SIZE_MAX - 1,    SIZE_MAX};

#define LENGTHS(function, array, length, culprit)                                                            \
    for (size_t i = 0; i < LENGTH_OF(absurd_lengths); i++)                                                   \
    REFUSED(function, #length, "absurd length", a.length = absurd_lengths[i], INVALID_ARGUMENT, culprit)

#define NULL_WITH_LENGTH(function, array, length) \
    REFUSED(function, #array, "NULL with a length", (a.array = NULL, a.length = 1), INVALID_ARGUMENT, "`" #array "`: is NULL")

#define NOT_UTF8(function, text, size)                                                                        \
    for (size_t i = 0; i < LENGTH_OF(not_utf8); i++)                                                          \
    REFUSED(function, #text, "not UTF-8", (a.size = strlen(not_utf8[i]), a.text = input(not_utf8[i], a.size)), \
            INVALID_ARGUMENT, "`" #text "`: is not UTF-8")

/* Strings that end with a NUL. */
#define STRING_NOT_UTF8(function, text)                                                                             \
    for (size_t i = 0; i < LENGTH_OF(not_utf8); i++)                                                                \
    REFUSED(function, #text, "not UTF-8", a.text = string(not_utf8[i]), INVALID_ARGUMENT, "`" #text "`: is not UTF-8")

static inline char *string(const char *text) { return input(text, strlen(text) + 1); }

/* A name of one byte more than is allowed, and no NUL before the end of what may be read. */
static inline char *endless_name(void) {
    static char name[4097];
    memset(name, 'a', sizeof name);
    return input(name, sizeof name);
}

/* The same for a text. */
static inline char *endless_text(void) {
    static unsigned char *end;
    const size_t most = (size_t)16 << 20;
    if (end == NULL) {
        end = guarded(most + PAGE);
        memset(end - most - 1, 'a', most + 1);
    }
    return (char *)end - most - 1;
}

#define NAME(function, text)                                                                                             \
    REFUSED(function, #text, "empty", a.text = string(""), INVALID_ARGUMENT, "`" #text "`: is empty");                   \
    REFUSED(function, #text, "endless", a.text = endless_name(), INVALID_ARGUMENT, "`" #text "`: is longer than 4096")

#define MISSING_FILE(function, path)                                                                             \
    REFUSED(function, #path, "no such file", a.path = string("no/such/file"), NOT_FOUND, "no/such/file")

/* Arrays of names. */
static inline const char *const *names(const char *name) { return input(&name, sizeof name); }

#define NAMES(function, array, length)                                                                                  \
    NULL_WITH_LENGTH(function, array, length);                                                                          \
    LENGTHS(function, array, length, "`" #array "`");                                                                   \
    MISALIGNED(function, array);                                                                                        \
    REFUSED(function, #array, "NULL in it", a.array = names(NULL), INVALID_ARGUMENT, "`" #array "[0]`: is NULL");      \
    REFUSED(function, #array, "empty name", a.array = names(string("")), INVALID_ARGUMENT, "`" #array "[0]`: is empty"); \
    REFUSED(function, #array, "not UTF-8", a.array = names(string("\xff")), INVALID_ARGUMENT, "`" #array "[0]`");        \
    REFUSED(function, #array, "endless name", a.array = names(endless_name()), INVALID_ARGUMENT, "`" #array "[0]`");     \
    REFUSED(function, #array, "unknown name", a.array = names(string("no_such")), INVALID_ARGUMENT, "no_such")

/* Numbers. */
static const int32_t no_flags[] = {-1, 2, 3, 256, 65536, INT32_MIN, INT32_MAX};

#define FLAG(function, parameter)                                                                       \
    for (size_t i = 0; i < LENGTH_OF(no_flags); i++)                                                    \
    REFUSED(function, #parameter, "neither 0 nor 1", a.parameter = no_flags[i], INVALID_ARGUMENT, "`" #parameter "`")

/* Results of unknown size: a buffer, its capacity and a length. `extra` elements follow those that the length counts. */
#define RESULT(function, buffer, capacity, length, extra)                                                                 \
    do {                                                                                                                   \
        size_t needed, element;                                                                                            \
        reset();                                                                                                           \
        begin(#function, #buffer, "size query");                                                                           \
        function##_arguments a = function##_valid();                                                                       \
        element = sizeof *a.buffer;                                                                                        \
        a.buffer = NULL;                                                                                                   \
        a.capacity = 0;                                                                                                    \
        accepted(function##_call(&a));                                                                                     \
        needed = *a.length + (extra);                                                                                      \
        memset(a.length, PATTERN, sizeof *a.length);                                                                       \
        untouched();                                                                                                       \
        const size_t small[] = {0, 1, needed - 1};                                                                         \
        for (size_t i = 0; i < LENGTH_OF(small); i++) {                                                                    \
            reset();                                                                                                       \
            begin(#function, #capacity, "too small");                                                                      \
            a = function##_valid();                                                                                        \
            a.buffer = output(small[i] * element);                                                                         \
            a.capacity = small[i];                                                                                         \
            trtllm_status got = function##_call(&a);                                                                       \
            if (*a.length != needed - (extra)) wrong("another length");                                                    \
            memset(a.length, PATTERN, sizeof *a.length);                                                                   \
            refused(got, TRTLLM_STATUS_BUFFER_TOO_SMALL, "`" #buffer "`");                                                 \
        }                                                                                                                  \
        ACCEPTED(function, #capacity, "just enough", (a.buffer = output(needed * element), a.capacity = needed));          \
        for (size_t i = 0; i < LENGTH_OF(absurd_lengths); i++)                                                             \
            ACCEPTED(function, #capacity, "absurd", (a.buffer = output(needed * element), a.capacity = absurd_lengths[i])); \
        REFUSED(function, #buffer, "NULL with a capacity", (a.buffer = NULL, a.capacity = 1), INVALID_ARGUMENT,            \
                "`" #buffer "`: is NULL");                                                                                 \
    } while (0)

/* Structs that the library fills, and their sizes; sizes between two multiples of the alignment are of no version. */
#define EACH_WRONG_SIZE(type)                                                                                           \
    const size_t wrong_sizes[] = {0, 1, 7, 8, sizeof(type) - 1, sizeof(type) + 1, (64 << 10) + 1, (64 << 10) + 8,       \
                                  (size_t)1 << 32, ((size_t)1 << 32) + sizeof(type), (size_t)1 << 40, SIZE_MAX / 2,     \
                                  SIZE_MAX - 7, SIZE_MAX};                                                              \
    for (size_t i = 0; i < LENGTH_OF(wrong_sizes); i++)

#define SIZE_OF_RESULT(function, parameter, size, type)                                                           \
    do {                                                                                                          \
        EACH_WRONG_SIZE(type)                                                                                     \
        REFUSED(function, #size, "wrong size", a.size = wrong_sizes[i], INVALID_ARGUMENT, "`" #size "`: is ");    \
        begin(#function, #size, "a newer caller's");                                                              \
        reset();                                                                                                  \
        function##_arguments a = function##_valid();                                                              \
        a.size = sizeof(type) + 16;                                                                               \
        a.parameter = output(a.size);                                                                             \
        accepted(function##_call(&a));                                                                            \
        for (size_t i = sizeof(type); i < a.size; i++)                                                            \
            if (((const unsigned char *)a.parameter)[i] != 0) wrong("what the library does not know is not 0");   \
        renew();                                                                                                  \
    } while (0)

/* Structs that the caller fills: `_init` and `_INIT` agree, the size is read before the rest. */
static inline void *config_of(const void *bytes, size_t size, size_t said) {
    unsigned char *start = input(bytes, size);
    memcpy(start, &said, sizeof said);
    return start;
}

#define CONFIG_SIZE(function, parameter, type, initializer)                                                             \
    do {                                                                                                                \
        struct {                                                                                                        \
            type known;                                                                                                 \
            uint64_t tail[2];                                                                                           \
        } newer = {initializer, {0, 0}};                                                                                \
        EACH_WRONG_SIZE(type)                                                                                           \
        REFUSED(function, #parameter ".struct_size", "wrong size",                                                      \
                a.parameter = config_of(&newer, sizeof(size_t), wrong_sizes[i]), INVALID_ARGUMENT,                      \
                "`" #parameter ".struct_size`: is ");                                                                   \
        newer.known.struct_size = sizeof newer;                                                                         \
        ACCEPTED(function, #parameter, "a newer caller's", a.parameter = input(&newer, sizeof newer));                  \
        newer.tail[1] = (uint64_t)1 << 63;                                                                              \
        REFUSED(function, #parameter, "set beyond what is known", a.parameter = input(&newer, sizeof newer),            \
                INVALID_ARGUMENT, "`" #parameter "`: byte ");                                                           \
        MISALIGNED(function, parameter);                                                                                \
    } while (0)

#define SAME_DEFAULTS(type, initializer, init)                             \
    do {                                                                   \
        type macro = initializer, function;                                \
        begin(#init, #initializer, "the same as the function's");          \
        memset(&function, PATTERN, sizeof function);                       \
        accepted(init(sizeof function, &function));                        \
        if (memcmp(&macro, &function, sizeof macro) != 0) wrong("differs"); \
    } while (0)

/* One field of a config is wrong. */
#define FIELD(function, parameter, field, type, initializer, value, status, culprit)                                        \
    REFUSED(function, #parameter "." #field, #value, type config = initializer; config.field = value;                       \
            a.parameter = input(&config, sizeof config), status, culprit)
#define FIELD_LATER(function, parameter, field, type, initializer, value, culprit)                                          \
    REFUSED_LATER(function, #parameter "." #field, #value, type config = initializer; config.field = value;                 \
                  a.parameter = input(&config, sizeof config), culprit)
#define FIELD_TAKEN(function, parameter, field, type, initializer, value)                                                   \
    ACCEPTED(function, #parameter "." #field, #value, type config = initializer; config.field = value;                      \
             a.parameter = input(&config, sizeof config))

/* Names of values: every number has one. */
#define NAMED(function, value, name)                                    \
    do {                                                                \
        begin(#function, #value, "name");                               \
        if (strcmp(function(value), name) != 0) wrong("another name");  \
    } while (0)

#endif
